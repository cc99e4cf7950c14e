"""Checkpoints: weights, optimiser and position of a run, written whole or not at all.

A checkpoint is a folder `step-0000600/` of safetensors and JSON. It is written under a temporary name and renamed, so a
kill or a full disk in the middle leaves the one before it untouched; the newest two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from jupyter_gpt.errors import GPTError

FORMAT = 1  # raised when what is written changes


def save(folder: Path, step: int, weights: dict, optimizer: dict, position: dict) -> Path:
    """Write `folder/step-N`. `weights` and `optimizer` map names to tensors, `position` is plain JSON.

    Raises GPTError when the disk is full; the earlier checkpoints are then still whole.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step:07d}"
    temporary = folder / f".writing-{step:07d}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file({k: v.detach().contiguous().cpu() for k, v in weights.items()}, temporary / "model.safetensors")
        save_file({k: v.detach().contiguous().cpu() for k, v in optimizer.items()}, temporary / "optimizer.safetensors")
        state = {"format": FORMAT, "step": step, **position}
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except Exception as error:  # safetensors has its own error type for a failed write
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        kept = latest(folder)
        raise GPTError(
            f"the checkpoint of step {step} could not be written ({error}); "
            + (f"the one of step {int(kept.name[5:])} is whole" if kept else "there is none before it")
        ) from error
    for old in sorted(folder.glob("step-*"))[:-2]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, or None."""
    return max(folder.glob("step-*"), default=None)


def load(checkpoint: Path) -> tuple[dict, dict, dict]:
    """`(weights, optimizer, position)` as `save` was given them.

    Raises GPTError when the checkpoint is damaged or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        position = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        if position.get("format") != FORMAT:
            raise GPTError(
                f"checkpoint {checkpoint.name} has format {position.get('format')}, this version reads {FORMAT}: "
                "resume it with the version of jupyter_gpt that wrote it"
            )
        return load_file(checkpoint / "model.safetensors"), load_file(checkpoint / "optimizer.safetensors"), position
    except (OSError, ValueError, SafetensorError) as error:
        raise GPTError(f"checkpoint {checkpoint} is damaged ({error}): without that folder an earlier one is taken, or the start") from error
