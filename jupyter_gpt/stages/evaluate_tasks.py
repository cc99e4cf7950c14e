"""`%gpt evaluate MODEL --tasks …`: published benchmarks, by EleutherAI's lm-evaluation-harness (extra `[lm-eval]`)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.options import Count, Options, Rank, option
from jupyter_gpt.report.parts import Inline, Paragraph, Table, Varies
from jupyter_gpt.report.report import Report, Shown

NORMAL = 1.96  # standard errors on each side of a 95% interval
HEAD = ("model", "task", "metric", "value", "95% interval", "questions", "tokens in", "out", "seconds", "GFLOP")
SIDES = "lllrrrrrrr"


class EvaluateTasks(Options):
    """published benchmarks by lm-evaluation-harness: accuracy with its interval, and what it cost"""

    magic: ClassVar[str] = "gpt.evaluate_tasks"

    models: list[str] = option(..., "models of this kernel", positional=True)
    tasks: list[str] = option(..., "names of the harness' tasks, such as gsm8k, or task files in YAML", positional=True)
    shots: Rank | None = option(None, "examples before each question (default: as the task says)")
    chat: bool = option(False, "put each question into the model's chat template")
    questions: Count | None = option(None, "the first N of each task only")
    seed: int = option(0, "decides the sampling, where a task samples")
    progress: Callable | None = option(None, "called with (what, done, total)", only="python")


@dataclass(frozen=True)
class Score:
    """A metric of a model on a task. stderr: its standard error, None where the harness has none; tokens, seconds and
    flops are those of the task, flops about 2 x parameters x tokens.
    """

    model: str
    task: str
    metric: str
    value: float
    stderr: float | None
    better: str
    questions: int
    tokens_in: int
    tokens_out: int
    seconds: float
    flops: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval, by the normal approximation."""
        if self.stderr is None:
            return None
        return self.value - NORMAL * self.stderr, self.value + NORMAL * self.stderr


@dataclass(frozen=True)
class TaskScores(Shown):
    """The result. `results` is what the harness returned, by model; `missing` what there is no score of, and why."""

    scores: list[Score]
    results: dict[str, dict]
    missing: list[str] = field(default_factory=list)

    @property
    def table(self):
        """The scores as a DataFrame."""
        import pandas

        return pandas.DataFrame([vars(score) | {"interval": score.interval} for score in self.scores])

    @property
    def report(self) -> Report:
        return scores_report(self.scores, self.missing)


def evaluate_tasks(session, options: EvaluateTasks) -> TaskScores:
    """Each task by itself: ■ keeps those that were finished, and so does a task whose data cannot be had.

    Raises GPTError, one line, for a task that there is not, and where none could be evaluated.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise GPTError("--tasks needs an extra: pip install 'jupyter_gpt[lm-eval]'")
    models = [session.models[name] for name in dict.fromkeys(options.models)]
    for model in models:
        if model.kind == "endpoint" or model.labels:
            raise GPTError(f"{model.name} is no language model of this kernel: --tasks reads probabilities of texts")
        if options.chat and not model.has_chat:
            raise GPTError(f"{model.name} has no chat template: leave --chat out")
    with quiet():
        known = manager(options.tasks)
    scores: list[Score] = []
    results: dict[str, dict] = {model.name: {} for model in models}
    missing: list[str] = []
    pairs = [(model, task) for model in models for task in dict.fromkeys(options.tasks)]
    for number, (model, task) in enumerate(pairs):
        try:
            found, costs = evaluated(model, task, known, options)
        except KeyboardInterrupt:
            rest = ", ".join(f"{model.name} on {label(task)}" for model, task in pairs[number:])
            missing.append(f"stopped before the end of {rest}: run the cell again to continue")
            break
        except GPTError as error:
            missing.append(f"{model.name}: {error}")
            if len(missing) == len(pairs):
                raise
            continue
        join(results[model.name], found)
        scores += scores_of(model, found, costs)
    return TaskScores(scores, results, missing)


def join(results: dict, found: Mapping) -> None:
    """Adds what the harness returned for one more task."""
    for key, value in found.items():
        if isinstance(value, dict) and isinstance(results.get(key), dict):
            results[key] |= value
        else:
            results[key] = value


def manager(tasks: Sequence[str]) -> Any:
    """What finds tasks. Raises GPTError for one that it does not find."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    names = [task for task in tasks if not is_file(task)]
    found = TaskManager(include_defaults=bool(names))
    for name in names:
        if not found.match_tasks([name]):
            raise GPTError(f"lm-evaluation-harness has no task {name}{nearest(name, found.all_tasks)}")
    for file in tasks:
        if is_file(file) and not Path(file).is_file():
            raise GPTError(f"there is no task file {file}")
    return found


def is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def label(task: str) -> str:
    return Path(task).stem if is_file(task) else task


