"""gpt.evaluate: batched, kept on disk, resumed; the same answers as one by one."""

import _thread
import json
import re
import threading

import pandas
import pytest

from helpers.errors import fail
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation import fingerprint
from jupyter_gpt.evaluation.estimates import estimate
from jupyter_gpt.evaluation.scores import contains, equal, rouge_l, token_f1
from jupyter_gpt.stages.evaluate import append, read

QUESTIONS = [(f"Tale {n}. How many birds?", str(n)) for n in range(6)]
SHORT = {"max_tokens": 6, "temperature": 1.0}
TWO = {"direct": {}, "vote": {"cot": True, "samples": 3, "vote": True}}


@pytest.fixture
def chat(gpt, tiny_model):
    return tiny_model(gpt, "chat", chat=True, context=256)


def lines(gpt):
    [file] = (gpt.home / "evaluations").iterdir()
    return file, file.read_text().splitlines()


def test_it_answers_as_one_by_one_and_keeps_everything(gpt, chat):
    told = []
    found = gpt.evaluate(
        QUESTIONS, models=["chat"], techniques=TWO, seed=3, progress=lambda *a: told.append(a), **SHORT
    )
    assert found.whole and len(found.rows) == 12 and told[-1] == ("chat vote", 12, 12)
    alone = [gpt.prompt(question, model="chat", seed=3, **TWO["vote"], **SHORT) for question, _ in QUESTIONS]
    voted = [row for row in found.rows if row["technique"] == "vote"]
    assert [row["text"] for row in voted] == [done.text for done in alone]
    assert [row["tokens_in"] for row in voted] == [done.usage.prompt_tokens for done in alone]
    direct, vote = found.settings
    assert direct.count == vote.count == 6 and vote.tokens_out > direct.tokens_out > 0 and vote.seconds > 0
    assert direct.cost is None and direct.flops == 2 * chat.parameters * (direct.tokens_in + direct.tokens_out)
    assert len(lines(gpt)[1]) == 12 and list(found.table["technique"]) == ["direct", "vote"]


def test_what_is_known_is_not_asked_again_and_what_changed_is(gpt, chat, monkeypatch):
    first = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr("jupyter_gpt.inference.engine.generate", lambda *_: pytest.fail("asked again"))
        again = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, **SHORT)
        assert [row["text"] for row in again.rows] == [row["text"] for row in first.rows]
        right = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, score=lambda a, e: True, **SHORT)
        setting = right.settings[0]
        assert setting.right == 6 - setting.silent > first.settings[0].right, "a score is no reason to ask again"
    gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {"system": "Be brief."}}, **SHORT)
    assert len(lines(gpt)[1]) == 12


def test_it_goes_on_after_a_cut_line(gpt, chat):
    first = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, **SHORT)
    file, kept = lines(gpt)
    file.write_text("\n".join(kept[:3]) + "\n" + kept[3][:20])
    again = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, **SHORT)
    assert [row["text"] for row in again.rows] == [row["text"] for row in first.rows]
    kept = lines(gpt)[1]
    assert len(kept) == 7 and sum(len(json.loads(line)) > 5 for line in kept if line.endswith("}")) == 6


def test_other_examples_of_a_table_are_asked_anew(gpt, chat):
    """Also where the table as text, which shows the beginnings of its cells, is the same."""
    tables = [pandas.DataFrame([[f"How many {n}?", "so " * 20 + end] for n in range(4)]) for end in "aba"]
    assert str(tables[0]) == str(tables[1])
    one, other, again = (fingerprint.of(chat, {"few_shot": table}) for table in tables)
    assert one == again != other


def test_questions_that_are_among_the_examples_are_told_of(gpt, chat):
    given = {"shown": {"few_shot": [*QUESTIONS[:2], ("Why?", "So.")]}, "other": {"few_shot": [("Why?", "So.")]}}
    found = gpt.evaluate(QUESTIONS[:3], models=["chat"], techniques=given, **SHORT)
    assert found.leaks == ("shown: 2 of the questions are among its examples, with their answers",)
    assert found.leaks[0] in found.report.text


@pytest.mark.parametrize("mark", ["\u2028", "\x85"], ids=ascii)
def test_an_answer_may_have_any_mark_of_a_lines_end(tmp_path, mark):
    row = {"key": "k", "text": f"a{mark}b"}
    append(tmp_path / "t.jsonl", row)
    assert read(tmp_path / "t.jsonl") == {"k": row}


