"""Checkpoints: weights, optimiser and position of a run, written whole or not at all.

A checkpoint is a folder `step-0000600/` of safetensors and JSON. It is written under a temporary name and renamed, so a
kill or a full disk in the middle leaves the one before it untouched; `retention.py` says which stay. A thread writes it
while the training goes on: the training waits only until its state is copied to the host's memory.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Container, Mapping
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices
from jupyter_gpt.runs.retention import TRAINING, Retention

FORMAT = 1  # raised when what is written changes
LEAST = 60.0  # seconds between two checkpoints of a run that does not count them in steps
PAUSE_SHARE, WRITING_SHARE = 0.01, 0.1  # of the time between two, at most: training paused, a thread writing


def save(
    folder: Path,
    step: int,
    weights: dict,
    optimizer: dict,
    position: dict,
    newest: int = TRAINING,
    pinned: Container[int] = (),
) -> Path:
    """Write `folder/step-N`. `weights` and `optimizer` map names to tensors, `position` is plain JSON. Of the earlier
    ones the `newest` stay, this one among them, and those of the steps that are `pinned`.

    Raises GPTError when the disk is full; the earlier checkpoints are then still whole.
    """
    from safetensors.torch import save_file

    target = at(folder, step)
    for cut_short in folder.glob(".writing-*"):  # by a kill
        shutil.rmtree(cut_short, ignore_errors=True)
    temporary = folder / f".writing-{step:07d}"
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
            + (f"the one of step {step_of(kept)} is whole" if kept else "there is none before it")
        ) from error
    prune(folder, newest, pinned)
    return target


def steps(folder: Path) -> list[int]:
    """The steps of the whole checkpoints in `folder`, oldest first."""
    return sorted(step_of(path) for path in folder.glob("step-*"))


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:07d}"


def prune(folder: Path, newest: int, pinned: Container[int] = ()) -> None:
    """Remove all but the `newest` and those of the steps that are `pinned`."""
    there = steps(folder)
    for step in there[: max(0, len(there) - newest)]:
        if step not in pinned:
            remove(folder, step)


def remove(folder: Path, step: int) -> None:
    shutil.rmtree(at(folder, step))


class Background:
    """Writes the checkpoints of one run on a thread, one at a time; `folder` is where they lie."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.retention = Retention(None, 0, 0)  # of the run, once that is known
        self.newest: int | None = None  # the step of the last one that was begun
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.written: list[int] = []  # steps whose checkpoints are whole and not yet reported
        self.begun, self.paused, self.writing = time.monotonic(), 0.0, 0.0  # when the last one was begun; what it cost

    def save(self, step: int, weights: dict, optimizer: dict, position: dict) -> None:
        """As `checkpoint.save`, returning when the tensors have been copied; waits for the one before.

        Where the host has no memory for the copy it returns when all is written. Raises the GPTError of the one before.
        """
        began, self.newest = time.monotonic(), step
        self.join()
        self.raise_error()
        size = sum(v.numel() * v.element_size() for tensors in (weights, optimizer) for v in tensors.values())
        room = devices.free("cpu")
        if room is None or size < room / 2:
            weights, optimizer = (
                {name: v.detach().to("cpu", copy=True) for name, v in tensors.items()}
                for tensors in (weights, optimizer)
            )
            self.thread = threading.Thread(
                target=self.write, args=(step, weights, optimizer, position), name="jupyter_gpt-checkpoint", daemon=True
            )
            self.thread.start()
        else:
            self.write(step, weights, optimizer, position)
            self.raise_error()
        self.begun = time.monotonic()
        self.paused = self.begun - began

    def write(self, *state) -> None:
        """The work of the thread."""
        began = time.monotonic()
        try:
            save(self.folder, *state, newest=self.retention.newest, pinned=self.retention.pinned)
            self.written.append(state[0])
        except BaseException as error:  # raised again by `raise_error`
            self.error = error
        self.writing = time.monotonic() - began

    @property
    def due(self) -> bool:
        """Whether it is time for another: none is being written, and the last one cost its share of the time since."""
        wait = max(LEAST, self.paused / PAUSE_SHARE, self.writing / WRITING_SHARE)
        return not (self.thread and self.thread.is_alive()) and time.monotonic() - self.begun > wait

    def has(self, step: int) -> bool:
        """Whether there is one of that step, or it is being written."""
        return step == self.newest or at(self.folder, step).exists()

    def clean(self) -> None:
        """After the end of the run: remove what need not stay."""
        self.join()
        prune(self.folder, self.retention.after, self.retention.pinned)
        if not steps(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def join(self) -> None:
        """Until nothing is being written."""
        if self.thread is not None:
            self.thread.join()

    def check(self) -> list[int]:
        """The steps whose checkpoints were completed since the last call. Raises the error of one that failed."""
        self.raise_error()
        found, self.written = self.written, []
        return found

    def raise_error(self) -> None:
        """Once, what kept a checkpoint from being written."""
        error, self.error = self.error, None
        if error is not None:
            raise error


def restore(folder: Path, modules: Mapping, optimizers) -> dict:
    """Set what is trained of `modules`, and `optimizers`, to a checkpoint; its position, the `step` in it.

    What is not trained is on disk already, as the model that the run began with: the checkpoint of an adapter is small.
    """
    import torch

    from jupyter_gpt.nn.modules import piece, trained_by_name

    weights, optimizer, position = load(folder)
    with torch.no_grad():
        for name, parameter in trained_by_name(modules).items():
            parameter.copy_(piece(weights[name], parameter))
    optimizers.load(optimizer)
    return position


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, or None."""
    return max(folder.glob("step-*"), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint; -1 of none."""
    return int(checkpoint.name[5:]) if checkpoint else -1


def load(checkpoint: Path) -> tuple[dict, dict, dict]:
    """`(weights, optimizer, position)` as `save` was given them.

    Raises GPTError when the checkpoint is damaged or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        position = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        if not isinstance(position, dict):
            raise ValueError("its state.json holds no object")
        if position.get("format") != FORMAT:
            raise GPTError(
                f"checkpoint {checkpoint.name} has format {position.get('format')}, this version reads {FORMAT}: "
                "resume it with the version of jupyter_gpt that wrote it"
            )
        return load_file(checkpoint / "model.safetensors"), load_file(checkpoint / "optimizer.safetensors"), position
    except (OSError, ValueError, RecursionError, MemoryError, SafetensorError) as error:
        raise GPTError(
            f"checkpoint {checkpoint} is damaged ({error}): without that folder an earlier one is taken, or the start"
        ) from error
