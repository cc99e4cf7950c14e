"""Ranking: what is asked, what is kept, going on in a new kernel, labellers, and rankings from a file."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace

import pandas
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.inspect import view_of_rankings
from jupyter_gpt.stages import rankings
from jupyter_gpt.stages.rank import rank, reopened
from jupyter_gpt.stages.ranking_task import ranking_report
from jupyter_gpt.stages.rankings import AllRankings


class Known(dict):
    def __missing__(self, name):
        raise GPTError(f"there is no model {name}")


class FakeGPT:
    """Models that write what `write(model, prompt, seed)` says; `asked` is what they were asked."""

    def __init__(self):
        self.rankings, self.asked = AllRankings(), []
        self.models = Known({name: self.model(name) for name in ("a", "b")})
        self.write = lambda model, prompt, seed: f"{model} on {prompt} {seed}"
        self.interrupted_after, self.finish = None, lambda seed: "stop"

    def model(self, name):
        return SimpleNamespace(name=name, kind="endpoint", base_url="here", model=name, has_chat=True)

    def prompts(self, texts, *, model, samples, seed, **options):
        on_token = options.pop("on_token", None)
        self.asked.append((model, list(texts), samples, seed, options))
        if on_token:
            on_token(SimpleNamespace(tokens=[1, 2, 3]))
        broken = self.interrupted_after is not None and len(self.asked) > self.interrupted_after
        return [
            SimpleNamespace(
                prompt=f"<{text}>",
                samples=[
                    SimpleNamespace(
                        text=self.write(model, text, seed + k), finish_reason=self.finish(seed + k), interrupted=broken
                    )
                    for k in range(samples)
                ],
            )
            for text in texts
        ]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return FakeGPT()


def lines(home) -> list[dict]:
    return [json.loads(line) for line in (home / "rankings" / "taste.jsonl").read_text().splitlines()]


def test_each_prompt_is_a_question_and_an_answer_is_on_disk_at_once(fake, tmp_path):
    told = []
    found = rank(fake, "taste", ["x", "y"], model="a", samples=3, seed=5, top_k=2, tick=lambda *what: told.append(what))
    assert fake.asked == [("a", ["x", "y"], 3, 5, {"top_k": 2})]
    assert told == [("a writes", 0, 2, 3)]
    assert found.missing == [0, 1] and [q.prompt for q in found.questions] == ["x", "y"]
    assert found.questions[0].sent == (("a", "<x>"),)
    assert not found.rankings.path.exists()
    found.rank(1, [[2], [0, 1]], " because ")
    [kept] = lines(tmp_path / "home")
    assert [each["text"] for each in kept["completions"]] == ["a on y 5", "a on y 6", "a on y 7"]
    assert (kept["prompt"], kept["order"], kept["by"], kept["reason"]) == ("y", [[2], [0, 1]], "person", "because")
    assert kept["shown"] == list(found.questions[1].shown) and kept["time"] > 1e9
    assert found.missing == [0]
    assert found.table[["prompt", "text", "person"]].to_numpy().tolist()[3:] == [
        ["y", "a on y 5", 2.5],
        ["y", "a on y 6", 2.5],
        ["y", "a on y 7", 1.0],
    ]


def test_the_same_cell_goes_on_with_the_same_completions_in_a_new_kernel(fake):
    rank(fake, "taste", ["x", "y"], model="a", top_p=0.9).rank(0, [[0], [1], [2], [3]])
    fresh = FakeGPT()
    fresh.write = lambda *_: "a server never says the same thing twice"
    again = rank(fresh, "taste", ["x", "y"], model="a", top_p=0.9)
    assert fresh.asked == [] and again.missing == [1]
    more = rank(fresh, "taste", ["x", "y", "z"], model="a", top_p=0.9)
    assert [asked[1] for asked in fresh.asked] == [["z"]] and more.missing == [1]


def test_another_seed_setting_or_model_samples_anew_and_older_answers_stay(fake):
    rank(fake, "taste", ["x"], model="a").rank(0, [[0], [1], [2], [3]])
    for other in ({"seed": 9}, {"top_k": 3}, {"samples": 3}):
        with pytest.raises(GPTError, match=r"taste was made by rank .*: choose another name, or use --overwrite"):
            rank(fake, "taste", ["x"], **{"model": "a", **other})
        found = rank(fake, "taste", ["x"], **{"model": "a", **other}, overwrite=True)
        assert len(fake.asked[-1][1]) == 1
    assert len(fake.asked) == 4
    fake.write = lambda model, prompt, seed: f"trained anew {seed}"
    fake.models["a"].base_url = "elsewhere"
    found = rank(fake, "taste", ["x"], model="a", overwrite=True)
    assert found.missing == [0] and len(found.rankings) == 1


def test_what_is_shown_is_shuffled_by_the_seed_and_the_prompt_alone(fake):
    prompts = [f"p{i}" for i in range(12)]
    found = rank(fake, "taste", prompts, model="a", samples=3)
    shown = [question.shown for question in found.questions]
    assert len(set(shown)) > 3 and all(sorted(order) == [0, 1, 2] for order in shown)
    other = rank(fake, "other", prompts[5:6], model="a", samples=3)
    assert other.questions[0].shown == shown[5]
    assert [q.shown for q in rank(fake, "third", prompts, model="a", samples=3, seed=1).questions] != shown


def test_a_text_sampled_twice_is_asked_about_once(fake):
    fake.write = lambda model, prompt, seed: "same" if prompt == "x" else "odd" if seed % 2 else "even"
    found = rank(fake, "taste", ["x", "y"], model="a")
    assert [[(e["text"], e["seed"], e["times"]) for e in q.completions] for q in found.questions] == [
        [("same", 0, 4)],
        [("even", 0, 2), ("odd", 1, 2)],
    ]
    assert found.missing == [1], "one text cannot be ranked"
    found.rank(1, [[1], [0]])
    assert found.missing == []


def test_how_each_text_ended_is_kept_with_its_ranking(fake, tmp_path):
    fake.write = lambda model, prompt, seed: "ab"[seed % 2]
    fake.finish = lambda seed: "stop" if seed == 2 else "length"  # the text of 0 and 2 was cut once and ended once
    rank(fake, "taste", ["x"], model="a").rank(0, [[0], [1]])
    [kept] = lines(tmp_path / "home")
    assert [(each["text"], each["finish_reason"]) for each in kept["completions"]] == [("a", "stop"), ("b", "length")]
    assert fake.rankings["taste"][0].finished == [True, False]
    path, found = tmp_path / "home" / "rankings" / "taste.jsonl", json.loads(json.dumps(kept))
    for each in found["completions"]:  # as earlier versions wrote it
        del each["finish_reason"]
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    assert fake.rankings["taste"][0].finished == [True, True]
    again = rank(fake, "taste", ["x"], model="a")
    assert again.missing == [] and len(fake.asked) == 1, "the same question, whatever its file says of it"


def test_several_models_are_ranked_among_each_other(fake):
    found = rank(fake, "taste", ["x"], model=["a", "b"], samples=1)
    assert [entry["model"] for entry in found.questions[0].entries] == ["a", "b"]


def test_undo_brings_back_what_was_replaced(fake):
    found = rank(fake, "taste", ["x", "y"], model="a", samples=2)
    found.rank(0, [[0], [1]])
    found.rank(1, [[0, 1]])
    found.rank(0, [[1], [0]])
    assert len(found.rankings) == 2
    assert found.undo() == 0 and found.answer(0).order == ((0,), (1,))
    assert found.undo() == 1 and found.missing == [1]
    assert found.undo() == 0 and found.undo() is None
    assert len(found.rankings) == 0


def test_labellers_answer_beside_each_other_and_their_agreement_is_told(fake):
    ann = rank(fake, "taste", ["x", "y", "z"], model="a", samples=3, by="ann")
    for i, order in enumerate(([[0], [1], [2]], [[0], [1], [2]], [[0, 1, 2]])):
        ann.rank(i, order)
    bob = rank(fake, "taste", ["x", "y", "z"], model="a", samples=3, by="bob")
    assert bob.missing == [0, 1, 2], "ann's answers are not bob's"
    assert bob.agreement is None
    bob.rank(0, [[0], [1], [2]])
    bob.rank(1, [[2], [1], [0]])
    bob.rank(2, [[0, 1, 2]])
    assert bob.labellers == {"ann": 3, "bob": 3} and len(bob.rankings) == 6
    agreement = bob.agreement
    assert (agreement.w, agreement.chance, agreement.prompts) == (0.5, 0.5, 2), "ties of all say nothing"
    bob.undo()
    assert ann.missing == [] and bob.missing == [2]


def test_an_interrupt_keeps_what_is_sampled(fake):
    fake.interrupted_after = 1
    prompts = [f"p{i}" for i in range(40)]
    with pytest.raises(KeyboardInterrupt):
        rank(fake, "taste", prompts, model="a", samples=4)
    assert len(fake.rankings.named("taste").questions()) == 16
    fake.interrupted_after, fake.asked = None, []
    rank(fake, "taste", prompts, model="a", samples=4)
    assert [len(asked[1]) for asked in fake.asked] == [16, 8]


def test_damaged_questions_are_asked_anew(fake):
    found = rank(fake, "taste", ["x"], model="a")
    found.rankings.questions_path.write_text("{")
    assert rank(fake, "taste", ["x"], model="a").missing == [0] and len(fake.asked) == 2


@pytest.mark.parametrize("cut", [5, -3, "é"])
def test_a_file_cut_in_the_middle_of_a_line_keeps_the_rest_and_says_so(fake, cut):
    found = rank(fake, "taste", ["x", "y"], model="a", samples=2)
    found.rank(0, [[0], [1]])
    found.rank(1, [[0], [1]], "é")
    data = found.rankings.path.read_bytes()
    first = data.index(b"\n") + 1
    at = data.index("é".encode()) + 1 if cut == "é" else (first + cut if cut > 0 else len(data) + cut)
    found.rankings.path.write_bytes(data[:at])
    again = rank(fake, "taste", ["x", "y"], model="a", samples=2)
    assert again.missing == [1]
    assert again.notes == ["rankings taste: the file was cut off in the middle of its line 2; the 1 before it is kept"]
    again.rank(1, [[1], [0]])
    assert rank(fake, "taste", ["x", "y"], model="a", samples=2).notes == [] and len(again.rankings) == 2


def test_what_needs_them_says_how_many_are_there_and_how_many_are_missing(fake):
    found = rank(fake, "taste", ["x", "y", "z"], model="a", samples=2)
    found.rank(0, [[0], [1]])
    found.rank(1, [[0, 1]])
    kept = fake.rankings["taste"]
    assert kept.missing == 1 and len(kept.need(1)) == 2
    with pytest.raises(
        GPTError, match=r"taste: 1 are there \(1 more are all ties\), 3 are needed, 2 missing; 1 of the"
    ):
        kept.need(3)


def write_file(path, *found) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return str(path)


def ours(prompt: str, by: str = "ann", order=((1,), (0,))) -> dict:
    completions = [{"model": "m", "text": f"{prompt} {n}", "seed": n} for n in range(2)]
    return {"prompt": prompt, "completions": completions, "order": order, "shown": [0, 1], "by": by, "time": 5.0}


def test_a_file_fills_what_it_knows_and_only_the_rest_is_sampled(fake, tmp_path):
    file = write_file(tmp_path / "r.jsonl", ours("x"), ours("x", "bob", ((0,), (1,))), ours("other"))
    found = rank(fake, "taste", ["x", "y"], model="a", rankings_file=file)
    assert [asked[1] for asked in fake.asked] == [["y"]]
    assert found.missing == [1] and found.labellers == {"ann": 1, "bob": 1} and found.agreement.w == 0
    assert found.notes == [f"1 rankings of {file} are of other prompts and were left out"]
    rank(fake, "taste", ["x", "y"], model="a", rankings_file=file)
    assert len(found.rankings) == 2, "taken over twice"


def test_a_file_alone_brings_its_prompts_and_no_model_is_needed(fake, tmp_path):
    pair = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": "bad",
    }
    file = write_file(tmp_path / "pairs.jsonl", ours("x"), pair)
    with (tmp_path / "pairs.jsonl").open("a") as cut:
        cut.write('{"prompt": "q"')
    found = rank(fake, "taste", rankings_file=file)
    assert fake.asked == [] and found.missing == [] and [q.prompt for q in found.questions] == ["x", "q"]
    assert found.answer(1).order == ((0,), (1,)) and found.answer(1).by == "pairs"
    assert found.questions[1].texts == ["good", "bad"]
    assert found.notes == [f"{file} was cut off in the middle of its line 3: the 2 before it were taken"]


TURNS = (("user", "q"), ("assistant", "good"), ("assistant", "bad"))
ASKED, GOOD, BAD = ({"role": role, "content": text} for role, text in TURNS)
SYSTEM = {"role": "system", "content": "Be brief."}
PAIRS = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad", "score_chosen": 5.0},
    "messages": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
    "conversations": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "the prompt twice": {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
}


@pytest.mark.parametrize(
    ("kind", "suffix"), [("texts", ".csv"), *product(PAIRS, [".jsonl", ".json", ".parquet", "rows", "table"])]
)
def test_preference_data_as_trl_has_them(fake, tmp_path, kind, suffix):
    rows = [PAIRS[kind], PAIRS[kind]]
    table, file = pandas.DataFrame(rows), tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        table.to_parquet(file)
    elif suffix == ".csv":
        table.to_csv(file, index=False)
    elif suffix.startswith("."):
        lines = "\r\n".join(map(json.dumps, rows))
        file.write_text(f"\ufeff{lines}\r\n" if suffix == ".jsonl" else json.dumps(rows), newline="")
    given = {"rows": rows, "table": table}.get(suffix, file)
    found = rank(fake, "taste", rankings_file=given)
    [ranking] = found.rankings
    assert ranking.prompt == "q" and [each["text"] for each in ranking.completions] == ["good", "bad"]
    assert ranking.order == ((0,), (1,)) and found.missing == [] and fake.asked == []
    assert len(rank(fake, "taste", rankings_file=given).rankings) == 1, "taken over twice"
    assert ranking_report(found).text.splitlines()[1] == "1 prompt", "nothing was sampled"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "better": "a"}, "row 0 of the rankings has no chosen and rejected; it has question, better"),
        (
            {"prompt": "q", "chosen": None, "rejected": "b"},
            "chosen is a text or one message after the prompt, and not 0",
        ),
        ({"chosen": "a", "rejected": "b"}, "row 0 of the rankings has no prompt"),
        ({"prompt": [ASKED, GOOD], "chosen": "a", "rejected": "b"}, "prompt that ends with a turn of the assistant"),
        ({"prompt": [SYSTEM], "chosen": "a", "rejected": "b"}, "has no turn to answer"),
        ({"prompt": [SYSTEM, ASKED], "system": "s", "chosen": "a", "rejected": "b"}, "has two system prompts"),
        ({"prompt": [ASKED], "chosen": [GOOD, ASKED], "rejected": "b"}, "and not 2 messages"),
        ({"prompt": [ASKED], "chosen": [ASKED], "rejected": [BAD]}, "chosen ends with a turn of the user"),
        ({"prompt": "q", "chosen": [GOOD | {"thinking": "Hm."}], "rejected": [BAD]}, "chosen has thinking beside its"),
        ({"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, BAD]}, "differ in more than their last answer"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"}, "has no prompt"),
    ],
)
def test_a_row_that_is_no_preference_is_one_line(fake, row, message):
    with pytest.raises(GPTError, match=message):
        rank(fake, "taste", rankings_file=[row])


def test_thousands_of_preferences_are_read_and_written_once(fake, monkeypatch):
    """Not once for each of them, which takes the square of their number."""
    reads = []
    scan = rankings.scan
    monkeypatch.setattr(rankings, "scan", lambda *given: reads.append(given) or scan(*given))
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(300)]
    found = rank(fake, "taste", rankings_file=rows)
    assert len(reads) < 10 and len(found.rankings) == 300
    report = ranking_report(found)
    assert "\n196 more\n" in report.text and "\n100 more are not shown\n" in report.text
    assert "q199" in report.text and "q200" not in report.text and len(report.metadata["questions"]) == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "one prompt a line"),
        ({"prompts": ["x", "y", "x"]}, "prompt 'x' is given twice"),
        ({"model": None}, "--model MODEL"),
        ({"model": "z"}, "there is no model z"),
        ({"model": ["a", "a"]}, "model a is given twice"),
        ({"samples": 1}, "one completion cannot be ranked"),
        ({"temperature": 0}, "the same completion each time"),
        ({"judge": 3}, "expected a function .* got a int"),
        ({"judge": "z"}, "there is no model z"),
        ({"judge": len, "rankings_file": "f"}, "not from both"),
        ({"rankings_file": "nowhere.jsonl"}, "no such file"),
        ({"name": "../x"}, "cannot be a name"),
    ],
)
def test_what_cannot_be_ranked_is_refused_before_a_word_is_written(fake, options, message):
    with pytest.raises(GPTError, match=message):
        rank(fake, **{"name": "taste", "prompts": ["x"], "model": "a", **options})
    assert fake.asked == []


def test_whether_there_are_rankings_can_be_asked(fake):
    assert "taste" not in fake.rankings
    with pytest.raises(GPTError, match="`%%rank NAME --rankings FILE` imports a file"):
        fake.rankings["./pairs.jsonl"]
    rank(fake, "taste", ["x"], model="a")
    assert "taste" in fake.rankings


def test_an_order_that_is_none_is_refused(fake):
    found = rank(fake, "taste", ["x"], model="a", samples=3)
    for order in ([[0], [1]], [[0], [1], [1, 2]], [[1], [2], [3]]):
        with pytest.raises(GPTError, match="each of the 3 completions once"):
            found.rank(0, order)
    with pytest.raises(GPTError, match="there is no question 1"):
        found.rank(1, [[0]])


def test_a_real_model_is_sampled_once_and_a_changed_one_again(gpt, tiny_model):
    tiny_model(gpt)
    first = gpt.rank("taste", ["Tale", "The fox"], model="tiny", samples=3, max_tokens=6)
    again = gpt.rank("taste", ["Tale", "The fox"], model="tiny", samples=3, max_tokens=6)
    assert [q.texts for q in first.questions] == [q.texts for q in again.questions]
    assert first.questions[0].source == again.questions[0].source
    assert all(len(q.texts) > 1 for q in first.questions)
    tiny_model(gpt, seed=1)
    other = gpt.rank("taste", ["Tale", "The fox"], model="tiny", samples=3, max_tokens=6)
    assert other.questions[0].source != first.questions[0].source


def test_rankings_are_shown_again_without_asking_a_model(fake, tmp_path):
    found = rank(fake, "taste", ["x", "y"], model=["a", "b"], samples=1)
    found.rank(0, [[1], [0]])
    fake.asked.clear()
    assert view_of_rankings(fake, "taste").text.startswith("rankings taste\n2 prompts, completions of a, b\n")
    again = reopened(fake, "taste")
    assert again.missing == [1] and again.models == ["a", "b"] and fake.asked == []
    found.rankings.questions_path.unlink()
    assert reopened(fake, "taste").missing == [] and len(reopened(fake, "taste").questions) == 1
    with pytest.raises(GPTError, match="no rankings tast"):
        reopened(fake, "tast")


def test_rankings_that_wait_for_their_first_answer_are_there_already(fake):
    assert list(fake.rankings) == []
    rank(fake, "taste", ["x", "y"], model="a", samples=2)
    assert list(fake.rankings) == ["taste"]
    with pytest.raises(
        GPTError, match="taste: 0 are there, 4 are needed, 4 missing; 2 of the prompts last asked are not"
    ):
        fake.rankings["taste"].need(4)


def test_questions_and_rankings_of_an_earlier_version_are_taken_up(fake, tmp_path):
    folder = tmp_path / "home" / "rankings"
    folder.mkdir(parents=True)
    completions = [{"model": "a", "text": f"text {n}", "seed": n, "finish_reason": "stop", "times": 1} for n in (0, 1)]
    question = {"prompt": "x", "completions": completions, "shown": [1, 0], "sent": [["a", "<x>"]], "source": "old"}
    requested = {"prompts": ["x", "y"], "model": ["a"], "samples": 2, "seed": 0}
    asked = {
        "kind": "rank",
        "maker": "c1",
        "requested": requested,
        "questions": [question, {**question, "prompt": "y"}],
    }
    (folder / "taste.questions.json").write_text(json.dumps(asked), encoding="utf-8")
    kept = {
        "prompt": "x",
        "completions": [{name: each[name] for name in ("model", "text", "seed")} for each in completions],
        "order": [[1], [0]],
        "shown": [1, 0],
        "by": "person",
        "time": 5.0,
        "reason": "short",
    }
    (folder / "taste.jsonl").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    task = reopened(fake, "taste")
    assert task.missing == [1] and task.answer(0).order == ((1,), (0,)) and task.answer(0).reason == "short"
    assert fake.asked == [] and task.questions[0].sent == (("a", "<x>"),)
