"""What an execution left under `.jupyter_gpt`: its models and runs as a table, read from the files alone."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.nn.sizes import short
from jupyter_gpt.runs.events import last_of, read_events
from jupyter_gpt.runs.run import diverged

HEADER = ("run", "status", "steps", "validation loss", "parameters", "seconds")


def summary(home: Path, since: float = 0.0) -> str:
    """The runs and models under `home` that were written at or after `since` (unix seconds), as text."""
    from jupyter_gpt.report.text import table

    runs = [_run(events) for events in _fresh(home.glob("runs/*/events.jsonl"), since)]
    models = [_model(config.parent) for config in _fresh(home.glob("models/*/*config.json"), since)]
    models = list(dict.fromkeys(models))
    parts = []
    if runs:
        parts.append(table(HEADER, runs, "llrrrr"))
    if models:
        parts.append(table(("model", "size", "folder"), models, "lrl"))
    return "\n\n".join(parts) or "no model and no run was made"


def _fresh(paths, since: float) -> list[Path]:
    """Those written since then, by time; a second of grace for file systems with coarse clocks."""
    stamped = sorted((path.stat().st_mtime, path) for path in paths)
    return [path for stamp, path in stamped if stamp >= since - 1 and not path.parent.name.startswith(".")]


def _run(path: Path) -> tuple[str, ...]:
    """A run's line, from its events; one with no end event lost its process."""
    events = read_events(path)
    start, step, evaluation = (last_of(events, kind) for kind in ("start", "step", "evaluation"))
    end = last_of(events[-1:], "end")
    status, planned, loss = end.get("status", "interrupted"), start.get("steps"), evaluation.get("val_loss")
    seconds, parameters = end.get("seconds") or step.get("seconds"), start.get("parameters")
    return (
        path.parent.name,
        f"{status}, diverged" if diverged(events) else status,
        f"{step.get('step', 0):,}" + ("" if planned is None else f" of {planned:,}"),
        "–" if loss is None else f"{loss:.3f} at step {evaluation['step']:,}",
        "–" if parameters is None else short(parameters),
        "–" if seconds is None else f"{seconds:,.1f}",
    )


def _model(folder: Path) -> tuple[str, ...]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return folder.name, f"{size / 1e6:,.1f} MB", str(folder)
