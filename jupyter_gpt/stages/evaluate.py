"""`gpt.evaluate`: a task × techniques × models, batched, each result cached on disk at once.

The key of a result is a hash of the model's weights, the technique and its templates, the question and the settings: an
interrupted evaluation continues where it was, and what has changed is sampled again.

"First the best possible performance, then cost": the recommendation is the setting with the highest accuracy, and the
cheapest one whose accuracy lies within that one's 95% interval (Wilson).
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.data.render import pairs_of
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation import fingerprint
from jupyter_gpt.evaluation.estimates import estimate
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.evaluation.tasks import Task, task_of
from jupyter_gpt.prompting.answers import Form, extract_answer
from jupyter_gpt.prompting.ask import INTERRUPTED, replaced_templates
from jupyter_gpt.prompting.batching import run_batched
from jupyter_gpt.report import charts
from jupyter_gpt.report.charts import Group, Scatter
from jupyter_gpt.report.parts import Chart, Inline, Paragraph, Table, Varies
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.stages.prompt import Prompting
from jupyter_gpt.stages.prompt_options import Evaluate, Prompt
from jupyter_gpt.stages.prompt_techniques import prompt_with_techniques, sender

TECHNIQUES = {
    "direct": {},
    "--cot": {"cot": True},
    "--cot --samples 5 --vote": {"cot": True, "samples": 5, "vote": True},
}
OWN = {"task", "models", "techniques", "questions", "score", "progress"}  # all other options are those of `gpt.prompt`
BATCH = 64  # samples of a model at once
READING = 3  # version of how techniques extract answers: results of another one are sampled again
COST = ("tokens in", "out", "seconds", "dollars")
HEAD = ("model", "technique", "correct", "accuracy", "95% interval", *COST, "no answer")
SIDES = "llrrrrrrrr"
EXAMPLES = 3  # answers that the report shows beside what was expected
JUDGE = """\
Below are a question, its expected answer, and an answer that was given. Does the given answer say what is expected?

[Question]
{question}

[Expected answer]
{expected}

[Given answer]
{answer}

Reply with "yes" or "no" and nothing else."""


@dataclass(frozen=True)
class Setting:
    """One model with one technique: sums over `count` questions. `cost` in dollars, None without a price; `flops` about
    2 x parameters x tokens, None for an endpoint; `silent`: replies without an answer, `cut`: those of them that
    stopped at --max-tokens; `scores`: of each answer, 0 to 1, where answers are graded and not just right or wrong.
    """

    model: str
    technique: str
    count: int
    right: int
    silent: int
    cut: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float | None
    flops: float | None
    scores: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """The share of right answers; the mean score where answers are graded."""
        return sum(self.scores or [self.right]) / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy (Wilson), of graded answers by bootstrap."""
        if not self.scores:
            return wilson(self.accuracy, self.count)
        found = estimate(self.scores)
        return found.low, found.high

    @property
    def label(self) -> str:
        return f"{self.model} {self.technique}"


@dataclass(frozen=True, repr=False)
class Evaluation(ShownAsTable):
    """The result: `rows` has one dict per question and setting, `wanted` of them when it is complete. `leaks` says
    where questions were answered in the prompt."""

    task: Task
    settings: list[Setting]
    rows: list[dict]
    wanted: int
    errors: list[str]
    leaks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return len(self.rows) == self.wanted

    @property
    def best(self) -> Setting:
        """The most accurate setting; of equals the cheapest."""
        return recommended(self.settings)[0]

    @property
    def cheapest(self) -> Setting:
        """The cheapest setting whose accuracy lies within the 95% interval of the best one's."""
        return recommended(self.settings)[1]

    @property
    def report(self) -> Report:
        return evaluation_report(self)

    @property
    def table(self):
        """The settings as a DataFrame."""
        import pandas

        return pandas.DataFrame(
            [{**vars(s), "accuracy": s.accuracy, "low": s.interval[0], "high": s.interval[1]} for s in self.settings]
        )


