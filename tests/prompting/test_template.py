"""Templates: what is fixed stands as it is written, what is a hole keeps its rule, on whatever model."""

import json

import pytest

from jupyter_gpt.data.render import fill
from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.template import as_regex, is_template, parse, read_back

HERO = 'Name: {{gen name max_tokens=5}} Class: {{select role from="mage|thief"}}'


@pytest.fixture
def gpt(gpt, tiny_model):
    tiny_model(gpt, "base", context=512)
    tiny_model(gpt, "chat", chat=True, context=512)
    return gpt


def test_parsing():
    found, unknown = parse(
        r'{who}: "{{gen age regex="\d{1,3}" max_tokens=4}}"'
        "\n{{ select  kind from='a|b' temperature=0 }} {{who}} {x}",
        {"who": "Ada"},
    )
    age, kind = found.holes
    assert (age.name, age.rule.what, age.max_tokens) == ("age", r"\d{1,3}", 4)
    assert (kind.name, kind.rule.what, kind.temperature) == ("kind", ("a", "b"), 0)
    assert found.texts == ('Ada: "', '"\n', " {who} {x}")
    assert unknown == ["{x}"]
    stop = parse(r'{{gen a stop="\n"}}')[0].holes[0].stop
    assert stop == "\n"


def test_what_is_filled_in_is_no_hole():
    found, _ = parse("{said} {{gen a}}", {"said": "{{gen b}} {{select}}"})
    assert found.texts[0] == "{{gen b}} {{select}} "
    assert [hole.name for hole in found.holes] == ["a"]


def test_plain_prompts_keep_their_braces():
    """`{{name}}` stays the way to write a `{name}`, and JSON and other template languages are text."""
    for text in ('{"a": {"b": 1}}', "{{name}}", "{{ user.name }}", "{{#each}}", "{{gen}}"):
        assert not is_template(text)
    assert not is_template("{{range items}} {{include head.html}}")
    assert fill("{{name}} {name}", {"name": "Ada"}) == ("{name} Ada", [])


@pytest.mark.parametrize("text", ['{{pick role from="mage|thief"}}', "{{slect role}}", "Name: {{gne name}}"])
def test_an_unknown_hole_is_not_sent_as_words(text):
    assert is_template(text)
    with pytest.raises(GPTError, match="only gen and select"):
        parse(text)
    assert is_template(HERO)


REFUSED = [
    ("{{gen}} {{gen a}}", "has the name of the variable"),
    ('{{chose x from="a|b"}} {{gen a}}', "there is no chose hole"),
    ("{{ user.name }} {{gen a}}", "cannot be read"),
    ("{{gen a}}{{gen b}}", "no text after the hole a"),
    ("{{gen a}} {{gen a}}", "two holes named a"),
    ("{{select a}}", 'from="a|b"'),
    ("{{gen a foo=3}}", "gen takes no foo"),
    ('{{select a from="x" stop="y"}}', "select takes no stop"),
    ("{{gen a max_tokens=few}}", "max_tokens is a number"),
    ("{{gen a max_tokens=0}}", "at least 1"),
    ("{{gen 1a}}", "has the name of the variable"),
    ("{{gen a b}}", "has one name"),
    ('{{gen a regex="("}}', "unclosed group"),
    ('{{gen a regex="x" stop="y"}}', "leave stop out"),
    ("{{gen a json=$nothing}}", "no variable nothing"),
    ('{{gen a stop="ab"}} x {{gen b}}', "has to be one character"),
    ("{{gen a", "cannot be read"),
]


