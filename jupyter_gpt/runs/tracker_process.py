"""The process of a tracker: follows the events of a run and logs what it declares, by accelerate's trackers.

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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.runs.events import Reader, declared

POLL = 0.2  # seconds between two looks at the events
PROJECT = "jupyter_gpt"
BESIDE = ("tokens", "grad_norm", "mfu")  # of a step, which a run tells without declaring them
SAMPLE = ("step", "prompt", "text", "reward")  # what is logged of a sample
NO_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow takes in no name
RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # of the run's process, which accelerate would take for this one's


def started(name: str, folder: Path, config: Mapping[str, Any], step: int) -> Any:
    """The tracker of a run, which has taken `step` steps before. The file `id` has the tracker's own name of the run,
    so that a resumed run goes on there."""
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # accelerate's loggers ask it
    mark = folder / "trackers" / name / "id"
    known = mark.read_text() if mark.exists() else None
    if name == "tensorboard":
        purge = {"purge_step": step + 1} if step else {}
        tracker: Any = tracking.TensorBoardTracker(name, mark.parents[1], **purge)
    elif name == "wandb":
        id = known or secrets.token_hex(4)
        place, mode = os.environ.get("WANDB_DIR", str(mark.parent)), os.environ.get("WANDB_MODE", "offline")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        tracker = tracking.WandBTracker(project, name=folder.name, id=id, resume="allow", dir=place, mode=mode)
    elif name == "mlflow":
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        config = {NO_NAME.sub("_", key): value for key, value in config.items()}
        tracker = tracking.MLflowTracker(PROJECT, run_id=known, run_name=folder.name)
    else:
        own = known or f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"  # a run made anew has curves of its own
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        tracker = tracking.TrackioTracker(project, name=own, resume="allow", embed=False)
    tracker.start()
    if known is None:
        tracker.store_init_configuration(config)
        ids: dict[str, Callable[[], str]] = {
            "tensorboard": lambda: folder.name,
            "wandb": lambda: id,
            "mlflow": lambda: tracker.tracker.info.run_id,
            "trackio": lambda: own,
        }
        mark.write_text(ids[name]())
    return tracker


def log_samples(tracker: Any, samples: list[dict]) -> None:
    """Samples of one step: a table for wandb, a file for MLflow, Markdown for TensorBoard and Trackio."""
    step = samples[-1]["step"]
    if tracker.name == "wandb":
        tracker.log_table("samples", list(SAMPLE), [[one.get(key) for key in SAMPLE] for one in samples], step=step)
        return
    texts = [f"{indented(one['prompt'])}\n\n{indented(one['text'])}" for one in samples]
    if tracker.name == "mlflow":
        import mlflow  # pyright: ignore[reportMissingImports]

        mlflow.log_text("\n\n".join(texts), f"samples/step_{step:07d}.txt")
    else:
        tracker.log({f"samples/{number}": text for number, text in enumerate(texts)}, step=step)


def finish(tracker: Any, status: str) -> None:
    """End the tracker's run as the run itself has ended."""
    if tracker.name == "wandb":
        tracker.tracker.finish(exit_code=0 if status in ("finished", "stopped") else 1)
    elif tracker.name == "mlflow":
        import mlflow  # pyright: ignore[reportMissingImports]

        mlflow.end_run({"finished": "FINISHED", "stopped": "KILLED"}.get(status, "FAILED"))
    else:
        tracker.finish()


def indented(text: str) -> str:
    """A code block of Markdown: trackers show texts as Markdown, which a sample is not."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


def configuration(folder: Path) -> dict[str, Any]:
    """The recipe, flat: what is nested by names with points between."""
    header = store.read_yaml(folder / "recipe.yaml")
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


def names_of(start: Mapping[str, Any]) -> list[str]:
    """What is logged of a step and of an evaluation: the metrics that the run declares, and their intervals."""
    metrics = declared([start])
    bounds = [name for metric in metrics for name in metric.interval or ()]
    return list(dict.fromkeys([*(metric.name for metric in metrics), *bounds, *BESIDE]))


def follow(folder: Path, name: str, seen: int) -> None:
    """Log what the run tells, until its process says how it ended, or is gone. The tracker begins with the run's first
    step, when the recipe is resolved."""
    reader, ended, tracker, names, samples = Reader(folder / "events.jsonl"), [], None, [], []
    threading.Thread(target=lambda: ended.append(sys.stdin.read().strip() or "interrupted"), daemon=True).start()
    while True:
        last = bool(ended)
        reader.read()
        new, seen = reader.events[seen:], max(seen, len(reader.events))
        for event in new:
            kind = event["event"]
            if kind == "start":
                names = names_of(event)
                tracker = tracker or started(name, folder, configuration(folder), event["step"])
            if tracker and samples and (kind != "sample" or samples[-1]["step"] != event["step"]):
                log_samples(tracker, samples)
                samples = []
            if tracker and kind in ("step", "evaluation") and (numbers := numbers_of(event, names)):
                tracker.log(numbers, step=event["step"])
            elif kind == "sample":
                samples.append(event)
        if last:
            break
        time.sleep(POLL)
    if tracker and samples:
        log_samples(tracker, samples)
    if tracker:
        finish(tracker, ended[0])


def main() -> None:
    folder, name, seen = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for variable in RANK:
        os.environ.pop(variable, None)
    try:
        (folder / "trackers" / name).mkdir(parents=True, exist_ok=True)
        follow(folder, name, seen)
    except Exception as error:
        import traceback

        traceback.print_exc()
        lines = str(error).strip().splitlines()
        print(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
