"""gpt.prompt with techniques: on a tiny model of the kernel, on the same behind a server, and with scripted answers."""

import _thread
import json
import threading

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting import templates
from jupyter_gpt.prompting.trace import Node

SHORT = {"max_tokens": 8, "temperature": 1.0}


@pytest.fixture
def base(gpt, tiny_model):
    return tiny_model(gpt, "base", context=256)


@pytest.fixture
def chat(gpt, tiny_model):
    return tiny_model(gpt, "chat", chat=True, context=256)


def walk(done):
    return list(Node.from_dict(done.trace).walk())


def test_cot_and_vote_in_the_kernel(gpt, chat):
    done = gpt.prompt(
        "The fox saw {n} birds.", model="chat", cot=True, samples=4, vote=True, seed=3, variables={"n": 7}, **SHORT
    )
    assert gpt.last is done and len(done.samples) == 4
    assert done.prompt == "<|user|>The fox saw 7 birds.\n\nLet's think step by step.<|end|><|assistant|>"
    nodes = walk(done)
    samples = [node for node in nodes if node.kind == "sample"]
    plain = gpt.prompt("The fox saw 7 birds.\n\nLet's think step by step.", model="chat", samples=4, seed=3, **SHORT)
    assert [node.text for node in samples] == [sample.text for sample in plain.samples]
    assert done.usage.prompt_tokens == sum(node.tokens_in for node in nodes)
    assert done.usage.completion_tokens == sum(node.tokens_out for node in nodes) > 4
    assert done.trace["kind"] == "technique" and "4 samples, vote" in done.trace["label"]
    json.dumps(done.as_dict())


def test_the_same_again_is_the_same(gpt, chat):
    ask = {"model": "chat", "cot": True, "samples": 3, "vote": True, "seed": 5, **SHORT}
    first, second = gpt.prompt("The", **ask), gpt.prompt("The", **ask)

    def timeless(trace):
        return {k: [timeless(c) for c in v] if k == "children" else v for k, v in trace.items() if k != "seconds"}

    assert timeless(first.trace) == timeless(second.trace)


def test_a_base_model_thinks_in_documents(gpt, base, tiny_model):
    done = gpt.prompt("How many?", model="base", cot=True, **SHORT)
    assert done.prompt == "<|endoftext|>Q: How many?\nA: Let's think step by step."
    with pytest.raises(GPTError, match="--as-assistant"):
        gpt.prompt("How many?", model="base", reflect=1)
    tiny_model(gpt, "wide", context=2048)
    talk = gpt.prompt("How many?", model="wide", reflect=1, as_assistant=True, **SHORT)
    assert any(node.label.startswith("reflects") for node in walk(talk))


def test_a_tree_on_a_base_model_with_a_value_function(gpt, base):
    seen = []

    def value(prompt, steps):
        seen.append((prompt, threading.current_thread()))
        return len(steps) % 7 + 1

    done = gpt.prompt("The old fox\n", model="base", tree=True, breadth=2, depth=2, value=value, **SHORT)
    assert {prompt for prompt, _ in seen} == {"The old fox\n"}
    assert {thread for _, thread in seen} == {threading.main_thread()}
    assert any(node.kind == "thought" and node.score for node in walk(done))


def test_the_constraint_and_best_of(gpt, base):
    done = gpt.prompt("The", model="base", samples=3, best_of=lambda p, c: len(c), **SHORT)
    assert len(done.text) == max(len(sample.text) for sample in done.samples)
    with pytest.raises(GPTError, match="expects a reward model or a \\$function, and base"):
        gpt.prompt("The", model="base", samples=3, best_of="base")


def test_an_answer_in_a_form_has_its_value_after_thinking_too(gpt, chat, monkeypatch):
    from jupyter_gpt.inference.completion import Completion
    from jupyter_gpt.stages import prompt_techniques

    said = {"text": "It is 7 + 7. The answer is 14."}

    def sender(*_, **__):
        return lambda prompts, **settings: [
            Completion("15" if settings.get("json") else said["text"], finish_reason="stop") for _ in prompts
        ]

    monkeypatch.setattr(prompt_techniques, "sender", sender)
    number = {"type": "integer", "maximum": 99}
    done = gpt.prompt("7 + 7?", model="chat", cot=True, json=number)
    assert (done.text, done.answer, done.value, done.valid) == ("14", "14", 14, True), "named, in the form"
    said["text"] = "The answer is fourteen."
    done = gpt.prompt("7 + 7?", model="chat", cot=True, json=number)
    assert (done.answer, done.value, done.valid) == ("15", 15, True), "named in another one: asked for"
    assert gpt.prompt("7 + 7?", model="chat", cot=True).valid is None
    said["text"] = "Not red. The answer is: the blue one."
    done = gpt.prompt("Which?", model="chat", cot=True, choice="red|blue")
    assert (done.answer, done.value, done.valid) == ("blue", "blue", True), "choices are read as choices"


