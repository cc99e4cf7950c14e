"""The served models, asked by the unchanged `openai` client; and by our own endpoints, as another notebook would."""

import http.client
import json
import socket
import threading
import time

import openai
import pytest

from jupyter_gpt.errors import GPTError, OutOfMemory

TEXTS = ["The old fox saw two small birds and was glad. It sang."] * 40
QUESTION = [{"role": "user", "content": "The old fox"}]


@pytest.fixture(scope="module")
def tiny():
    """A model with random weights, and the tokenizer of a few words. Every sentence it says is nonsense."""
    import torch

    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.data.tokenizer import delimiter, train_bpe
    from jupyter_gpt.stages.pretrain_training import build

    tokenizer = train_bpe(TEXTS, 300)
    recipe = pretraining_recipe({"stories": 1.0}, depth=2, width=32, heads=2, context=128, vocab_size=300)
    module = build(recipe, len(tokenizer), delimiter(tokenizer))
    torch.manual_seed(0)
    for parameter in module.parameters():
        if not parameter.abs().sum():  # else every block is the identity
            parameter.data.normal_(0, 0.3)
    return module.eval(), tokenizer


@pytest.fixture
def served(gpt, tiny, monkeypatch):
    """A session that serves the model `tiny`."""
    monkeypatch.setenv("SERVED_TOKEN", "a-token-of-our-own")
    monkeypatch.setenv("JUPYTER_GPT_CONFIG", str(gpt.home / "config"))
    gpt.models.keep("tiny", *tiny, "pretrain", None, ["tiny (pretrain)"], 0)
    gpt.server = gpt.serve(port=0, token_env="SERVED_TOKEN")
    yield gpt
    gpt.server.stop()


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=served.server.url, api_key=served.server.token, max_retries=0) as client:
        yield client


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "jupyter_gpt"


def test_completion_is_what_prompt_gives(served, client):
    options = {"max_tokens": 12, "seed": 6, "temperature": 0.8, "top_p": 0.9}
    ours = served.prompt("The old fox", model="tiny", samples=2, **options)
    theirs = client.completions.create(model="tiny", prompt="The old fox", n=2, **options)
    assert [choice.text for choice in theirs.choices] == [sample.text for sample in ours.samples]
    assert [choice.finish_reason for choice in theirs.choices] == [sample.finish_reason for sample in ours.samples]
    assert (theirs.usage.prompt_tokens, theirs.usage.completion_tokens) == (ours.prompt_tokens, 24)


def test_chat_and_streaming_agree(client):
    options = {"model": "tiny", "messages": QUESTION, "max_tokens": 20, "seed": 1, "n": 2}
    whole = client.chat.completions.create(**options)
    assert [choice.message.role for choice in whole.choices] == ["assistant", "assistant"]
    texts, roles, ends = ["", ""], [None, None], [None, None]
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] = choice.delta.role or roles[choice.index]
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert (roles, ends) == (["assistant"] * 2, [choice.finish_reason for choice in whole.choices])
    assert chunk.usage.prompt_tokens_details.cached_tokens in (0, whole.usage.prompt_tokens)  # asked the second time
    assert chunk.usage.model_copy(update={"prompt_tokens_details": whole.usage.prompt_tokens_details}) == whole.usage
    assert whole.usage.completion_tokens == 40


def test_what_was_read_is_not_read_again(client):
    prompt, options = 2 * "The old fox went into the wood, ", {"model": "tiny", "max_tokens": 8, "temperature": 0}
    first = client.completions.create(prompt=prompt, **options)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    longer = client.completions.create(prompt=f"{prompt}and so on", **options)
    cached = longer.usage.prompt_tokens_details.cached_tokens
    assert 32 <= cached < longer.usage.prompt_tokens
    again = client.completions.create(prompt=prompt, **options)
    assert again.choices[0].text == first.choices[0].text
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens


def test_an_assistant_is_asked_through_its_template(served, client, tiny):
    import copy

    module, tokenizer = tiny
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    served.models.keep("talker", module, tokenizer, "sft", None, ["tiny (pretrain)", "talker (sft)"], 0)
    messages = [{"role": "system", "content": "Sing."}, *QUESTION]
    options = {"max_tokens": 30, "seed": 7, "temperature": 1}
    ours = served.prompt(messages, model="talker", **options)
    theirs = client.chat.completions.create(model="talker", messages=messages, **options)
    assert ours.prompt == "<|system|>Sing.<|end|><|user|>The old fox<|end|><|assistant|>"
    assert (theirs.choices[0].message.content, theirs.choices[0].finish_reason) == (ours.text, ours.finish_reason)
    assert theirs.usage.prompt_tokens == ours.prompt_tokens


