"""Tasks: questions with known answers, from a table or from `reasoning-gym`.

The form of the expected answers (numbers, letters of options, yes or no, texts, sentences) decides how an answer is
extracted from a reply, whichever technique it is from (`prompting/answers.py`), and how it is scored: sentences by
equality and by token F1, all others by whether they are right. A table is a list of (question, answer) pairs or of
rows with `question` and `answer`, a mapping, a DataFrame, or a file of the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_gpt.data import files
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.evaluation.scores import SCORES, equal, token_f1
from jupyter_gpt.prompting import answers as replies
from jupyter_gpt.prompting.answers import ANY, Form, form_of, is_correct

GYM = "reasoning-gym:"
JUDGE = "judge:"
SENTENCES = "token F1; correct are answers that are equal without case, punctuation and articles"
CONTAINS = "whether the answer has the expected words, without case, punctuation and articles"
Right = Callable[[str, int], bool]  # (answer, number of the question) -> is it right?


@dataclass(frozen=True)
class Task:
    """Questions, their answers, and `right(answer, i)`, whether an answer to question i is right. `forms`
    say what the answers are; `ANY` where a function judges the reply, which is then read as little as possible.

    measure: what the mean score is called.  graded: the score of an answer to question i from 0 to 1; None where it is
    right or wrong.  judge: the model that says which answers are right.  how: in words, what answers are scored by.
    """

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    right: Right
    forms: tuple[Form, ...]
    measure: str = "accuracy"
    graded: Callable[[str, int], float] | None = None
    judge: str | None = None
    how: str = "equality with the expected number, option, yes or no, or words"

    def read(self, answer: str | None, text: str, cut: bool, i: int) -> str | None:
        """The answer to question i: a technique's, or else the one extracted from a reply's text, or None."""
        form = self.forms[i]
        if form == ANY:
            return (replies.extract_answer(text) if answer is None else answer) or text.strip() or None
        if answer is None:
            return replies.extract_answer(text, form, cut=cut)
        return replies.extract_answer(answer, form, alone=True)


def task_of(source: object, count: int | None = None, seed: int = 0, score: Callable | str | None = None) -> Task:
    """The first `count` questions of a table, a file or `reasoning-gym:NAME` (default 50, drawn with `seed`).

    `score(answer, expected)` returns whether an answer is right, or names a score: "contains", "f1", "rouge", or
    "judge:MODEL" (default: by the kind of the answers). Raises GPTError for anything else.
    """
    source = str(source) if isinstance(source, Path) else source
    if isinstance(source, str) and source.startswith(GYM):
        if isinstance(score, str):
            raise GPTError(f"{GYM} has a scoring of its own: leave --score {score:.40} out, or give a function")
        return gym(source.removeprefix(GYM), count or 50, seed, score)
    name = source if isinstance(source, str) else "the table"
    pairs = pairs_of(read(source) if isinstance(source, str) else source, str(name))[:count]
    if not pairs:
        raise GPTError(f"{name} has no questions")
    questions, answers = zip(*pairs, strict=True)
    unknown = next((q for q, a in pairs if not a.strip()), None) if score is None else None
    if unknown is not None:
        raise GPTError(f"{name} has no answer to {unknown[:60]!r}: add it, or judge replies with --score")
    name = Path(name).name
    if isinstance(score, str):
        return named(Task(name, questions, answers, equality(answers), (Form("sentence"),) * len(pairs)), score)
    if score is not None:
        forms, title = (ANY,) * len(pairs), f"your function {getattr(score, '__name__', type(score).__name__)}"
        return Task(name, questions, answers, by(score, answers, forms), forms, how=title)
    forms = tuple(form_of(a, q, answers) for q, a in pairs)
    task = Task(name, questions, answers, by(None, answers, forms), forms)
    if not any(form.kind == "sentence" for form in forms):
        return task

    def graded(answer: str, i: int) -> float:
        return token_f1(answer, answers[i]) if forms[i].kind == "sentence" else float(task.right(answer, i))

    return replace(task, measure="token F1", graded=graded, how=SENTENCES)


def named(task: Task, score: str) -> Task:
    """The task with a score of this name."""
    if score.startswith(JUDGE):
        model = score.removeprefix(JUDGE)
        return replace(task, judge=model, how=f"{model}, which is asked whether an answer says what is expected")
    if score not in SCORES:
        known = f"{', '.join(SCORES)}, {JUDGE}MODEL or a $function"
        raise GPTError(f"--score is {known}, not {score!r:.40}{nearest(score, SCORES)}")
    measure, function = SCORES[score]
    if score == "contains":
        return replace(task, right=lambda answer, i: bool(function(answer, task.answers[i])), how=CONTAINS)
    how = f"{measure}; correct are answers that are equal without case, punctuation and articles"
    return replace(task, measure=measure, graded=lambda answer, i: function(answer, task.answers[i]), how=how)


def equality(answers: Sequence[str]) -> Right:
    return lambda answer, i: bool(equal(answer, answers[i]))


def by(score: Callable | None, answers: Sequence[str], forms: Sequence[Form]) -> Right:
    """The user's scoring function, or else equality of the answers."""
    if score is None:
        same = equality(answers)
        return lambda answer, i: (
            same(answer, i) if forms[i].kind == "sentence" else is_correct(answer, answers[i], forms[i])
        )
    if not callable(score):
        raise GPTError(
            f"--score must be a function f(answer, expected) or the name of a score, not a {type(score).__name__}"
        )
    return lambda answer, i: bool(score(answer, answers[i]))