def test_budgets(gpt, chat):
    done = gpt.prompt("The", model="chat", reflect=1, check=lambda *_: False, max_calls=1, **SHORT)
    assert len([node for node in walk(done) if node.calls]) == 1
    assert any("--max-calls 1 reached" in note for note in done.notes)
    with pytest.raises(GPTError, match="is a model of this kernel and has no price"):
        gpt.prompt("The", model="chat", max_cost=1.0)
    cut = gpt.prompt("The", model="chat", max_seconds=0.05, max_tokens=200, min_tokens=200, samples=60)
    assert cut.interrupted
    assert any("--max-seconds 0.05 reached" in note for note in cut.notes)


def test_many_at_once_are_as_one_by_one(gpt, chat):
    texts, ask = ["The", "Tale 3.", "It sang"], {"model": "chat", "cot": True, "samples": 2, "vote": True, **SHORT}
    together, alone = gpt.prompts(texts, **ask), [gpt.prompt(text, **ask) for text in texts]
    assert [done.text for done in together] == [done.text for done in alone]
    with pytest.raises(GPTError, match="add --samples"):
        gpt.prompts(texts, model="chat", vote=True)


def test_what_says_nothing_asks_for_no_technique(gpt, chat):
    plain = gpt.prompt("The", model="chat", cot=False, best_of=None, max_calls=None, **SHORT)
    assert plain.trace is None and plain.samples == [plain]
    with pytest.raises(GPTError, match="--max-calls 0 must be above zero"):
        gpt.prompt("The", model="chat", max_calls=0)


def test_an_interrupt_keeps_what_came(gpt, chat):
    asked = []

    def interrupt(root):
        if not asked and any(node.kind == "sample" and node.text for node in root.walk()):
            asked.append(root)
            _thread.interrupt_main()

    long = {"max_tokens": 220, "min_tokens": 220}
    done = gpt.prompt("The", model="chat", cot=True, samples=60, vote=True, on_trace=interrupt, **long)
    assert done.interrupted and any("stopped by hand" in note for note in done.notes)
    assert any(node.kind == "sample" and node.text for node in walk(done))


def test_an_interrupt_in_a_users_function_keeps_the_answer(gpt, chat):
    def check(prompt, answer):
        raise KeyboardInterrupt

    done = gpt.prompt("The", model="chat", reflect=2, check=check, **SHORT)
    assert done.text and any("stopped by hand" in note for note in done.notes)


def test_a_dry_run_sends_nothing_and_calls_nobody(gpt, chat, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("sent"))
    done = gpt.prompt("The", model="chat", cot=True, reflect=1, check=lambda *_: pytest.fail("asked"), dry_run=True)
    assert done.text == "" and done.prompt.startswith("<|user|>The\n\nLet's think")
    assert "the prompts after this one depend on its answer" in done.notes


def test_the_chat_goes_on_from_the_answer(gpt, chat):
    done = gpt.prompt("The", model="chat", cot=True, **SHORT)
    went_on = gpt.prompt("And?", model="chat", history=True, max_tokens=2)
    assert went_on.prompt == f"<|user|>The<|end|><|assistant|>{done.text}<|end|><|user|>And?<|end|><|assistant|>"


def test_templates_of_this_folder(gpt, chat):
    templates.replace("cot", "trigger", "Denken wir nach.")
    assert "Denken wir nach." in gpt.prompt("The", model="chat", cot=True, **SHORT).prompt
    templates.replace("cot", "trigger", None)
    assert "Let's think" in gpt.prompt("The", model="chat", cot=True, **SHORT).prompt
    for name, text, said in (
        ("thnk", "x", "did you mean think"),
        ("think", "{question} {answer}", "nothing fills {answer}"),
        ("think", "{trigger}", "the question would be lost"),
    ):
        with pytest.raises(GPTError, match=said):
            templates.replace("cot", name, text)
    with pytest.raises(GPTError, match="no technique votes has templates"):
        templates.current("votes")
    templates.templates_file().write_text("[1]", encoding="utf-8")
    with pytest.raises(GPTError, match="is damaged"):
        gpt.prompt("The", model="chat", cot=True)


def test_behind_a_server_the_same_cells_give_the_same(gpt, chat, monkeypatch):
    server = gpt.serve(port=0)
    monkeypatch.setenv("SERVED", server.token)
    gpt.endpoint("far", f"{server.url}/v1" if not server.url.endswith("/v1") else server.url, "chat", key_env="SERVED")
    ask = {"cot": True, "samples": 3, "vote": True, "seed": 4, **SHORT}
    try:
        near, far = gpt.prompt("The fox", model="chat", **ask), gpt.prompt("The fox", model="far", **ask)
        tree = gpt.prompt("The", model="far", tree=True, breadth=2, depth=1, value=lambda p, s: 1.0, **SHORT)
    finally:
        server.stop()
    assert [node.text for node in walk(far)] == [node.text for node in walk(near)]
    assert far.answer == near.answer and far.remote
    assert (far.usage.prompt_tokens, far.usage.completion_tokens) == (
        near.usage.prompt_tokens,
        near.usage.completion_tokens,
    )
    assert any(node.kind == "thought" for node in walk(tree))