def test_chat_with_a_system_prompt(client):
    messages = [
        {"role": "developer", "content": "Sing."},
        {"role": "user", "content": [{"type": "text", "text": "Go"}]},
    ]
    with pytest.raises(openai.BadRequestError, match="more than fit") as caught:  # its examples are longer than 128
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
    assert caught.value.code == "context_length_exceeded"


def test_completions_stream_prompts_ids_and_seeds(served, client):
    tokenizer = served.models["tiny"].tokenizer
    ids = [tokenizer.eos_token_id, *tokenizer("The old")["input_ids"]]
    options = {"model": "tiny", "max_tokens": 8, "seed": 2}
    texts = ["", "", ""]
    for chunk in client.completions.create(prompt=["The old", "It", "The old"], stream=True, **options):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts[0] == texts[2] != texts[1]
    assert client.completions.create(prompt=ids, **options).choices[0].text == texts[0]
    again = client.completions.create(prompt="The old", **{**options, "seed": 3}).choices[0].text
    assert again != texts[0]


def test_logprobs(served, client):
    ours = served.prompt("The old fox", model="tiny", max_tokens=6, seed=1, temperature=1, logprobs=2)
    chat = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=6, seed=1, logprobs=True, top_logprobs=2
    )
    told = chat.choices[0].logprobs.content
    assert [t.logprob for t in told] == pytest.approx(ours.logprobs, abs=1e-5)
    assert [[a.logprob for a in t.top_logprobs] for t in told] == [
        pytest.approx([logprob for _, logprob in top], abs=1e-5) for top in ours.top
    ]
    raw = client.completions.create(model="tiny", prompt="The old fox", max_tokens=6, seed=1, logprobs=1)
    assert raw.choices[0].logprobs.token_logprobs == pytest.approx(ours.logprobs, abs=1e-5)
    assert len(raw.choices[0].logprobs.tokens) == 6
    streamed = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=6, seed=1, logprobs=True, stream=True
    )
    logprobs = [t.logprob for chunk in streamed for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    assert logprobs == pytest.approx(ours.logprobs, abs=1e-5)


def test_stop_texts_end_the_text_before_them(client):
    options = {"model": "tiny", "prompt": "The old fox", "max_tokens": 60, "seed": 1}
    whole = client.completions.create(**options).choices[0].text
    stop = whole[20:23]
    told = client.completions.create(stop=["never so", stop], **options)
    assert (told.choices[0].text, told.choices[0].finish_reason) == (whole[: whole.index(stop)], "stop")
    assert told.usage.completion_tokens < 60
    parts = [c.choices[0].text for c in client.completions.create(stop=stop, stream=True, **options)]
    assert "".join(parts) == whole[: whole.index(stop)]


def test_thirty_two_at_once_are_one_batch_and_none_is_lost(served, client):
    alone = [client.completions.create(model="tiny", prompt="The", max_tokens=40, seed=seed) for seed in range(32)]
    served.server.batcher.widest = 0
    together, start = [None] * 32, threading.Barrier(32)

    def one(seed: int) -> None:
        with openai.OpenAI(base_url=served.server.url, api_key=served.server.token, max_retries=0) as mine:
            start.wait()
            together[seed] = mine.completions.create(model="tiny", prompt="The", max_tokens=40, seed=seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [t.choices[0].text for t in together] == [a.choices[0].text for a in alone]
    assert served.server.batcher.widest >= 8
    assert not served.server.batcher.tickets


def test_refusals(served, client):
    wrong = openai.OpenAI(base_url=served.server.url, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="token is missing or wrong"):
        wrong.models.list()
    with pytest.raises(openai.NotFoundError, match="there is no model tinny \\(did you mean tiny\\?\\)"):
        client.completions.create(model="tinny", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature: Input should be greater than or equal to 0, not -1"):
        client.completions.create(model="tiny", prompt="a", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="tools is not supported here"):
        client.chat.completions.create(
            model="tiny", messages=QUESTION, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.BadRequestError, match="parts of type text"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": [{"type": "image_url"}]}])
    with pytest.raises(openai.BadRequestError, match="372 more than fit") as caught:
        client.completions.create(model="tiny", prompt=[5] * 499)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="the token 9999"):
        client.completions.create(model="tiny", prompt=[9999])
    with pytest.raises(openai.BadRequestError, match="n: Input should be greater than or equal to 1, not 0") as caught:
        client.completions.create(model="tiny", prompt="a", n=0)
    assert caught.value.param == "n"
    with pytest.raises(openai.NotFoundError, match="nothing at /v1/embeddings"):
        client.embeddings.create(model="tiny", input="a")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 3}',
        b'{"model": "tiny"}',
        b"\xff\xfe",
        b'{"model": "tiny", "prompt": "a", "n": "2"}',
        b'{"model": "tiny", "prompt": [[]]}',
        b'{"model": "tiny", "prompt": "a", "stop": {"a": 1}}',
    ],
)
def test_odd_bodies_are_refused_in_one_line(served, body):
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=60)
    connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {served.server.token}"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert (answer.status, "\n" in told["error"]["message"]) == (400, False)


