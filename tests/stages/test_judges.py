"""Judges: functions and models that rank in a person's place."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages import judges as judging
from jupyter_gpt.stages.judges import judge_prompt, mean_order, parse_order
from jupyter_gpt.stages.rank import rank
from jupyter_gpt.stages.rankings import AllRankings, Question


class FakeGPT:
    """`writer` writes one, two and three words to each prompt; `judge` answers what `says(prompt)` gives."""

    def __init__(self):
        self.rankings, self.chats = AllRankings(), []
        self.models = {
            name: SimpleNamespace(name=name, kind="endpoint", base_url="here", model=name, has_chat=name == "judge")
            for name in ("writer", "judge", "base")
        }
        self.says = lambda chat: "?"
        self.options = {}

    def prompts(self, texts, *, model, samples=1, **options):
        if model == "writer":
            words = "word " * 3
            texts = [[" ".join(words.split()[: k + 1]) for k in range(samples)] for _ in texts]
        else:
            self.options = {"model": model, **options}
            self.chats += texts
            texts = [[self.says(chat)] for chat in texts]
        return [
            SimpleNamespace(
                prompt="<sent>",
                text=each[0],
                interrupted=False,
                samples=[SimpleNamespace(text=text, finish_reason="stop", interrupted=False) for text in each],
            )
            for each in texts
        ]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return FakeGPT()


def ranked(fake, judge, prompts=("x", "y"), **options):
    return rank(fake, "taste", list(prompts), model="writer", samples=3, judge=judge, **options)


def test_a_function_scores_and_equal_scores_tie(fake):
    seen = []

    def short(prompt, completion):
        seen.append((prompt, completion, threading.current_thread() is threading.main_thread()))
        return -1.0 if prompt == "x" and len(completion) > 4 else 0.0

    found = ranked(fake, short)
    assert seen[:3] == [("x", "word", True), ("x", "word word", True), ("x", "word word word", True)]
    assert found.answer(0).order == ((0,), (1, 2)) and found.answer(1).order == ((0, 1, 2),)
    assert found.missing == [] and found.labellers == {"short": 2} and found.notes == []


def test_a_function_that_changed_is_asked_again_and_its_old_texts_are_dropped(fake):
    def judge(prompt, completion):
        return len(completion)

    ranked(fake, judge, ["x", "old"])
    longest = ranked(fake, judge, overwrite=True)
    assert {r.prompt for r in longest.rankings} == {"x", "y"}

    def judge(prompt, completion):
        return -len(completion)

    assert ranked(fake, judge).answer(0).order == ((0,), (1,), (2,))
    assert len(fake.rankings["taste"]) == 2


def test_a_persons_answers_stay_beside_a_judges(fake):
    rank(fake, "taste", ["x"], model="writer", samples=3).rank(0, [[2], [1], [0]])
    found = ranked(fake, lambda prompt, completion: -len(completion), ["x"])
    assert found.labellers == {"person": 1, "judge": 1} and found.agreement.w == 0
    assert rank(fake, "taste", ["x"], model="writer", samples=3).missing == []


def test_a_constant_judge_is_told(fake):
    assert ranked(fake, lambda prompt, completion: 1).notes == [
        "judge scores all completions of each prompt the same: there is nothing to learn from that"
    ]


@pytest.mark.parametrize("given", [math.nan, None, "good"])
def test_a_score_that_is_no_number_is_the_users_mistake(fake, given):
    with pytest.raises(GPTError, match=r"judge odd returned .* higher is better"):

        def odd(prompt, completion):
            return given

        ranked(fake, odd)


def test_an_error_of_the_function_is_its_own_and_what_was_ranked_stays(fake):
    def judge(prompt, completion):
        if prompt == "y":
            raise ZeroDivisionError("mine")
        return len(completion)

    with pytest.raises(ZeroDivisionError, match="mine"):
        ranked(fake, judge)
    assert [r.prompt for r in fake.rankings["taste"]] == ["x"]


def longest_first(chat) -> str:
    """Ranks the answers of a judge's prompt by their length."""
    parts = chat[0]["content"].split("[Answer ")[1:]
    lengths = {int(part[0]): len(part[2:].partition("\n\n")[0].split()) for part in parts}
    return " > ".join(str(number) for number in sorted(lengths, key=lambda n: -lengths[n]))


def test_a_model_is_asked_in_both_orders(fake):
    fake.says = longest_first
    found = ranked(fake, "judge")
    assert len(fake.chats) == 4
    first, turned = (chat[0]["content"] for chat in fake.chats[:2])
    shown = [found.questions[0].texts[place] for place in found.questions[0].shown]
    for prompt, texts in ((first, shown), (turned, shown[::-1])):
        places = [prompt.index(f"[Answer {n}]\n{text}\n") for n, text in enumerate(texts, start=1)]
        assert places == sorted(places) and "[Prompt]\nx\n" in prompt
    assert fake.options == {"model": "judge", "temperature": 0.0, "max_tokens": judging.MAX_TOKENS}
    assert [answer.order for answer in map(found.answer, (0, 1))] == [((2,), (1,), (0,))] * 2
    assert found.labellers == {"judge": 2} and found.judged[0][0]["sent"] == "<sent>"