def evaluate(session, options: Evaluate) -> Evaluation:
    """Evaluate each technique with each model on a task. An interrupt ends it; the same call continues.

    Raises GPTError for an invalid task, model or technique.
    """
    task = task_of(options.task, options.questions, options.seed, options.score)
    techniques = techniques_of(options.techniques)
    common = {name: value for name, value in options.chosen.items() if name not in OWN} | {"seed": options.seed}
    leaks = tuple(filter(None, (leak(task, name, options_of(common, given)) for name, given in techniques.items())))
    models, progress = options.models, options.progress
    if not models or not techniques:
        raise GPTError("give at least one model and one technique")
    file = path_of(task)
    known, rows, settings, errors = read(file), [], [], []
    wanted, stopped = len(models) * len(techniques) * len(task.questions), False
    for name in dict.fromkeys(models):
        model = session.models[name]
        for technique, given in techniques.items():
            asked = options_of(common, given)
            settings_asked = {"technique": described(asked), "templates": replaced_templates(), "reading": READING}
            origin = fingerprint.of(model, settings_asked)
            keys = [hashlib.sha256(f"{origin} {question}".encode()).hexdigest()[:24] for question in task.questions]
            missing = [i for i, key in enumerate(keys) if key not in known]
            found, failed = {}, []
            if missing and not stopped:
                had = len(rows) + len(keys) - len(missing)
                if progress:
                    progress(f"{name} {technique}", had, wanted)
                try:
                    for i, row in answered(session, model, task, missing, asked):
                        if row is None:
                            stopped = True
                        elif "error" in row:
                            failed.append(row["error"])
                        else:
                            found[i] = row
                            about = {"key": keys[i], "model": name, "technique": technique}
                            about["question"] = task.questions[i]
                            append(file, about | row)
                        if progress:
                            progress(f"{name} {technique}", had + len(found), wanted)
                except KeyboardInterrupt:
                    stopped = True
            if failed and len(failed) == len(missing):
                raise GPTError(f"{technique} with {name}: {failed[0]}")
            errors += [f"{name} {technique}: {error}" for error in failed]
            known |= {keys[i]: row for i, row in found.items()}
            verdicts = judged(session, task, {i: known[key] for i, key in enumerate(keys) if key in known}, file, known)
            mine = [
                {**known[key], "question": i, "model": name, "technique": technique}
                | scored(task, known[key], i, verdicts)
                for i, key in enumerate(keys)
                if key in known
            ]
            rows += mine
            if mine:
                settings.append(summarize(name, technique, mine, model.parameters))
    return Evaluation(task, settings, rows, wanted, errors, leaks)