def test_a_client_that_goes_frees_its_row(served, client):
    batcher = served.server.batcher
    stream = client.completions.create(model="tiny", prompt="The", max_tokens=100, n=64, stream=True)
    next(iter(stream))
    assert batcher.tickets
    stream.close()
    until = time.monotonic() + 60
    while batcher.tickets and time.monotonic() < until:
        time.sleep(0.01)
    assert not batcher.tickets
    assert client.completions.create(model="tiny", prompt="The", max_tokens=3).choices[0].finish_reason


def test_an_error_in_the_engine_reaches_its_clients_and_nothing_else(served, client, monkeypatch):
    from jupyter_gpt.inference.engine import Batch

    step = Batch.step

    def breaks(batch):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Batch, "step", breaks)
    with pytest.raises(openai.InternalServerError, match="the engine failed: ZeroDivisionError") as caught:
        client.completions.create(model="tiny", prompt="The", max_tokens=3)
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(Batch, "step", step)
    assert client.completions.create(model="tiny", prompt="The", max_tokens=3).usage.completion_tokens == 3


@pytest.mark.parametrize("kind", [MemoryError, OutOfMemory])
def test_out_of_memory_is_said_and_over(served, client, monkeypatch, kind):
    from jupyter_gpt.inference.engine import Batch

    step = Batch.step

    def breaks(batch):
        raise kind

    monkeypatch.setattr(Batch, "step", breaks)
    with pytest.raises(openai.InternalServerError, match="not enough memory"):
        client.completions.create(model="tiny", prompt="The", max_tokens=3)
    monkeypatch.setattr(Batch, "step", step)
    assert client.completions.create(model="tiny", prompt="The", max_tokens=3).usage.completion_tokens == 3


def test_serving_goes_on_beside_a_run_and_after_an_unload(served, client, train):
    options = {"model": "tiny", "prompt": "The", "max_tokens": 10, "seed": 1}
    before = client.completions.create(**options).choices[0].text
    run = train("pupil", steps=100_000, background=True)
    until = time.monotonic() + 60
    while not run.step and time.monotonic() < until:
        time.sleep(0.01)
    assert client.completions.create(**options).choices[0].text == before
    assert run.alive
    served.stop("pupil")
    assert [model.id for model in client.models.list()] == ["pupil", "tiny"]
    assert client.completions.create(model="pupil", prompt="The", max_tokens=3).choices[0].text
    served.unload("tiny")
    assert client.completions.create(**options).choices[0].text == before


def test_start_and_stop(served):
    server = served.server
    assert served.serve() is server
    with pytest.raises(GPTError, match="a server is already running"):
        served.serve(host="0.0.0.0")
    assert server.token not in repr(server)
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    assert {sock.getsockname()[0] for sock in server.sockets} == {"127.0.0.1"}
    server.stop()
    assert repr(server) == f"<server at {server.url}: stopped>"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    fresh = served.serve(port=server.port)
    assert len(fresh.token) >= 32
    fresh.stop()


def test_start_mistakes(gpt, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GPTError, match=rf"cannot listen on port {port} of 127\.0\.0\.1 .*--port 0 takes"):
            gpt.serve(port=port)
    with pytest.raises(GPTError, match=r"port 70000 must be from 0"):
        gpt.serve(port=70000)
    with pytest.raises(GPTError, match="not an address of this machine"):
        gpt.serve(host="no.such.host.invalid", port=0)
    monkeypatch.delenv("NO_TOKEN_HERE", raising=False)
    with pytest.raises(GPTError, match=r"NO_TOKEN_HERE .* is not set"):
        gpt.serve(port=0, token_env="NO_TOKEN_HERE")
    monkeypatch.setenv("SHORT_TOKEN", "s3cret")
    with pytest.raises(GPTError, match="16 ASCII characters") as caught:
        gpt.serve(port=0, token_env="SHORT_TOKEN")
    assert "s3cret" not in str(caught.value)


