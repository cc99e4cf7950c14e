"""The table of `%gpt runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.events import MEAN, last_of, recent
from jupyter_gpt.runs.run import standing

LOSS = f"loss, {MEAN.removesuffix(' steps')}"
HEADER = ("run", "kind", "status", "steps", LOSS, "validation loss", "tokens", "seconds")


def runs_report(runs: Mapping[str, Any]) -> Report:
    """One row a run: name, kind, status, steps, losses in nats, the step of the last validation, tokens, seconds.

    A run that cannot be read is listed as damaged: the others are still there.
    """
    rows, listed, reached = [], [], {}
    for name in runs:
        try:
            run = runs[name]
        except GPTError:
            rows.append((name, "", "damaged", *[""] * 5))
            listed.append({"name": name})
            continue
        facts = _facts(run.events)
        step = facts["step"] if run.status == "finished" else Varies(facts["step"])
        validated = [] if facts["val_loss"] is None else [" at step ", Varies(facts["val_step"])]
        losses = Varies(facts["loss"]), [Varies(facts["val_loss"]), *validated]
        spent = Varies(facts["tokens"]), Varies(facts["seconds"], 0)
        rows.append((name, run.kind, standing(run), [step, " of ", run.steps], *losses, *spent))
        listed.append({"name": name, "kind": run.kind})
        reached[name] = {"status": run.status, "steps": run.steps, **facts}
    none = Paragraph("No runs yet. Train one with %%pretrain NAME.")
    table = Table(HEADER, rows, "lllrrrrr", wrap=True) if rows else none
    return Report("", [table], {"view": "runs", "runs": listed}, reached)


def _facts(events: Sequence[dict]) -> dict:
    """The newest step, losses, tokens and seconds among a run's events, None where there is none yet."""
    step, evaluation = last_of(events, "step"), last_of(events, "evaluation")
    return {
        "step": step.get("step", 0),
        "loss": recent(events),
        "val_loss": evaluation.get("val_loss"),
        "val_step": evaluation.get("step"),
        "tokens": step.get("tokens"),
        "seconds": step.get("seconds"),
    }
