"""Constraints where a person meets them: `gpt.prompt`, the served models, and endpoints that keep nothing."""

import json
import re

import jsonschema
import openai
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Usage

PET = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "legs": {"enum": [2, 4]}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}
WARM = {"temperature": 1.5, "max_tokens": 60}


@pytest.fixture
def pair(gpt, tiny_model):
    """A base model and an assistant."""
    tiny_model(gpt, "base", context=512)
    tiny_model(gpt, "chat", chat=True, context=512)
    return gpt


@pytest.mark.parametrize(
    "name, how",
    [
        ("base", {}),
        ("chat", {}),
        ("base", {"as_assistant": True}),
        ("base", {"few_shot": [("a cat", "4"), ("a hen", "2")]}),
    ],
)
def test_every_way_of_asking(pair, name, how):
    done = pair.prompt("The old fox", model=name, json=PET, samples=4, **how, **WARM)
    for sample in done.samples:
        assert sample.valid
        jsonschema.validate(sample.value, PET)
        assert sample.finish_reason == "stop"
    assert done.notes[0] == "constrained to JSON of a schema"
    assert {s.text for s in pair.prompt("Say", model=name, choice="yes|no", samples=8, **how, **WARM).samples} == {
        "yes",
        "no",
    }


def test_refused_before_anything_is_sampled(pair, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("sampled"))
    with pytest.raises(GPTError, match="uniqueItems"):
        pair.prompt("x", model="base", json={"type": "array", "uniqueItems": True})
    with pytest.raises(GPTError, match="two constraints"):
        pair.prompt("x", model="base", regex="a", choice="a|b")
    dry = pair.prompt("x", model="base", regex="a+", dry_run=True)
    assert (dry.valid, dry.notes) == (None, ("constrained by the regex a+",))


@pytest.fixture
def client(pair):
    server = pair.serve(port=0)
    with openai.OpenAI(base_url=server.url, api_key=server.token, max_retries=0) as client:
        yield client
    server.stop()


def asked(client, model="chat", **more):
    messages = [{"role": "user", "content": "The old fox"}]
    return client.chat.completions.create(model=model, messages=messages, **WARM, **more)


def test_the_server_keeps_a_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": PET, "strict": True}}
    for model in ("chat", "base"):
        for choice in asked(client, model, n=3, response_format=form).choices:
            assert choice.finish_reason == "stop"
            jsonschema.validate(json.loads(choice.message.content), PET)
    whole = asked(client, response_format=form, seed=5).choices[0].message.content
    pieces = [c.choices[0].delta.content or "" for c in asked(client, response_format=form, seed=5, stream=True)]
    assert "".join(pieces) == whole
    found = asked(client, response_format={"type": "json_object"}, seed=1).choices[0]
    assert found.finish_reason == "length" or isinstance(json.loads(found.message.content), dict)


@pytest.mark.parametrize(
    "extra, pattern",
    [
        ({"structured_outputs": {"regex": "[a-z]{3}!"}}, "[a-z]{3}!"),
        ({"structured_outputs": {"choice": ["ja", "nein"]}}, "ja|nein"),
        ({"structured_outputs": {"grammar": 'start: "a" b\nb: /[0-9]/'}}, "a[0-9]"),
        ({"guided_regex": "[a-z]{3}!"}, "[a-z]{3}!"),
        ({"guided_choice": ["ja", "nein"]}, "ja|nein"),
    ],
)
def test_the_server_keeps_the_other_rules(client, extra, pattern):
    assert re.fullmatch(pattern, asked(client, extra_body=extra).choices[0].message.content)
    raw = client.completions.create(model="base", prompt="The old", extra_body=extra, **WARM)
    assert re.fullmatch(pattern, raw.choices[0].text)


