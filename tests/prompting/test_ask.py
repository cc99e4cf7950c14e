"""What every technique stands on: calls are recorded and counted, budgets hold, nothing that came is lost."""

import json

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Budget, Stopped, follow_up, format_template, run, with_text
from jupyter_gpt.prompting.trace import Node


def test_calls_are_recorded_beneath_the_open_node(scripted):
    ask = scripted(["one two", "three", "four"])
    with ask.inside(Node("thought", "first")) as thought:
        [call] = ask.nodes("What?", label="asked")
        thought.score = 0.0
    a, b = ask(["x", "y"], label="pair")
    assert (call.text, call.calls, call.tokens_in, call.tokens_out) == ("one two", 1, 1, 2)
    assert [node.label for node in ask.root.children] == ["first", "pair", "pair"]
    assert (a.text, b.text) == ("three", "four")
    assert ask.root.totals()[:3] == (3, 3, 4)
    assert ask.root.totals().cost is None, "a model of the kernel has no price"


def test_samples_are_children_and_counted_once(scripted):
    ask = scripted(lambda prompt, n: "word " * (n + 1))
    [call] = ask.nodes("Q", samples=3)
    assert [child.tokens_out for child in call.children] == [1, 2, 3] and call.tokens_out == 0
    assert ask.root.totals()[:3] == (1, 1, 6)


def test_a_trace_is_json_and_comes_back(scripted):
    ask = scripted(["yes"], cost=0.25)
    ask(["Q"])
    ask.add(Node("score", "judged", score=0.0, votes=0, result={"a": [1, None]}, pruned=True))
    data = json.loads(json.dumps(ask.root.as_dict()))
    again = Node.from_dict(data)
    assert again.as_dict() == data
    assert data["children"][1] == {
        "kind": "score",
        "label": "judged",
        "score": 0.0,
        "votes": 0,
        "result": {"a": [1, None]},
        "pruned": True,
    }
    assert again.totals().cost == 0.25


@pytest.mark.parametrize(
    ("budget", "most", "said"),
    [
        (Budget(max_calls=3), 3, "--max-calls 3"),
        (Budget(max_tokens_total=7), 4, "--max-tokens-total 7"),
        (Budget(max_cost=0.5), 2, "--max-cost 0.5"),
        (Budget(max_seconds=0.05), 5, "--max-seconds 0.05"),
    ],
)
def test_budgets_end_a_loop_and_keep_what_there_is(scripted, budget, most, said):
    import time

    ask = scripted(lambda *_: (time.sleep(0.02), "word")[1], budget=budget, cost=0.25)

    def forever(ask, question, options):
        while True:
            ask([question])

    answer = run(ask, forever, "Q", None)
    assert answer.text == "word" and ask.root.text == "word"
    assert 1 <= ask.calls <= most and said in ask.root.note


def test_answers_are_cut_to_what_is_left_of_the_tokens(scripted):
    ask = scripted(lambda *_: "a b c", budget=Budget(max_tokens_total=30), max_tokens=100)
    ask(["one two", "three"], samples=3)
    assert [s["max_tokens"] for s in ask.send.settings] == [5, 5]
    with pytest.raises(GPTError, match="--max-calls 0 must be above zero"):
        Budget.of(max_calls=0)


def test_an_interrupted_answer_is_kept_and_ends_the_technique(scripted):
    ask = scripted(["whole", "half a"])
    plain = ask.send.__class__.__call__

    class Broken(ask.send.__class__):
        def __call__(self, prompts, **more):
            done = plain(self, prompts, **more)
            done[0].interrupted = done[0].text == "half a"
            return done

    ask.send.__class__ = Broken
    ask(["Q"])
    with pytest.raises(Stopped, match="by hand"):
        ask(["Q"])
    assert [node.text for node in ask.root.children] == ["whole", "half a"]


def test_a_refused_call_leaves_no_empty_node(scripted):
    def refuse(prompt, n):
        raise GPTError("too long")

    ask = scripted(refuse)
    with pytest.raises(GPTError):
        ask(["Q"])
    assert ask.root.children == [] and ask.calls == 0


def test_seeds_move_on_so_that_asking_again_draws_anew(scripted):
    ask = scripted(lambda *_: "x", seed=7)
    ask(["Q"], samples=3)
    ask(["Q"])
    assert [s["seed"] for s in ask.send.settings] == [7, 10]


def test_repeats(scripted):
    ask = scripted([])
    assert [ask.is_repeated(k) for k in ("search(A)", "Search( a)", "search(a)")] == [False, False, True]


def test_prompts_for_chats_and_for_documents(scripted):
    chat, document = scripted([]), scripted([], chat=False)
    assert follow_up(chat, "Q", "said", "\nnow?") == [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "said"},
        {"role": "user", "content": "now?"},
    ]
    assert follow_up(document, "Q:", " said", "\nSo") == "Q: said\nSo"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert with_text(turns, "other")[1]["content"] == "other" and turns[1]["content"] == "q"
    assert format_template('{question} {"a": {x}} {no}', question="{x} $1", x=3) == '{x} $1 {"a": 3} {no}'
    with_own = scripted([], templates={"cot": {"think": "Think!"}})
    assert with_own.templates("cot", {"think": "t", "extract": "e"}) == {"think": "Think!", "extract": "e"}