def answered(session, model, task: Task, numbers: Sequence[int], given: Mapping):
    """Answer the questions `numbers`; yields (number, row), and (number, None) for an interrupted one. An error in a
    user's function is raised as it is.
    """
    send, options = sender(session.models, Prompting(), model.name), Prompt.of(text="", model=model.name, **given)
    rows = max(options.samples, options.breadth if options.tree else 1)

    def asking(question: str, form: Form) -> Callable:
        return lambda send, call_user: prompt_with_techniques(
            session.models, Prompting(), question, options, send=send, call_user=call_user, form=form
        )

    work = [asking(task.questions[i], task.forms[i]) for i in numbers]
    for ended in run_batched(work, send, max(1, BATCH // rows)):
        number, done = numbers[ended.number], ended.result
        if isinstance(ended.error, GPTError):
            yield number, {"error": str(ended.error)}
        elif ended.error is not None:
            raise ended.error
        elif done.interrupted or INTERRUPTED in done.notes:
            yield number, None
        else:
            usage = done.usage
            yield (
                number,
                {
                    "answer": done.answer,
                    "text": done.text,
                    "cut": done.finish_reason == "length",
                    "tokens_in": usage.prompt_tokens,
                    "tokens_out": usage.completion_tokens,
                    "seconds": ended.seconds,
                    "cost": usage.cost,
                    "notes": list(done.notes),
                },
            )


def techniques_of(given: Any) -> Mapping[str, Any]:
    """Techniques by name: a mapping of names to options, or a list of flags of %%prompt. Raises GPTError for others."""
    if given is None or isinstance(given, Mapping):
        return TECHNIQUES if given is None else given
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        example = "{'brief': {'system': 'Be brief.'}}"
        raise GPTError(
            f'techniques are a list such as ["direct", "--cot"] or a dict such as {example}, not {given!r:.60}'
        )
    return {text: flags(text) for text in given}


def flags(text: str) -> dict[str, Any]:
    """The options of flags such as "--cot --samples 5 --vote"; none of a word without a flag. Raises GPTError for a
    flag that %%prompt does not have."""
    options: dict[str, Any] = {}
    words = shlex.split(text)
    starts = [n for n, word in enumerate(words) if word.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=False):
        name, values = words[start][2:].replace("-", "_"), words[start + 1 : end]
        if variable := next((value for value in values if value.startswith("$")), None):
            raise GPTError(
                f"techniques: give {{{text!r}: {{{name!r}: …}}}} with the object itself instead of {variable}"
            )
        kind = str(Prompt.model_fields[name].annotation) if name in Prompt.model_fields else ""
        one = " ".join(values)
        if re.fullmatch(r"-?\d+(\.\d+)?", one) and ("int" in kind or "float" in kind):
            options[name] = json.loads(one)
        else:
            options[name] = values if "list" in kind else one or True
    return options


def scored(task: Task, row: Mapping, number: int, verdicts: Mapping[int, bool]) -> dict:
    """The extracted answer or None, and whether it is right; never cached, because `score` may have changed."""
    answer = task.read(row["answer"], row["text"], row["cut"], number)
    if task.judge is not None:
        return {"answer": answer, "right": verdicts.get(number, False)}
    found = {"answer": answer, "right": answer is not None and bool(task.right(answer, number))}
    if task.graded is not None:
        found["score"] = 0.0 if answer is None else task.graded(answer, number)
    return found


def judged(session, task: Task, rows: Mapping[int, Mapping], file: Path, known: dict) -> dict[int, bool]:
    """Whether the judge says of each answer that it says what is expected; its verdicts are kept beside the answers."""
    if task.judge is None:
        return {}
    model, prompts, keys = session.models[task.judge], {}, {}
    for i, row in rows.items():
        if answer := task.read(row["answer"], row["text"], row["cut"], i):
            text = JUDGE.format(question=task.questions[i], expected=task.answers[i], answer=answer)
            origin = fingerprint.of(model, {"judge": text})
            prompts[i], keys[i] = text, hashlib.sha256(origin.encode()).hexdigest()[:24]
    missing = [i for i, key in keys.items() if key not in known]
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        chats = [[{"role": "user", "content": prompts[i]}] for i in batch]
        replies = session.prompts(
            chats, model=model.name, temperature=0.0, max_tokens=16, as_assistant=not getattr(model, "has_chat", True)
        )
        for i, reply in zip(batch, replies, strict=True):
            if not reply.interrupted:
                verdict = extract_answer(reply.text, Form("yes/no")) == "yes"
                known[keys[i]] = {"key": keys[i], "model": model.name, "verdict": verdict, "text": reply.text}
                append(file, known[keys[i]])
    return {i: known[key]["verdict"] for i, key in keys.items() if key in known}


def described(options: Mapping) -> dict:
    """Options as JSON values; a function by its name and a hash of its code."""
    return {name: function_of(value) if callable(value) else value for name, value in options.items()}


def function_of(function: Callable) -> str:
    code = getattr(function, "__code__", None)
    content = (code.co_code + repr(code.co_consts).encode()) if code else repr(function).encode()
    return f"{getattr(function, '__name__', '')} {hashlib.sha256(content).hexdigest()[:12]}"


def path_of(task: Task) -> Path:
    """The file of a task's results: its name and a hash of its questions."""
    digest = hashlib.sha256("\0".join((*task.questions, *task.answers)).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", task.name).strip("-")[:40]
    return store.home() / "evaluations" / f"{name}-{digest}.jsonl"


def read(file: Path) -> dict[str, dict]:
    """The cached results by key, without a line that a killed kernel left incomplete."""
    if not file.exists():
        return {}
    rows = {}
    for line in file.read_text(encoding="utf-8").split("\n"):  # an answer may have another mark of a line's end
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["key"]] = row
    return rows


def append(file: Path, row: dict) -> None:
    """Append a line, after a newline if the last one is incomplete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as out:
        out.seek(0, 2)
        complete = True
        if out.tell():
            out.seek(-1, 2)
            complete = out.read(1) == b"\n"
        out.write((b"" if complete else b"\n") + json.dumps(row, ensure_ascii=False).encode() + b"\n")


def options_of(common: Mapping, given: object) -> dict:
    """The options of a technique. Raises GPTError for those that `gpt.prompt` does not have."""
    if not isinstance(given, Mapping):
        raise GPTError(f"expected a dict of options, such as {{'temperature': 0}}, got {given!r:.40}")
    asked = {**common, **given, "seed": common["seed"]}
    Prompt.of(text="", **asked)
    return asked


def leak(task: Task, technique: str, asked: Mapping) -> str | None:
    """A note where examples of a technique have questions of the task, with their answers."""
    given = asked.get("few_shot")
    shown = {question.strip() for question, _ in pairs_of(given)} if given is not None else ()
    count = sum(question.strip() in shown for question in task.questions)
    return f"{technique}: {count} of the questions are among its examples, with their answers" if count else None


# accuracy and cost


def summarize(model: str, technique: str, rows: Sequence[Mapping], parameters: int | None) -> Setting:
    """The setting of these results; each row has `right`, `answer` (or None), `cut`, `tokens_in`, `tokens_out`,
    `seconds`, `cost`.
    """
    tokens = sum(row["tokens_in"] + row["tokens_out"] for row in rows)
    costs = [row["cost"] for row in rows]
    return Setting(
        model,
        technique,
        len(rows),
        sum(row["right"] for row in rows),
        sum(not row["answer"] for row in rows),
        sum(not row["answer"] and row["cut"] for row in rows),
        sum(row["tokens_in"] for row in rows),
        sum(row["tokens_out"] for row in rows),
        sum(row["seconds"] for row in rows),
        None if None in costs or not costs else sum(costs),
        2.0 * parameters * tokens if parameters else None,
        tuple(row["score"] for row in rows if "score" in row),
    )


def price(settings: Sequence[Setting]) -> tuple[str, list[float]]:
    """The unit of cost, and the cost per question of each setting: dollars if all have a price, FLOPs if all are models
    of this kernel (the same on every machine), else tokens.
    """
    if all(s.cost is not None for s in settings):
        return "dollars a question", [(s.cost or 0.0) / max(1, s.count) for s in settings]
    if all(s.flops is not None for s in settings):
        return "GFLOP a question", [(s.flops or 0.0) / 1e9 / max(1, s.count) for s in settings]
    return "tokens a question", [(s.tokens_in + s.tokens_out) / max(1, s.count) for s in settings]


def front(settings: Sequence[Setting]) -> list[Setting]:
    """The Pareto front of accuracy and cost, cheapest first."""
    costs = price(settings)[1]
    ordered = sorted(range(len(settings)), key=lambda i: (costs[i], -settings[i].accuracy))
    result: list[Setting] = []
    for i in ordered:
        if not result or settings[i].accuracy > result[-1].accuracy:
            result.append(settings[i])
    return result


def recommended(settings: Sequence[Setting]) -> tuple[Setting, Setting]:
    """The most accurate setting (of equals the cheapest), and the cheapest within its interval."""
    costs = dict(zip(settings, price(settings)[1], strict=True))
    best = max(settings, key=lambda s: (s.accuracy, -costs[s]))
    low = min(best.accuracy, best.interval[0])  # rounding at 0%
    return best, min((s for s in settings if s.accuracy >= low), key=lambda s: (costs[s], -s.accuracy))


# the report


def evaluation_report(evaluation) -> Report:
    """Tokens, seconds and dollars are those of one question, on average."""
    task, settings = evaluation.task, evaluation.settings
    title, data = f"{task.name}: {len(task.questions):,} questions", {"view": "evaluation", "task": task.name}
    if not settings:
        return Report(title, [Paragraph("stopped before the first answer: run the cell again to continue")], data)
    compared = words(settings) if len(settings) > 1 else []
    chart = (
        [Chart(pareto_chart(settings, task.measure), f"{task.measure} against {price(settings)[0]}: {compared[0]}")]
        if compared
        else []
    )
    return Report(
        title,
        [
            Table([task.measure if name == "accuracy" else name for name in HEAD], list(map(row_of, settings)), SIDES),
            *(chart if compared else []),
            *(Paragraph(Varies(line)) for line in [*compared, *notes(evaluation)]),
            Paragraph(f"scored by {task.how}", "quiet"),
            examples(evaluation),
            Paragraph("tokens, seconds and dollars are per question; seconds are its share of its batch", "quiet"),
        ],
        data | {"settings": [[s.model, s.technique] for s in settings]},
        {"rows": evaluation.rows, "settings": [vars(s) for s in settings]},
    )


def examples(evaluation) -> Table:
    """The first answers of the best setting beside what was expected."""
    task, best = evaluation.task, evaluation.best
    rows = [row for row in evaluation.rows if (row["model"], row["technique"]) == (best.model, best.technique)]
    return Table(
        ("question", "expected", "answer", "score"),
        [
            (
                brief(task.questions[row["question"]]),
                brief(task.answers[row["question"]]),
                Varies(brief(row["answer"] or "none")),
                Varies(f"{row['score']:.2f}" if "score" in row else "right" if row["right"] else "wrong"),
            )
            for row in rows[:EXAMPLES]
        ],
        "lllr",
    )


def brief(text: str) -> str:
    """A text in one line of at most 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def row_of(s: Setting) -> tuple[Inline, ...]:
    (low, high), each = s.interval, max(1, s.count)
    return (
        s.model,
        s.technique,
        [Varies(s.right), " of ", Varies(s.count)],
        [Varies(100 * s.accuracy, 1), "%"],
        [Varies(100 * low, 1), " to ", Varies(100 * high, 1)],
        Varies(s.tokens_in / each, 0),
        Varies(s.tokens_out / each, 0),
        Varies(s.seconds / each, 2),
        "unpriced" if s.cost is None else Varies(s.cost / each, 6),
        Varies(s.silent),
    )


def words(settings: list[Setting]) -> list[str]:
    """The recommendation."""
    best, cheap = recommended(settings)
    if best.accuracy == 0:
        return ["best: none, for no setting has answered a question right"]
    unit, costs = price(settings)
    cost = dict(zip(settings, costs, strict=True))
    low, high = best.interval
    best_line = (
        f"best: {best.label}, {100 * best.accuracy:.1f}% ({100 * low:.1f} to {100 * high:.1f}), {cost[best]:.4g} {unit}"
    )
    if cheap is best:
        return [best_line, "nothing cheaper is within its interval"]
    share = f", {cost[cheap] / cost[best]:.0%} of the cost" if cost[best] else ""
    return [
        best_line,
        f"cheapest within its interval: {cheap.label}, {100 * cheap.accuracy:.1f}%, {cost[cheap]:.4g} {unit}{share}",
    ]


def notes(evaluation) -> list[str]:
    """What is missing, and what was there before it was asked."""
    silent, cut = (sum(getattr(s, what) for s in evaluation.settings) for what in ("silent", "cut"))
    found = f"{silent:,}, of which {cut:,} stopped at --max-tokens; they count as wrong" if silent else "none"
    lines = [f"replies without a readable answer: {found}"]
    if not evaluation.whole and not evaluation.errors:
        lines.append(
            f"stopped: {len(evaluation.rows):,} of {evaluation.wanted:,} answered; run the cell again to continue"
        )
    if missing := len(evaluation.errors):
        first = evaluation.errors[0]
        lines.append(f"{missing:,} of {evaluation.wanted:,} questions could not be asked; the first: {first}")
    return [*lines, *evaluation.leaks]


def pareto_chart(settings: list[Setting], measure: str = "accuracy") -> Scatter:
    """Each setting at its cost and accuracy with its interval, a line through those that nothing beats."""
    unit, costs = price(settings)
    cost, best = dict(zip(settings, costs, strict=True)), front(settings)
    one_model = len({s.model for s in settings}) == 1

    def group(name: str, some: list[Setting], colour: str, joined: bool = False) -> Group:
        points = [(cost[s], 100 * s.accuracy) for s in some]
        bounds = [
            (min(100 * s.interval[0], y), max(100 * s.interval[1], y)) for s, (_, y) in zip(some, points, strict=True)
        ]
        return Group(
            name,
            points,
            colour,
            [s.technique if one_model else s.label for s in some],
            bounds,
            joined=joined,
            written=True,
        )

    groups = [group("Pareto front", best, charts.ORANGE, True)]
    if beaten := [s for s in settings if s not in best]:
        groups.append(group("beaten", beaten, charts.GREY))
    return Scatter(groups, unit, f"{measure}, %", log=all(value > 0 for value in costs))
