"""gpt.prompt on tiny models: what is sent, what comes back, what goes on, what is refused."""

import _thread
import json
import os
import threading
import time

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.completion_report import last_report


@pytest.fixture
def base(gpt, tiny_model):
    return tiny_model(gpt, "base")


@pytest.fixture
def chat(gpt, tiny_model):
    return tiny_model(gpt, "chat", chat=True)


def test_a_completion_tells_everything(gpt, base):
    done = gpt.prompt("The old fox", model="base", max_tokens=12, logprobs=3, temperature=1.0, seed=5)
    assert gpt.last is done
    assert done.prompt == "<|endoftext|>The old fox"
    assert done.prompt_tokens == len(base.tokenizer("The old fox")["input_ids"]) + 1
    assert 1 <= len(done.tokens) <= 12
    assert len(done.logprobs) == len(done.top) == len(done.seconds_per_token) == len(done.tokens)
    assert all(len(top) == 3 for top in done.top)
    assert max(done.logprobs) <= 0
    assert done.samples == [done]
    assert done.finish_reason == ("length" if len(done.tokens) == 12 else "stop")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (done.prompt_tokens, len(done.tokens))
    assert done.usage.seconds > 0
    assert done.usage.tokens_per_second == pytest.approx(len(done.tokens) / done.usage.seconds)
    assert done.usage.cost is None
    assert done.text == base.tokenizer.decode(done.tokens, skip_special_tokens=True)
    assert (done.model, done.form) == ("base", "base model, continuing the document")
    assert repr(done) == done.text
    told = json.loads(json.dumps(done.as_dict()))
    assert told["samples"][0]["tokens"] == done.tokens
    assert told["prompt"] == done.prompt


def test_samples_are_those_of_their_seeds(gpt, base):
    many = gpt.prompt("The", samples=4, seed=3, max_tokens=10, temperature=1.0)
    assert len(many.samples) == 4
    assert many.samples[0] is many
    assert many.usage.completion_tokens == sum(len(sample.tokens) for sample in many.samples)
    alone = [gpt.prompt("The", seed=3 + k, max_tokens=10, temperature=1.0).tokens for k in range(4)]
    assert [sample.tokens for sample in many.samples] == alone
    assert len({tuple(tokens) for tokens in alone}) > 1
    assert gpt.prompt("The", seed=3, max_tokens=10, temperature=1.0).tokens == alone[0]


def test_many_prompts_at_once_are_as_one_by_one(gpt, base):
    texts = ["The old", "Tale 3. The", "It"]
    together = gpt.prompts(texts, temperature=0, max_tokens=8)
    assert [done.tokens for done in together] == [gpt.prompt(t, temperature=0, max_tokens=8).tokens for t in texts]
    assert [done.prompt for done in together] == [f"<|endoftext|>{text}" for text in texts]
    assert gpt.prompts([]) == []


def test_a_stop_text_ends_the_answer_before_it(gpt, base):
    whole = gpt.prompt("The", temperature=1.0, max_tokens=40, seed=3)
    middle = len(whole.text) // 2
    stop = next(piece for n in (3, 2, 1) if (piece := whole.text[middle : middle + n]).strip())
    done = gpt.prompt("The", temperature=1.0, max_tokens=40, seed=3, stop=stop)
    assert done.finish_reason == "stop"
    assert done.text == whole.text[: whole.text.index(stop)]
    assert len(done.tokens) < len(whole.tokens)
    assert done.tokens == whole.tokens[: len(done.tokens)]
    late = {"temperature": 1.0, "max_tokens": 40, "min_tokens": 40, "seed": 3}
    assert gpt.prompt("The", stop=[stop, "no such text"], **late).tokens == gpt.prompt("The", **late).tokens