@pytest.mark.parametrize(
    "more, said",
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "the schema must be a JSON object",
        ),
        ({"response_format": {"type": "yaml"}}, "'text', 'json_object' or 'json_schema'"),
        ({"extra_body": {"structured_outputs": {"yaml": 1}}}, "'regex', 'json', 'choice' or 'grammar'"),
        ({"extra_body": {"structured_outputs": {"regex": "("}}}, "unclosed group"),
        ({"extra_body": {"structured_outputs": {"grammar": "/etc/passwd"}}}, "a Lark grammar"),
        ({"extra_body": {"structured_outputs": {"json": "/etc/passwd"}}}, "Expecting value"),
        ({"extra_body": {"guided_regex": "a", "guided_choice": ["b"]}}, "two constraints"),
    ],
)
def test_the_server_refuses_what_it_cannot_keep(client, more, said):
    with pytest.raises(openai.BadRequestError, match=re.escape(said)):
        asked(client, **more)


def test_an_endpoint_that_keeps_rules(pair, client, monkeypatch):
    monkeypatch.setenv("FAR_KEY", client.api_key)
    pair.endpoint("far", str(client.base_url), "chat", key_env="FAR_KEY")
    pair.endpoint("far-base", str(client.base_url), "base", key_env="FAR_KEY", chat=False)
    for name in ("far", "far-base"):
        done = pair.prompt("The old fox", model=name, json=PET, samples=3, **WARM)
        assert [s.valid for s in done.samples] == [True] * 3
        assert done.notes == ("constrained to JSON of a schema",)
        assert re.fullmatch(r"\d{4}", pair.prompt("x", model=name, regex=r"\d{4}", **WARM).text)


class Careless:
    """A server's side of `inference.remote` that keeps no rule, until it is told what was wrong."""

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def complete(self, endpoint, asked, sampling, rule=None):
        self.asked.append((asked, sampling, rule))
        usage = Usage(10, 5, 0.1, 0.25)
        yield Completion(self.texts.pop(0), finish_reason="stop", model=endpoint.name, usage=usage)

    def complete_all(self, endpoint, asked, sampling, rule=None):
        return [next(self.complete(endpoint, one, sampling, rule)) for one in asked]


@pytest.mark.parametrize("second, kept", [("42", True), ("forty-two", False)])
def test_one_that_keeps_none_is_asked_once_more(gpt, monkeypatch, second, kept):
    from jupyter_gpt.inference import remote

    far = Careless("about 42", second)
    monkeypatch.setattr(remote, "complete", far.complete)
    monkeypatch.setattr(remote, "complete_all", far.complete_all)
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "m")
    done = gpt.prompt("How many?", model="far", regex=r"\d+")
    assert (done.text, done.valid, done.value) == (second, kept, "42" if kept else None)
    assert len(far.asked) == 2  # once more, not for ever
    first, repair = far.asked[0][0], far.asked[1][0]
    assert repair[: len(first)] == first
    assert repair[-2] == {"role": "assistant", "content": "about 42"}
    assert r"nothing but the regex \d+" in repair[-1]["content"]
    assert done.messages == repair  # what was sent is shown
    assert json.loads(done.prompt) == repair
    said = " ".join(done.notes)
    assert "did not enforce it (not the regex" in said and "asked again" in said
    assert ("without success" in said, "not kept: not valid" in said) == (not kept, not kept)
    assert (done.usage.prompt_tokens, done.usage.cost) == (20, 0.5)


def test_what_is_sent():
    from jupyter_gpt.inference.completion import Sampling
    from jupyter_gpt.inference.remote import request
    from jupyter_gpt.inference.rules import rule
    from jupyter_gpt.models.endpoints import Endpoint

    chat = Endpoint.of(name="far", base_url="http://127.0.0.1:9/v1", model="m")
    base = Endpoint.of(name="far", base_url="http://127.0.0.1:9/v1", model="m", chat=False)
    form = request(chat, "x", Sampling(), rule(json=PET))["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "answer", "schema": PET, "strict": True}}
    assert request(base, "x", Sampling(), rule(json=PET))["structured_outputs"] == {"json": PET}
    assert request(chat, "x", Sampling(), rule(choice="a|b"))["structured_outputs"] == {"choice": ["a", "b"]}
    assert "structured_outputs" not in request(chat, "x", Sampling())