def test_what_only_prefers_the_first_ties_them_all(fake):
    fake.says = lambda chat: "1 > 2 > 3"
    assert ranked(fake, "judge").answer(0).order == ((0, 1, 2),)


def test_an_answer_that_is_no_ranking_is_repaired_once(fake):
    fake.says = lambda chat: "Answer 3 is very good!" if len(chat) == 1 else longest_first(chat)
    assert ranked(fake, "judge", ["x"]).answer(0).order == ((2,), (1,), (0,))
    assert [len(chat) for chat in fake.chats] == [1, 1, 3, 3]
    again = fake.chats[2]
    assert [turn["role"] for turn in again] == ["user", "assistant", "user"]
    assert again[1]["content"] == "Answer 3 is very good!" and "each of the numbers 1 to 3 once" in again[2]["content"]


def test_a_model_that_gives_none_leaves_them_missing_and_is_asked_no_more_than_twice(fake):
    fake.says = lambda chat: "I cannot say."
    found = ranked(fake, "judge")
    assert len(fake.chats) == 8 and found.missing == [0, 1]
    assert found.notes == ["judge gave no ranking for 2 of 2 prompts, though it was asked again"]
    with pytest.raises(GPTError, match="0 are there, 2 are needed, 2 missing; 2 of the prompts last asked"):
        fake.rankings.named("taste").need(2)


def test_a_model_is_asked_only_what_it_has_not_answered(fake):
    fake.says = longest_first
    ranked(fake, "judge", ["x"])
    fake.chats.clear()
    found = ranked(fake, "judge", ["x", "y"])
    assert found.missing == [] and all("[Prompt]\ny\n" in chat[0]["content"] for chat in fake.chats)
    assert len(fake.chats) == 2


def test_a_base_model_is_asked_as_an_assistant(fake):
    fake.says = longest_first
    ranked(fake, "base", ["x"])
    assert fake.options["as_assistant"] is True


@pytest.mark.parametrize(
    ("text", "count", "order"),
    [
        ("2 > 1 > 3", 3, [[1], [0], [2]]),
        ("2>1=3", 3, [[1], [0, 2]]),
        ("The ranking is: [3] > [1] = [2].", 3, [[2], [0, 1]]),
        ("Answer 2 > Answer 1", 2, [[1], [0]]),
        ("3, 1, 2", 3, [[2], [0], [1]]),
        ("1 > 1 > 2\n2 > 1 > 3", 3, [[1], [0], [2]]),
        ("**2** > **1**", 2, [[1], [0]]),
        ("2 >= 1", 2, [[1], [0]]),
        ("Answer 2 is better.", 2, [[1], [0]]),
        ("1 = 2", 2, [[0, 1]]),
        ("2 > 1", 3, None),
        ("1 > 2 > 3 > 4", 3, None),
        ("both", 2, None),
        ("3", 2, None),
        ("", 2, None),
    ],
)
def test_what_a_judges_words_mean(text, count, order):
    assert parse_order(text, count) == order


def test_orders_are_joined_by_mean_rank():
    # shown as 0 1 2 and as 2 1 0: numbers mean other places each time
    assert mean_order([[[0], [1], [2]], [[2], [1], [0]]], [(0, 1, 2), (2, 1, 0)]) == [[0], [1], [2]]
    assert mean_order([[[0], [1], [2]], [[0], [1], [2]]], [(0, 1, 2), (2, 1, 0)]) == [[0, 1, 2]]
    assert mean_order([[[0], [1], [2]], [[2, 1], [0]]], [(0, 1, 2), (2, 1, 0)]) == [[0], [1], [2]]


def test_braces_in_a_prompt_are_just_braces():
    question = Question("{count} {x}", tuple({"model": "m", "text": t, "seed": 0} for t in ("{answers}", "b")), (0, 1))
    assert "[Prompt]\n{count} {x}\n\n[Answer 1]\n{answers}\n\n[Answer 2]\nb\n" in judge_prompt(question, (0, 1))


def test_a_real_model_judges(gpt, tiny_model):
    tiny_model(gpt, context=512)
    tiny_model(gpt, "chat", chat=True, context=1024, seed=1)
    found = gpt.rank("taste", ["Tale"], model="tiny", samples=2, max_tokens=4, judge="chat")
    assert found.missing == [0] and "no ranking for 1 of 1" in found.notes[0]  # its weights are random
    assert found.judged[0][0]["sent"].startswith("<|user|>Below are a prompt and 2 answers")


def test_a_reward_model_scores_and_is_not_asked_in_words(fake):
    fake.models["judge"].labels = ["reward"]
    fake.models["judge"].score = lambda prompt, completion, finished: float(len(completion) if finished else 0)
    found = ranked(fake, "judge", ["x"])
    assert found.answer(0).order == ((2,), (1,), (0,)) and fake.chats == [] and found.labellers == {"judge": 1}
    found.questions[0].completions[2]["finish_reason"] = "length"
    judging.rank_all(fake, found, "judge")
    assert found.answer(0).order == ((1,), (0,), (2,)), "a text that was cut is read as one"