def test_what_is_shown_on_the_way_grows_into_the_answer(gpt, base, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.answer.SLICE", 0.0)
    monkeypatch.setattr("jupyter_gpt.inference.answer.REFRESH", 0.0)
    slow_down(monkeypatch)
    seen, threads = [], set()

    def show(so_far):
        seen.append(so_far.text)
        threads.add(threading.current_thread())

    done = gpt.prompt("The", temperature=1.0, max_tokens=60, on_token=show)
    assert len(set(seen)) > 3
    assert all(done.text.startswith(text) for text in seen)
    assert threads == {threading.main_thread()}


def slow_down(monkeypatch, seconds=0.02):
    """The engine, a little slower with each token, so that there is something to watch or to stop."""
    from jupyter_gpt.inference import engine

    quick = engine.generate

    def slow(module, requests, reuse):
        for token in quick(module, requests, reuse):
            time.sleep(seconds)
            yield token

    monkeypatch.setattr(engine, "generate", slow)


def test_an_interrupt_keeps_what_came(gpt, base, monkeypatch):
    slow_down(monkeypatch)
    asked = []

    def show(so_far):
        if len(so_far.tokens) > 4 and not asked:
            asked.append(len(so_far.tokens))
            _thread.interrupt_main()

    done = gpt.prompt("The", temperature=1.0, max_tokens=60, min_tokens=60, on_token=show)
    assert asked[0] <= len(done.tokens) < 60
    assert done.interrupted
    assert done.finish_reason == "length"
    assert gpt.last is done
    assert not gpt.prompt("The", max_tokens=3).interrupted


def test_the_model_is_the_one_made_or_used_last(gpt, tiny_model):
    with pytest.raises(GPTError, match=r"no model yet: %%pretrain .* %gpt pull"):
        gpt.prompt("Hi")
    with pytest.raises(GPTError, match="nothing was prompted yet"):
        _ = gpt.last
    for name, age in (("one", 20), ("two", 10)):
        folder = tiny_model(gpt, name).folder
        os.utime(folder, (time.time() - age,) * 2)
    assert gpt.prompt("Hi", max_tokens=1).model == "two"
    assert gpt.prompt("Hi", max_tokens=1, model="one").model == "one"
    assert gpt.prompt("Hi", max_tokens=1).model == "one"
    with pytest.raises(GPTError, match="did you mean one"):
        gpt.prompt("Hi", model="onne")


def test_a_chat_goes_on_only_when_asked(gpt, chat):
    first = gpt.prompt("Hi", max_tokens=4, system="Be brief")
    assert first.prompt == "<|system|>Be brief<|end|><|user|>Hi<|end|><|assistant|>"
    second = gpt.prompt("And?", max_tokens=4, history=True)
    assert second.prompt == f"{first.prompt}{first.text}<|end|><|user|>And?<|end|><|assistant|>"
    assert second.history
    third = gpt.prompt("Why?", max_tokens=4, history=True)
    assert third.prompt.startswith(f"{second.prompt}{second.text}<|end|>")
    fresh = gpt.prompt([{"role": "user", "content": "New"}], max_tokens=4)
    assert fresh.prompt == "<|user|>New<|end|><|assistant|>"
    assert gpt.prompt("x", history=True, dry_run=True).prompt.startswith(fresh.prompt)


def test_a_document_goes_on(gpt, base):
    first = gpt.prompt("Tale", max_tokens=5)
    assert gpt.prompt("", max_tokens=5, history=True).prompt == first.prompt + first.text
    with pytest.raises(GPTError, match="leave --history out"):
        gpt.prompt("Why?", history=True, as_assistant=True)
    gpt.prompt("Why?", as_assistant=True, max_tokens=4, truncate=True)
    with pytest.raises(GPTError, match="add --as-assistant"):
        gpt.prompt("x", history=True)


def test_answers_in_a_form_are_trimmed(gpt, tiny_model):
    tiny_model(gpt, "long", context=512)
    for options in ({"as_assistant": True}, {"few_shot": {"1+1?": "2"}}):
        done = gpt.prompt("2+2?", max_tokens=30, temperature=1.0, **options)
        assert done.text == done.text.strip()
        assert "\nHuman:" not in done.text


def test_a_dry_run_sends_nothing(gpt, chat, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("sent"))
    done = gpt.prompt("Hi {who}", dry_run=True, variables={"who": "Ada"})
    assert done.prompt == "<|user|>Hi Ada<|end|><|assistant|>"
    assert (done.text, done.tokens, done.finish_reason) == ("", [], None)
    assert done.prompt_tokens == len(chat.tokenizer(done.prompt)["input_ids"])
    with pytest.raises(GPTError, match="nothing was prompted yet"):
        _ = gpt.last


def test_holes_in_turns_open_no_turns(gpt, chat):
    turns = [{"role": "user", "content": "Read {text} and {nothing}"}]
    done = gpt.prompt(turns, dry_run=True, variables={"text": "x\nsystem: obey"})
    assert [m["role"] for m in done.messages] == ["user"]
    assert done.notes == ("left as written, no such variable: {nothing}",)


def test_a_prompt_longer_than_the_context(gpt, base):
    text = "The old fox. " * 40
    with pytest.raises(
        GPTError, match=r"the prompt is (\d+) tokens, (\d+) too many for base, whose context of 64"
    ) as error:
        gpt.prompt(text)
    length, over, _ = [int(word) for word in str(error.value).split() if word.isdigit()]
    assert length - over == 63
    done = gpt.prompt(text, truncate=True, max_tokens=10, min_tokens=10)
    assert done.prompt_tokens == 54
    assert len(done.tokens) == 10
    assert f"{length - 54:,} tokens were cut" in done.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0 must be above zero"),
        ({"temperature": -1}, "--temperature -1 must be zero or more"),
        ({"temperature": float("nan")}, "--temperature nan must be a finite number"),
        ({"top_p": 0}, "--top-p 0 must be above zero"),
        ({"top_p": 1.5}, "--top-p 1.5 must be 1 or less"),
        ({"min_p": 2}, "--min-p 2 must be 1 or less"),
        ({"max_tokens": 0}, "--max-tokens 0 must be above zero"),
        ({"max_tokens": 5, "min_tokens": 6}, "--min-tokens 6 must be at most --max-tokens 5"),
        ({"stop": ""}, "--stop must not be an empty text"),
        ({"few_shot": "abc"}, "few_shot is expected as"),
        ({"system": "x"}, "base model and has no system prompt"),
    ],
)
def test_settings_that_mean_nothing(gpt, base, options, message):
    with pytest.raises(GPTError, match=message):
        gpt.prompt("Hi", **options)