def read(name: str) -> object:
    path = Path(name).expanduser()
    if path.suffix.lower() not in files.ROW_SUFFIXES:
        kinds = ".csv, .tsv, .json, .jsonl or .parquet"
        raise GPTError(f"{name} is not a table of questions: give a {kinds} file, a $variable, or {GYM}NAME")
    try:
        if path.suffix.lower() == ".json":
            return json.loads(path.read_text(encoding="utf-8-sig"))  # which may be a mapping of questions to answers
        rows = [row for _, row in files.rows(path)]
        if refused := next((row for row in rows if isinstance(row, GPTError)), None):
            raise refused
        return rows
    except OSError as error:
        raise GPTError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise GPTError(f"{name} is damaged: {error}") from error


def pairs_of(table: object, name: str) -> list[tuple[str, str]]:
    """Question and answer of each row, as texts."""
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        table = table.to_dict("records")
    rows = list(table.items()) if isinstance(table, Mapping) else table
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise GPTError(f"{name} is a {type(table).__name__}: questions are pairs, or rows with `question` and `answer`")
    return [pair_of(row, f"row {n} of {name}") for n, row in enumerate(rows, start=1)]


def pair_of(row: object, where: str) -> tuple[str, str]:
    if isinstance(row, Mapping):
        names = {str(name).lower(): name for name in row}
        if not {"question", "answer"} <= set(names):
            raise GPTError(f"{where} has no `question` and `answer`: it has {', '.join(map(str, row)) or 'nothing'}")
        row = (row[names["question"]], row[names["answer"]])
    if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != 2 or not str(row[0]).strip():
        raise GPTError(f"{where}: expected a question and its answer, got {row!r:.60}")
    empty = row[1] is None or row[1] != row[1]  # NaN, an empty cell of a table
    return str(row[0]), "" if empty else str(row[1])


def gym(name: str, count: int, seed: int, score: Callable | None) -> Task:
    """A task of reasoning-gym (Stojanovski et al. 2025), with its own scoring. Raises GPTError where it is not
    installed, or has no such task."""
    try:
        import reasoning_gym
    except ImportError:
        raise GPTError(f"{GYM}{name} needs the package reasoning-gym: pip install 'jupyter_gpt[puzzles]'") from None
    try:
        data = reasoning_gym.create_dataset(name, size=count, seed=seed)
    except ValueError as error:
        raise GPTError(f"reasoning-gym has no task {name}: {error}") from error
    entries = [data[i] for i in range(count)]
    answers = tuple(str(entry["answer"]) for entry in entries)
    questions = tuple(entry["question"] for entry in entries)
    found = [form_of(a, q, answers) for a, q in zip(answers, questions, strict=True)]
    forms = tuple(form if form.kind in ("number", "yes/no") and not score else ANY for form in found)
    equal = by(score, answers, forms)

    def right(answer: str, i: int) -> bool:
        """Its own scoring compares numbers and words literally with the key."""
        return (bool(score or forms[i].kind) and equal(answer, i)) or (
            not score and data.score_answer(answer, entries[i]) >= 0.99
        )

    return Task(f"{GYM}{name}", questions, answers, right, forms)
