"""Tasks: questions with known answers, from a table or from `reasoning-gym`.

The form of the expected answers (numbers, letters of options, yes or no, texts) decides how an answer is extracted from
a reply, whichever technique it is from (`prompting/answers.py`). A table is a list of (question, answer) pairs or of
rows with `question` and `answer`, a mapping, a DataFrame, or a file of the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_gpt.data import files
from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting import answers as replies
from jupyter_gpt.prompting.answers import ANY, Form, form_of, is_correct

GYM = "reasoning-gym:"
Right = Callable[[str, int], bool]  # (answer, number of the question) -> is it right?


@dataclass(frozen=True)
class Task:
    """Questions, their answers, and `right(answer, i)`, whether an answer to question i is right. `forms`
    say what the answers are; `ANY` where a function judges the reply, which is then read as little as possible."""

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    right: Right
    forms: tuple[Form, ...]

    def read(self, answer: str | None, text: str, cut: bool, i: int) -> str | None:
        """The answer to question i: a technique's, or else the one extracted from a reply's text, or None."""
        form = self.forms[i]
        if form == ANY:
            return (replies.extract_answer(text) if answer is None else answer) or text.strip() or None
        if answer is None:
            return replies.extract_answer(text, form, cut=cut)
        return replies.extract_answer(answer, form, alone=True)


def task_of(source: object, count: int | None = None, seed: int = 0, score: Callable | None = None) -> Task:
    """The first `count` questions of a table, a file or `reasoning-gym:NAME` (default 50, drawn with `seed`).

    `score(answer, expected)` returns whether an answer is right (default: `prompting.answers.is_correct`). Raises
    GPTError for anything else.
    """
    source = str(source) if isinstance(source, Path) else source
    if isinstance(source, str) and source.startswith(GYM):
        return gym(source.removeprefix(GYM), count or 50, seed, score)
    name = source if isinstance(source, str) else "the table"
    pairs = pairs_of(read(source) if isinstance(source, str) else source, str(name))[:count]
    if not pairs:
        raise GPTError(f"{name} has no questions")
    questions, answers = zip(*pairs, strict=True)
    unknown = next((q for q, a in pairs if not a.strip()), None) if score is None else None
    if unknown is not None:
        raise GPTError(f"{name} has no answer to {unknown[:60]!r}: add it, or judge replies with --score")
    forms = tuple(form_of(a, q, answers) for q, a in pairs) if score is None else (ANY,) * len(pairs)
    return Task(Path(name).name, questions, answers, by(score, answers, forms), forms)


def by(score: Callable | None, answers: Sequence[str], forms: Sequence[Form]) -> Right:
    """The user's scoring function, or else equality of the answers."""
    if score is None:
        return lambda answer, i: is_correct(answer, answers[i], forms[i])
    if not callable(score):
        raise GPTError(f"--score must be a function f(answer, expected), not a {type(score).__name__}")
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