def test_an_interrupt_keeps_what_was_answered(gpt, chat):
    def stop(what, done, total):
        if done == 2:
            threading.Timer(0.0, _thread.interrupt_main).start()

    many = [(f"{n}?", "1") for n in range(80)]
    slow = {"direct": {"max_tokens": 150, "min_tokens": 150}}
    found = gpt.evaluate(many, models=["chat"], techniques=slow, progress=stop, temperature=1.0)
    assert 2 <= len(found.rows) < 80 and not found.whole
    assert "run the cell again to continue" in found.report.text


def scripted(monkeypatch, reply):
    """A scripted model in the place of the real one: `reply(prompt)` is its completion."""

    def sender(models, memory, name, unsent=False):
        def send(prompts, *, show=None, deadline=None, **settings):
            found = [reply(prompt) for prompt in prompts]
            if show:
                show(found)
            return found

        return send

    monkeypatch.setattr("jupyter_gpt.stages.evaluate.sender", sender)


def test_direct_and_chain_of_thought_are_read_by_the_same_rule(gpt, chat, monkeypatch):
    """The model reasons, never says "the answer is", and is once cut off."""
    from jupyter_gpt.inference.completion import Completion

    replies = {
        "Tom": ("16 + 24 = 40. He has 40.", "stop"),
        "Box": ("7 times 12 is 84, as one can see from", "length"),
        "Bag": ("I cannot say.", "stop"),
        "Van": ("We divide, and so 45 / 9 = 5 vans. The answer is 5.", "stop"),
    }

    def reply(prompt):
        text, finish = replies[prompt[:3]] if isinstance(prompt, str) else ("I said so.", "stop")
        return Completion(text, tokens=[1], finish_reason=finish)

    scripted(monkeypatch, reply)
    table = [
        ("Tom has 16 and gets 24.", "40"),
        ("Boxes: 7 of 12.", "84"),
        ("Bag?", "7"),
        ("Vans for 45, 9 in each?", "5"),
    ]
    found = gpt.evaluate(table, models=["chat"], techniques={"direct": {}, "--cot": {"cot": True}})
    for rows in (found.rows[:4], found.rows[4:]):
        assert [(row["answer"], row["right"]) for row in rows] == [
            ("40", True),
            (None, False),
            (None, False),
            ("5", True),
        ]
    assert [(s.right, s.silent, s.cut) for s in found.settings] == [(2, 2, 1)] * 2
    shown = found.report.text
    header, _, first = shown.splitlines()[2:5]
    columns = dict(zip(re.split(r"\s{2,}", header), re.split(r"\s{2,}", first.strip()), strict=True))
    assert (columns["correct"], columns["accuracy"], columns["no answer"]) == ("≈2 of ≈4", "≈50.0%", "≈2")
    assert "replies without a readable answer: 4, of which 2 stopped at --max-tokens; they count as wrong" in shown
    judged = gpt.evaluate(
        table, models=["chat"], techniques={"direct": {}}, score=lambda answer, expected: "say" in answer
    )
    assert [row["right"] for row in judged.rows] == [False, False, True, False], "a function judges the whole reply"


def test_mistakes(gpt, chat):
    with pytest.raises(GPTError, match="--vote with chat: --vote chooses among several samples"):
        gpt.evaluate(QUESTIONS, models=["chat"], techniques={"--vote": {"vote": True}})
    with pytest.raises(GPTError, match="there is no model chats"):
        gpt.evaluate(QUESTIONS, models=["chats"])
    with pytest.raises(ZeroDivisionError):
        gpt.evaluate(QUESTIONS, models=["chat"], techniques={"x": {"reflect": 1, "check": lambda q, a: 1 / 0}}, **SHORT)


def test_some_questions_that_cannot_be_asked_are_counted_and_told(gpt, chat):
    mixed = [*QUESTIONS, ("long " * 300, "1")]
    found = gpt.evaluate(mixed, models=["chat"], techniques={"direct": {}}, **SHORT)
    assert len(found.rows) == 6 and "too many for chat" in found.errors[0]
    assert "1 of 7 questions could not be asked" in found.report.text