@pytest.mark.parametrize("text, said", REFUSED, ids=[text for text, _ in REFUSED])
def test_a_hole_that_is_not_understood(text, said):
    with pytest.raises(GPTError) as refused:
        parse(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def keeps(done, text=None):
    """Each sample is the template with its values, and says where they stand."""
    for sample in done.samples:
        assert sample.valid and sample.finish_reason == "stop"
        for name, start, end in sample.holes:
            assert sample.text[start:end] == str(sample.value[name])
        if text:
            whole = text
            for name, value in sample.value.items():
                whole = whole.replace(f"<{name}>", str(value))
            assert sample.text == whole


def test_a_template_is_filled(gpt):
    done = gpt.template(HERO, model="base", samples=6, temperature=1.5)
    keeps(done, "Name: <name> Class: <role>")
    assert {sample.value["role"] for sample in done.samples} == {"mage", "thief"}
    assert len({sample.value["name"] for sample in done.samples}) == 6
    assert done.prompt == "<|endoftext|>Name:"  # the space goes with the word that is to come
    assert done is gpt.last
    assert json.loads(json.dumps(done.as_dict()))["samples"][0]["holes"] == [list(h) for h in done.holes]


def test_fixed_text_is_never_sampled_and_its_tokens_are_the_tokenizers(gpt):
    text = 'The old fox {{select did from="saw|sang"}} birds. It sang: café, 🙂.'
    tokenizer = gpt.models["base"].tokenizer
    done = gpt.template(text, model="base", temperature=1.5, seed=1)  # one that takes the longest tokens
    keeps(done, "The old fox <did> birds. It sang: café, 🙂.")
    ids = tokenizer.encode(done.text, add_special_tokens=False)
    begun = tokenizer.encode(done.prompt)
    assert [*begun[1:], *done.tokens[:-1]] == ids
    assert done.tokens[-1] == tokenizer.eos_token_id


def test_max_tokens_ends_a_hole_as_soon_as_it_can(gpt):
    done = gpt.template(
        "A: {{gen a max_tokens=3}}; B: {{gen b max_tokens=1}}.", model="base", samples=5, temperature=1.0
    )
    tokenizer = gpt.models["base"].tokenizer
    for sample in done.samples:
        assert len(tokenizer.encode(sample.value["b"])) <= 4  # one, and at most a character's bytes
    keeps(done, "A: <a>; B: <b>.")


def test_rules_temperatures_and_stop_texts(gpt):
    flag = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    text = (
        'N: {{gen n regex="[0-9]{2}"}}, {{gen j json=$flag}}! "{{gen q max_tokens=6 stop="o"}}" — é🙂 '
        '{{gen last max_tokens=8 stop="END"}}'
    )
    done = gpt.template(text, model="base", samples=4, temperature=1.5, variables={"flag": flag})
    for sample in done.samples:
        n, j, q, last = sample.value.values()
        assert len(n) == 2 and n.isdigit()
        assert j in ({"ok": True}, {"ok": False})
        assert "o" not in q and "END" not in last
        assert sample.text == f'N: {n}, {json.dumps(j, separators=(",", ":"))}! "{q}" — é🙂 {last}'
        assert sample.valid
    greedy = 'It {{gen a temperature=0 max_tokens=6}}. {{select b from="x|y" temperature=0}}'
    texts = {sample.text for sample in gpt.template(greedy, model="base", samples=4, temperature=1.5).samples}
    assert len(texts) == 1


def test_the_end_of_text_token_ends_a_hole(gpt):
    """A model that is done says so with it, also in the middle of a template."""
    import torch

    model = gpt.models["base"]
    with torch.no_grad():  # all tokens are as likely: greedy takes the first that may come, and that token is the first
        model.module.get_output_embeddings().weight.zero_()
    done = gpt.template("A: {{gen a max_tokens=40}}, B: {{gen b max_tokens=40}}.", model="base", temperature=0)
    keeps(done, "A: <a>, B: <b>.")
    assert all(0 < len(value) < 9 for value in done.value.values())  # one token each: a hole is never empty


def test_chats(gpt):
    turns = [{"role": "user", "content": "A hero for {who}."}, {"role": "assistant", "content": HERO}]
    done = gpt.template(turns, model="chat", temperature=1.5, system="Obey.", variables={"who": "Ada"})
    keeps(done, "Name: <name> Class: <role>")
    assert done.prompt == "<|system|>Obey.<|end|><|user|>A hero for Ada.<|end|><|assistant|>Name:"
    spoken = gpt.template(turns, model="base", temperature=1.5, as_assistant=True)
    keeps(spoken, "Name: <name> Class: <role>")
    assert spoken.prompt.endswith("\n\nHuman: A hero for {who}.\n\nAssistant: Name:")
    with pytest.raises(GPTError, match="last turn"):
        gpt.template(turns[::-1], model="chat")
    with pytest.raises(GPTError, match="no system prompt"):
        gpt.template(HERO, model="chat", system="Obey.")


def test_one_that_is_cut_off_says_so(gpt, tiny_model):
    tiny_model(gpt, "short", context=16)
    done = gpt.template("The old fox {{gen a max_tokens=60}} birds {{gen b}}.", model="short", temperature=1.0)
    assert (done.valid, done.value, done.finish_reason) == (False, None, "length")
    assert done.notes[-1].startswith("cut off: not valid")
    with pytest.raises(GPTError, match="more than the context"):
        gpt.template("The old fox saw. " * 9 + "{{gen a}}", model="short")
    with pytest.raises(GPTError, match="--stop cannot be used with a template"):
        gpt.template(HERO, model="short", stop="x")


def test_a_dry_run(gpt, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("sent"))
    done = gpt.template(HERO, model="base", dry_run=True)
    assert (done.prompt, done.text, done.finish_reason) == ("<|endoftext|>Name:", "", None)


def test_as_one_regex():
    found, _ = parse('{{gen a max_tokens=5}} (1) {{gen n regex="[0-9]+"}} {{select k from="x.|y"}}!')
    assert as_regex(found, 64) == r"([^\n]{1,20})\ \(1\)\ ((?:[0-9]+))\ (x\.|y)!"
    assert read_back(found, "old fox (1) 42 x.!") == {"a": "old fox", "n": "42", "k": "x."}
    assert read_back(found, "old fox (1) 42 z!") is None
    with pytest.raises(GPTError, match="is JSON"):
        as_regex(parse("{{gen a json=$s}}", {"s": {}})[0], 64)


def test_at_an_endpoint(gpt, monkeypatch):
    """Our own server keeps the regex; the holes come back the same."""
    server = gpt.serve(port=0)
    try:
        monkeypatch.setenv("FAR_KEY", server.token)
        gpt.endpoint("far-base", server.url, "base", key_env="FAR_KEY", chat=False)
        gpt.endpoint("far-chat", server.url, "chat", key_env="FAR_KEY")
        keeps(gpt.template(HERO, model="far-base", samples=3, temperature=1.5), "Name: <name> Class: <role>")
        turns = [{"role": "user", "content": "A hero."}, {"role": "assistant", "content": HERO}]
        keeps(gpt.template(turns, model="far-chat", temperature=1.5), "Name: <name> Class: <role>")
        with pytest.raises(GPTError, match="is a chat endpoint"):
            gpt.template(HERO, model="far-chat")
        with pytest.raises(GPTError, match="has no turns"):
            gpt.template(turns, model="far-base")
    finally:
        server.stop()


@pytest.mark.timeout(120)  # each took for ever where the pattern had two ways to read a word
def test_almost_a_hole_is_refused_in_linear_time():
    for text in (
        "{{gen " + "a=b " * 200,
        "{{gen " + "a " * 20_000,
        "{{ " + " " * 40_000 + "x",
        "{{gen a " + '"x" ' * 10_000,
    ):
        with pytest.raises(GPTError):
            parse(text)


@pytest.mark.timeout(120)
def test_an_answer_to_an_exponential_pattern_is_not_matched_for_ever():
    template, _ = parse('A {{gen x regex="(a+)+b"}} and {{gen y}}')
    assert read_back(template, "a" * 5_000 + "c and more") is None
    assert read_back(template, "aab and more") == {"x": "aab", "y": "more"}
