"""The process of a tracker: follows the events of a run and logs what it declares.

    python -m jupyter_gpt.runs.tracker_process RUN_FOLDER NAME EVENTS_SEEN

Declared metrics are logged by their names, samples as text, the recipe as the configuration. It logs where its library
does by default, on this machine: TensorBoard's and wandb's files in the folder of the run, MLflow's and Trackio's where
those keep them. Their own environment variables say otherwise, as WANDB_MODE=online or MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jupyter_gpt.runs.events import Reader, declared

POLL = 0.2  # seconds between two looks at the events
PROJECT = "jupyter_gpt"
BESIDE = ("tokens", "grad_norm", "mfu")  # of a step, which a run tells without declaring them
LONGEST = 500  # characters of a value of the configuration, for MLflow
NO_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow takes in no name
BATCH = 900  # metrics that MLflow takes at once, at most 1,000


class Run(NamedTuple):
    """The run as its tracker sees it. folder: where the tracker may keep files.  step: the last one that was taken
    before, 0 of a new run."""

    name: str
    folder: Path
    config: dict[str, Any]
    step: int

    @property
    def mark(self) -> Path:
        """The file with the tracker's own name of the run, so that a resumed run goes on there."""
        return self.folder / "id"


class Values(NamedTuple):
    step: int
    time: float  # seconds since the epoch
    numbers: dict[str, float]


class Text(NamedTuple):
    step: int
    prompt: str
    text: str
    reward: float | None


class Sink(Protocol):
    """Where a tracker writes."""

    def log(self, values: list[Values]) -> None: ...
    def texts(self, texts: list[Text]) -> None: ...
    def end(self, status: str) -> None: ...


class TensorBoard:
    """Event files in `trackers/tensorboard`: `tensorboard --logdir .jupyter_gpt/runs` shows all runs."""

    def __init__(self, run: Run):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(run.folder, purge_step=run.step + 1 if run.step else None)
        table = "\n".join(f"| {key} | {value} |" for key, value in run.config.items())
        self.writer.add_text("recipe", f"| option | value |\n|---|---|\n{table}", run.step)

    def log(self, values: list[Values]) -> None:
        for step, when, numbers in values:
            for name, number in numbers.items():
                self.writer.add_scalar(name, number, step, when)
        self.writer.flush()

    def texts(self, texts: list[Text]) -> None:
        for number, one in enumerate(texts):
            self.writer.add_text(f"samples/{number}", f"{indented(one.prompt)}\n\n{indented(one.text)}", one.step)
        self.writer.flush()

    def end(self, status: str) -> None:
        self.writer.close()


class WandB:
    """Files in `trackers/wandb`, for `wandb sync`, unless WANDB_MODE=online."""

    def __init__(self, run: Run):
        import wandb  # pyright: ignore[reportMissingImports]

        self.wandb = wandb
        id = run.mark.read_text() if run.mark.exists() else secrets.token_hex(4)
        run.mark.write_text(id)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=id,
            resume="allow",
            config=run.config,
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            mode=os.environ.get("WANDB_MODE", "offline"),  # pyright: ignore
        )

    def log(self, values: list[Values]) -> None:
        for step, _, numbers in values:
            self.run.log(numbers, step=step)

    def texts(self, texts: list[Text]) -> None:
        table = self.wandb.Table(columns=list(Text._fields), data=[list(one) for one in texts])
        self.run.log({"samples": table}, step=texts[-1].step)

    def end(self, status: str) -> None:
        self.run.finish(exit_code=0 if status in ("finished", "stopped") else 1)


class MLflow:
    """MLflow's store on this machine, which `mlflow ui` in the notebook's folder shows, unless MLFLOW_TRACKING_URI."""

    def __init__(self, run: Run):
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.client, self.metric = MlflowClient(), Metric
        if run.mark.exists():
            self.id = run.mark.read_text()
            self.client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        run.mark.write_text(self.id)
        for key, value in run.config.items():
            self.client.log_param(self.id, NO_NAME.sub("_", key), str(value)[:LONGEST])

    def log(self, values: list[Values]) -> None:
        rows = [
            self.metric(name, number, int(1000 * when), step)
            for step, when, numbers in values
            for name, number in numbers.items()
        ]
        for first in range(0, len(rows), BATCH):
            self.client.log_batch(self.id, metrics=rows[first : first + BATCH])

    def texts(self, texts: list[Text]) -> None:
        lines = [f"{one.prompt}\n{one.text}" + ("" if one.reward is None else f"\n[{one.reward}]") for one in texts]
        self.client.log_text(self.id, "\n\n".join(lines), f"samples/step_{texts[-1].step:07d}.txt")

    def end(self, status: str) -> None:
        ends = {"finished": "FINISHED", "stopped": "KILLED"}
        self.client.set_terminated(self.id, ends.get(status, "FAILED"))