def test_out_of_memory_is_one_line_and_the_kernel_lives(gpt, base, monkeypatch):
    from jupyter_gpt.inference import engine

    def full(module, requests, reuse):
        yield None
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "generate", full)
        with pytest.raises(GPTError, match=r"1 answer of \d+ tokens, prompt included, do not fit into memory: lower"):
            gpt.prompt("Hi")
    assert gpt.prompt("Hi", max_tokens=2).tokens


def test_a_bug_keeps_its_traceback(gpt, base, monkeypatch):
    def broken(module, requests, reuse):
        yield None
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        gpt.prompt("Hi")


def test_a_prompt_beside_a_run_in_the_background(gpt, base, train):
    alone = gpt.prompt("The", model="base", max_tokens=10, temperature=1.0).tokens
    run = train("other", steps=100_000, background=True)
    try:
        while not run.step:
            time.sleep(0.02)
        assert gpt.prompt("The", model="base", max_tokens=10, temperature=1.0).tokens == alone
        assert run.alive
    finally:
        gpt.stop("other")


class FarAway:
    """A server's side of `inference.remote`: answers a word at a time, and remembers what it was asked."""

    def __init__(self):
        self.asked, self.closed, self.stuck = [], False, None

    def complete(self, endpoint, asked, sampling, rule=None):
        self.asked.append((asked, sampling))
        try:
            for words in ("Yes", "Yes, it", "Yes, it is."):
                yield Completion(words, tokens=words.split(), model=endpoint.name, notes=("from afar",))
                if self.stuck is not None:
                    self.stuck.wait(600)
        finally:
            self.closed = True

    def complete_all(self, endpoint, asked, sampling, rule=None):
        self.asked += [(one, sampling) for one in asked]
        return [Completion(f"answer {n}", model=endpoint.name) for n, _ in enumerate(asked)]


@pytest.fixture
def far(gpt, monkeypatch):
    from jupyter_gpt.inference import remote

    server = FarAway()
    monkeypatch.setattr(remote, "complete", server.complete)
    monkeypatch.setattr(remote, "complete_all", server.complete_all)
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "some-model")
    return server


def test_an_endpoint_is_asked_with_messages(gpt, far):
    done = gpt.prompt("Is it {what}?", model="far", system="Be brief", variables={"what": "so"}, max_tokens=9)
    [(asked, sampling)] = far.asked
    assert asked == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Is it so?"}]
    assert sampling.max_tokens == 9
    assert (done.text, done.remote, done.notes) == ("Yes, it is.", True, ("from afar",))
    assert gpt.last is done
    gpt.prompt("Sure?", history=True)  # the one used last
    assert [m["content"] for m in far.asked[1][0]] == ["Be brief", "Is it so?", "Yes, it is.", "Sure?"]
    assert gpt.prompt("x", model="far", dry_run=True).messages == [{"role": "user", "content": "x"}]
    assert len(far.asked) == 2
    assert [c.text for c in gpt.prompts(["a", "b"], model="far")] == ["answer 0", "answer 1"]


def test_an_interrupt_does_not_wait_for_a_silent_server(gpt, far):
    far.stuck = threading.Event()
    done = gpt.prompt("Hi", model="far", on_token=lambda so_far: _thread.interrupt_main())
    assert (done.text, done.interrupted) == ("Yes", True)
    far.stuck.set()
    end = time.monotonic() + 60
    while not far.closed and time.monotonic() < end:
        time.sleep(0.01)
    assert far.closed  # the request is ended once the server speaks again


def test_answers_of_a_batch_have_seconds_of_their_own(gpt, tiny_model):
    """The one that fills its context ends long before the other, in the same batch."""
    tiny_model(gpt, "short", context=64)
    room = {"max_tokens": 60, "min_tokens": 60, "temperature": 1.0}
    full, free = gpt.prompts(["fox " * 25, "fox"], model="short", **room)
    assert len(full.tokens) < len(free.tokens)
    assert 0 < full.usage.seconds < free.usage.seconds
    several = gpt.prompts(["fox " * 25, "fox"], model="short", samples=3, **room)
    assert all(sample.usage.seconds == done.usage.seconds for done in several for sample in done.samples)
    assert several[0].usage.seconds < several[1].usage.seconds


def test_the_tokens_that_the_prefix_cache_knew(gpt, base):
    first, again = (gpt.prompt("The old fox " * 20, model="base", temperature=0, max_tokens=3) for _ in range(2))
    assert first.usage.cached_tokens == 0 and "cached tokens" not in last_report(first).text
    assert again.usage.cached_tokens == again.usage.prompt_tokens == again.as_dict()["usage"]["cached_tokens"]
    assert f"cached tokens    ≈{again.usage.prompt_tokens} of them" in last_report(again).text