def evaluated(model, task: str, known: Any, options: EvaluateTasks) -> tuple[dict, Mapping]:
    """What the harness returns, and the cost of the task, of a group's by task."""
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]

    from jupyter_gpt.evaluation.harness import KernelModel

    def tell(done: int, total: int) -> None:
        if options.progress:
            options.progress(f"{model.name} {label(task)}", done, total)

    backend = KernelModel(model, options.seed, tell)
    with quiet(), hub_or_cache() as reason:
        try:
            found = simple_evaluate(
                model=backend,
                tasks=[str(Path(task).resolve()) if is_file(task) else task],
                num_fewshot=options.shots,
                limit=options.questions,
                apply_chat_template=options.chat,
                task_manager=known,
                log_samples=False,
            )
        except GPTError:
            raise
        except Exception as error:
            raise GPTError(failure(error, task, reason)) from error
    return dict(found or {}), backend.costs


def failure(error: Exception, task: str, reason: str | None) -> str:
    """Why the harness gave up, in one line."""
    what = f"{label(task)} could not be evaluated"
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    hub = isinstance(error, OSError) or "hub" in type(error).__module__ or type(error).__name__.startswith("Dataset")
    if reason and hub:
        return f"{what}: its data are on the hub, and {reason}"
    return f"{what}: {type(error).__name__}: {said}"


@contextlib.contextmanager
def hub_or_cache() -> Iterator[str | None]:
    """Why the hub cannot be reached, and then its clients ask their caches alone; else they would try for minutes."""
    from datasets import config
    from huggingface_hub import constants

    from jupyter_gpt.data.hub import Unreachable, reach

    reason, places = None, ((config, "HF_HUB_OFFLINE"), (constants, "HF_HUB_OFFLINE"))
    try:
        reach()
    except Unreachable as error:
        reason = str(error)
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places if reason else ():
            setattr(module, name, True)
        yield reason
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and the log of the harness: a notebook would be saved with them."""
    import datasets

    logger, shown = logging.getLogger("lm_eval"), not datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def scores_of(model, found: Mapping, costs: Mapping) -> list[Score]:
    """Each metric of each task, as the harness names them; of groups too, whose cost is that of their tasks."""
    scores = []
    for task, values in found.get("results", {}).items():
        members = found.get("group_subtasks", {}).get(task) or [task]
        spent = [costs[member] for member in members if member in costs]
        tokens_in, tokens_out = sum(c.tokens_in for c in spent), sum(c.tokens_out for c in spent)
        counted = [found.get("n-samples", {}).get(member, {}).get("effective", 0) for member in members]
        for key, value in values.items():
            name, _, kind = key.partition(",")
            if name.endswith("_stderr") or not kind or not isinstance(value, int | float):
                continue
            error = values.get(f"{name}_stderr,{kind}")
            higher = found.get("higher_is_better", {}).get(task, {}).get(name)
            scores.append(
                Score(
                    model.name,
                    task,
                    name if kind == "none" else f"{name} ({kind})",
                    float(value),
                    float(error) if isinstance(error, int | float) and math.isfinite(error) else None,
                    {True: "higher", False: "lower"}.get(higher, ""),
                    sum(counted),
                    tokens_in,
                    tokens_out,
                    sum(c.seconds for c in spent),
                    2.0 * (model.parameters or 0) * (tokens_in + tokens_out),
                )
            )
    return scores


# the report


def scores_report(scores: Sequence[Score], missing: Sequence[str] = ()) -> Report:
    """Tokens, seconds and FLOPs are those of one question, on average."""
    title, notes = "lm-evaluation-harness", [Paragraph(Varies(line)) for line in missing]
    data = {"view": "tasks", "scores": [[s.model, s.task, s.metric] for s in scores]}
    if not scores:
        return Report(title, notes, data)
    return Report(
        title,
        [
            Table(HEAD, [row_of(score) for score in scores], SIDES),
            Paragraph(
                "the interval is 1.96 standard errors on each side; tokens, seconds and GFLOP are per question, "
                "over all its choices",
                "quiet",
            ),
            *notes,
        ],
        data,
        {"scores": [vars(score) for score in scores]},
    )


def row_of(score: Score) -> tuple[Inline, ...]:
    each = max(1, score.questions)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(score.better, "")
    bounds = score.interval
    return (
        score.model,
        score.task,
        f"{score.metric}{arrow}",
        Varies(score.value, 4),
        "–" if bounds is None else [Varies(bounds[0], 4), " to ", Varies(bounds[1], 4)],
        f"{score.questions:,}",
        Varies(score.tokens_in / each, 0),
        Varies(score.tokens_out / each, 0),
        Varies(score.seconds / each, 2),
        Varies(score.flops / 1e9 / each, 2),
    )