def test_the_report(gpt, chat):
    wrong = gpt.evaluate(QUESTIONS, models=["chat"], techniques=TWO, score=lambda answer, expected: False, **SHORT)
    assert "best: none, for no setting has answered a question right" in wrong.report.text
    found = gpt.evaluate(QUESTIONS, models=["chat"], techniques=TWO, score=lambda answer, expected: True, **SHORT)
    report = found.report
    assert report.text.startswith("the table: 6 questions\n\nmodel")
    assert repr(found).startswith("the table: 6 questions\n\nmodel") and "text/html" in found._repr_mimebundle_()[0]
    assert "best: chat" in report.text and "unpriced" in report.text
    assert report.html.count("<img") == 1 and "accuracy against GFLOP a question" in report.html
    assert not re.search(
        r"\d",
        re.sub(r"«[^»]*»|≈[-–0-9.,e+]+|95%|6 questions|--samples 5|Tale \d. How many birds\?\s+\d", "", report.text),
    )
    json.dumps(report.metadata)
    alone = gpt.evaluate(QUESTIONS, models=["chat"], techniques={"direct": {}}, **SHORT).report
    assert "<img" not in alone.html and "best:" not in alone.text, "a single setting is compared with nothing"


ASKED = [("Business?", "The Business plan costs $12 a month."), ("And Free?", "The Free plan costs nothing at all.")]


def test_scores_of_sentences():
    said, meant = "It costs $12, the Business plan, each month.", ASKED[0][1]
    assert token_f1(said, meant) == pytest.approx(2 * 5 / (7 + 5)), "without the articles"
    assert rouge_l(said, meant) == pytest.approx(2 * 4 / (8 + 7)), "the Business plan … month"
    assert equal("the business plan costs 12 a month", meant) and contains(f"Well: {meant} Yes.", meant)
    assert not contains("The Business planner costs $12 a month.", "Business plan") and token_f1("", meant) == 0


@pytest.mark.parametrize(
    ("score", "right", "mean", "how"),
    [
        (None, 1, (1 + 8 / 14) / 2, "token F1"),
        ("f1", 1, (1 + 8 / 14) / 2, "token F1"),
        ("rouge", 1, (1 + 2 * 5 / (9 + 7)) / 2, "ROUGE-L"),
        ("contains", 1, 0.5, "accuracy"),
    ],
)
def test_answers_that_are_sentences(gpt, chat, monkeypatch, score, right, mean, how):
    from jupyter_gpt.inference.completion import Completion

    replies = {"Bus": "the business plan costs $12 a month", "And": "With the Free plan it costs you nothing. Nothing!"}
    scripted(monkeypatch, lambda prompt: Completion(replies[prompt[:3]], tokens=[1], finish_reason="stop"))
    found = gpt.evaluate(ASKED, models=["chat"], techniques=["direct"], score=score)
    [setting] = found.settings
    assert setting.right == right and setting.accuracy == pytest.approx(mean)
    low, high = setting.interval
    assert 0 <= low < mean < high <= 1
    assert estimate(setting).value == pytest.approx(mean)
    text = found.report.text
    assert how in text and "the business plan costs $12 a month" in text and ASKED[0][1] in text
    assert "scored by" in text


def test_a_model_judges_answers_and_its_verdicts_are_kept(gpt, chat, monkeypatch):
    from jupyter_gpt.inference.completion import Completion

    asked = []

    def verdicts(self, chats, **options):
        asked.extend(each[0]["content"] for each in chats)
        return [Completion("Yes." if "Twelve" in each[0]["content"] else "no", finish_reason="stop") for each in chats]

    replies = {"Bus": "Twelve dollars.", "And": "One dollar."}
    scripted(monkeypatch, lambda prompt: Completion(replies[prompt[:3]], tokens=[1], finish_reason="stop"))
    monkeypatch.setattr(type(gpt), "prompts", verdicts)
    for _ in range(2):
        found = gpt.evaluate(ASKED, models=["chat"], techniques=["direct"], score="judge:chat")
        assert [row["right"] for row in found.rows] == [True, False] and len(asked) == 2
    assert ASKED[0][0] in asked[0] and ASKED[0][1] in asked[0] and "scored by chat" in found.report.text


def test_techniques_are_flags_in_a_list_or_a_dict_of_options(gpt, chat):
    found = gpt.evaluate(QUESTIONS[:2], models=["chat"], techniques=["direct", "--cot --samples 3 --vote"], **SHORT)
    same = gpt.evaluate(QUESTIONS[:2], models=["chat"], techniques=TWO, **SHORT)
    assert [row["text"] for row in found.rows] == [row["text"] for row in same.rows]
    for given in (["--cots"], "--cot", 5, [{}]):
        assert "\n" not in fail(gpt.evaluate, QUESTIONS, models=["chat"], techniques=given)
    assert "f1" in fail(gpt.evaluate, QUESTIONS, models=["chat"], score="f2")