class Trackio:
    """Trackio's database on this machine, which `trackio show` shows, unless TRACKIO_SPACE_ID."""

    def __init__(self, run: Run):
        import trackio  # pyright: ignore[reportMissingImports]

        self.trackio = trackio
        known = run.mark.read_text() if run.mark.exists() else None
        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=known or f"{run.name}-{time.strftime('%Y%m%d-%H%M%S')}",  # a run made anew has curves of its own
            resume="allow",
            config=run.config,
            embed=False,
        )
        run.mark.write_text(str(self.run.name))

    def log(self, values: list[Values]) -> None:
        for step, _, numbers in values:
            self.run.log(dict(numbers), step=step)

    def texts(self, texts: list[Text]) -> None:
        import pandas

        table = self.trackio.Table(dataframe=pandas.DataFrame(texts))
        self.run.log({"samples": table}, step=texts[-1].step)

    def end(self, status: str) -> None:
        self.run.finish()


SINKS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


def indented(text: str) -> str:
    """A code block of Markdown: TensorBoard shows texts as Markdown, which a sample is not."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


def configuration(folder: Path) -> dict[str, Any]:
    """The recipe, flat: what is nested by names with points between."""
    import yaml

    header = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    return {"stage": header["kind"], **flat(header["recipe"])}


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{key}.")
        elif value is not None:
            found[f"{above}{key}"] = value if isinstance(value, bool | int | float) else str(value)
    return found


def numbers_of(event: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Those of an event's values that are finite numbers."""
    found = {name: event.get(name) for name in names}
    return {name: float(n) for name, n in found.items() if isinstance(n, bool | int | float) and math.isfinite(n)}


class Feed:
    """Events of a run on their way to a tracker, those that belong together in one call."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.sink: Sink | None = None
        self.names: list[str] = []
        self.values: list[Values] = []
        self.samples: list[Text] = []

    def take(self, event: Mapping[str, Any]) -> None:
        """An event; the tracker begins with the run's first step, when the recipe is resolved."""
        kind = event["event"]
        if kind == "start":
            self.begin(event)
        elif kind in ("step", "evaluation"):
            if numbers := numbers_of(event, self.names):
                self.values.append(Values(event["step"], event.get("time") or time.time(), numbers))
        elif kind == "sample":
            if self.samples and self.samples[-1].step != event["step"]:
                self.flush()
            self.samples.append(Text(event["step"], event["prompt"], event["text"], event.get("reward")))

    def begin(self, event: Mapping[str, Any]) -> None:
        metrics = declared([event])
        bounds = [name for metric in metrics for name in metric.interval or ()]
        self.names = list(dict.fromkeys([*(metric.name for metric in metrics), *bounds, *BESIDE]))
        if self.sink is None:
            own = self.folder / "trackers" / self.name
            own.mkdir(parents=True, exist_ok=True)
            self.sink = SINKS[self.name](Run(self.folder.name, own, configuration(self.folder), event["step"]))

    def flush(self) -> None:
        values, self.values, samples, self.samples = self.values, [], self.samples, []
        if self.sink is not None and values:
            self.sink.log(values)
        if self.sink is not None and samples:
            self.sink.texts(samples)


def follow(folder: Path, name: str, seen: int) -> None:
    """Log what the run tells, until its process says how it ended, or is gone."""
    reader, feed, ended = Reader(folder / "events.jsonl"), Feed(folder, name), []
    threading.Thread(target=lambda: ended.append(sys.stdin.read().strip() or "interrupted"), daemon=True).start()
    while True:
        last = bool(ended)
        reader.read()
        new, seen = reader.events[seen:], max(seen, len(reader.events))
        for event in new:
            feed.take(event)
        if last or not any(event["event"] == "sample" for event in new):  # further samples of a step may follow
            feed.flush()
        if last:
            break
        time.sleep(POLL)
    if feed.sink is not None:
        feed.sink.end(ended[0])


def main() -> None:
    folder, name, seen = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        follow(folder, name, seen)
    except Exception as error:
        import traceback

        traceback.print_exc()
        lines = str(error).strip().splitlines()
        print(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