def test_an_endpoint_on_the_served_model(served):
    """Another notebook's view: the served model behind `gpt.models[...]`, prompted like any other."""
    endpoint = served.endpoint("far", served.server.url, "tiny", key_env="SERVED_TOKEN", chat=False)
    assert served.models["far"] == endpoint
    assert endpoint.kind == "endpoint"
    options = {"samples": 3, "seed": 4, "max_tokens": 10, "temperature": 0.7, "logprobs": 1}
    near, far = (served.prompt("The old fox", model=name, **options) for name in ("tiny", "far"))
    assert [s.text for s in far.samples] == [s.text for s in near.samples]
    assert far.logprobs == pytest.approx(near.logprobs, abs=1e-5)
    assert (far.prompt_tokens, far.usage.completion_tokens) == (near.prompt_tokens, 30)
    assert far.usage.cost is None
    many = served.prompts(["The", "It"], model="far", max_tokens=5, temperature=0)
    assert [one.text for one in many] == [
        one.text for one in served.prompts(["The", "It"], model="tiny", max_tokens=5, temperature=0)
    ]
    served.endpoint("wrong", served.server.url, "tiny", key_env="SHELL_OR_NOT")
    with pytest.raises(GPTError, match="environment variable SHELL_OR_NOT: it is not set"):
        served.prompt("a", model="wrong")
    served.endpoint("absent", served.server.url, "tinny", key_env="SERVED_TOKEN", chat=False)
    with pytest.raises(GPTError, match="endpoint absent has no model tinny \\(404\\) \\(did you mean tiny\\?\\)"):
        served.prompt("a", model="absent")


def test_endpoints_are_kept_without_their_keys(gpt, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_CONFIG", str(gpt.home / "config"))
    monkeypatch.setenv("MY_KEY", "sk-never-written")
    here = gpt.endpoint("a", "https://api.openai.com/v1/", "gpt-4o", key_env="MY_KEY")
    gpt.endpoint("b", "http://127.0.0.1:1/v1", "m", user=True)
    assert (here.base_url, here.key()) == ("https://api.openai.com/v1", "sk-never-written")
    assert sorted(gpt.models) == ["a", "b"]
    assert repr(gpt.models["a"]) == "<endpoint a: gpt-4o at https://api.openai.com/v1, key from MY_KEY>"
    for path in gpt.home.rglob("*.json"):
        assert "sk-never" not in path.read_text()
    gpt.models.endpoints.remove("b")
    assert "b" not in gpt.models
    with pytest.raises(GPTError, match="there is no model b"):
        gpt.models["b"]


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("api.openai.com", {}, "such as https://api.openai.com/v1"),
        ("ftp://x/v1", {}, "such as https://api.openai.com/v1"),
        ("https://me:hush@x/v1", {}, "leave out user, password and query"),
        ("https://x/v1?key=hush", {}, "leave out user, password and query"),
        ("https://x/v1/chat/completions", {}, "ends before /chat/completions"),
        ("https://x/v1", {"key_env": "sk-hush"}, "the name of an environment variable"),
        ("https://x/v1", {"key_env": "gsk_hush"}, "the name of an environment variable"),
        ("https://x/v1", {"timeout": 0}, "--timeout 0 must be above zero"),
    ],
)
def test_what_no_endpoint_can_be(gpt, url, options, said):
    with pytest.raises(GPTError, match=said) as caught:
        gpt.endpoint("a", url, "m", **options)
    assert "hush" not in str(caught.value)
    assert "a" not in gpt.models


def test_an_endpoint_takes_no_models_name_nor_a_model_an_endpoints(served):
    with pytest.raises(GPTError, match="tiny is a model of this kernel"):
        served.endpoint("tiny", "https://x/v1", "m")
    served.endpoint("far", "https://x/v1", "m")
    with pytest.raises(GPTError, match="far was made by endpoint"):
        served.pretrain("far", {"$docs": 1.0}, variables={"docs": TEXTS})


def test_a_dry_run_on_an_endpoint_shows_what_would_be_sent(gpt, monkeypatch, capsys):
    from types import SimpleNamespace

    import jupyter_gpt
    from jupyter_gpt.notebook.magics.cells import CELLS

    monkeypatch.setitem(vars(jupyter_gpt), "gpt", gpt)
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "m")
    CELLS["prompt"].run(SimpleNamespace(user_ns={}, push=dict), "far --dry-run", "Why?\n")
    assert "nothing was sent" in capsys.readouterr().out
