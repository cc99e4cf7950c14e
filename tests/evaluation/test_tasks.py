"""Tables of questions, and what counts as right."""

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.tasks import task_of


@pytest.mark.parametrize(
    "table",
    [
        [("1 + 1?", "2"), ("2 + 2?", 4)],
        [{"question": "1 + 1?", "answer": 2, "more": 0}, {"Question": "2 + 2?", "Answer": "4"}],
        {"1 + 1?": "2", "2 + 2?": "4"},
    ],
)
def test_tables(table):
    task = task_of(table)
    assert task.questions == ("1 + 1?", "2 + 2?") and task.answers == ("2", "4")
    assert task.right("It is 2.", 0) and not task.right("22", 0)
    assert task_of(table, count=1).questions == ("1 + 1?",)


def test_answers_are_read_as_the_key_says_and_by_a_function_as_they_are():
    said = "16 + 24 = 40. He has 40, and that is all that there is to say about his marbles for now."
    table = [("How many?", "40"), ("Is it?", "yes"), ("Which?", "Ann")]
    task = task_of(table)
    assert [form.kind for form in task.forms] == ["number", "yes/no", "text"]
    assert task.read(None, said, False, 0) == "40" and task.read("40 marbles", said, False, 0) == "40"
    assert task.read(None, said, True, 0) is None and task.read(None, said, False, 1) is None
    assert task.right(task.read("Yes, it is.", "", False, 1), 1) and not task.right("no", 1)
    assert task.right("It was Ann, of course", 2) and not task.right("It was Anna", 2)
    judged = task_of(table, score=lambda answer, expected: True)
    assert judged.read(None, said, False, 0) == said and judged.read("40", said, False, 0) == "40"
    assert judged.read(None, " \n", False, 0) is None


def test_files_and_data_frames(tmp_path):
    import pandas

    rows = [{"question": "a,\nor b?", "answer": "x, y"}, {"question": "b\u2028?", "answer": "z"}]
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep=";")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, force_ascii=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.json", orient="records")
    for source in (frame, *(str(tmp_path / f"t.{kind}") for kind in ("csv", "tsv", "json", "jsonl", "parquet"))):
        assert task_of(source).answers == ("x, y", "z")
        assert task_of(source).questions == ("a,\nor b?", "b\u2028?")


@pytest.mark.parametrize("empty", [None, float("nan"), " "])
def test_a_question_needs_an_answer_unless_a_function_judges(tmp_path, empty):
    import pandas

    frame = pandas.DataFrame({"question": ["Who?", "When?"], "answer": ["Ann", empty]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (frame, frame.to_dict("records"), str(tmp_path / "t.csv")):
        with pytest.raises(GPTError, match=r"has no answer to 'When\?': add it, or judge replies with --score"):
            task_of(source)
        judged = task_of(source, score=lambda answer, expected: len(expected.strip()))
        assert judged.right("x", 0) and not judged.right("x", 1)


def test_a_score_of_the_users(tmp_path):
    task = task_of([("far?", "10")], score=lambda answer, expected: abs(float(answer) - float(expected)) < 1)
    assert task.right("10.5", 0) and not task.right("12", 0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.csv", "cannot read nowhere.csv: No such file"),
        ("x.txt", "is not a table of questions"),
        (7, "is a int"),
        ([], "has no questions"),
        ([("only",)], "row 1 of the table: expected a question and its answer"),
        ([{"q": 1}], "it has q"),
        (["text"], "row 1"),
        ("reasoning-gym:no_such_task", "reasoning-gym"),
    ],
)
def test_what_is_no_task(source, said):
    with pytest.raises(GPTError, match=said):
        task_of(source)


def test_puzzles_of_reasoning_gym_are_scored_by_it():
    pytest.importorskip("reasoning_gym")
    task = task_of("reasoning-gym:chain_sum", count=5, seed=3)
    assert len(task.questions) == 5 and all(task.right(answer, i) for i, answer in enumerate(task.answers))
    assert not task.right("no idea", 0)
    reply = f"{task.questions[0]} is more than I can do, so I say {task.answers[0]}. That is all that I know about it."
    assert task.right(task.read(None, reply, False, 0), 0), "numbers are read from replies"
    assert task_of("reasoning-gym:chain_sum", count=5, seed=3).questions == task.questions
