"""Checkpoints written beside the training: what they hold, one at a time, and what happens where one cannot be
written.
"""

import threading
import time

import pytest
import safetensors.torch
import torch

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as memory
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.checkpoint import Background


class Disk:
    """A disk that takes what is written to it only when `go` is set; `writing` counts who writes at once."""

    def __init__(self):
        self.go, self.begun, self.writing, self.most = threading.Event(), threading.Event(), 0, 0
        self.real = safetensors.torch.save_file

    def save_file(self, tensors, path, *rest):
        self.writing += 1
        self.most = max(self.most, self.writing)
        self.begun.set()
        assert self.go.wait(30)
        self.real(tensors, path, *rest)
        self.writing -= 1


@pytest.fixture
def disk(monkeypatch):
    found = Disk()
    monkeypatch.setattr(safetensors.torch, "save_file", found.save_file)
    return found


def state(value: float) -> tuple[dict, dict, dict]:
    return {"w": torch.full((3,), value)}, {"m": torch.full((2, 2), value)}, {"seconds": value}


def test_what_is_written_is_the_state_it_was_given_though_training_went_on(tmp_path, disk):
    background, now = Background(tmp_path), state(1.0)
    background.save(1, *now)
    for tensors in now[:2]:
        for tensor in tensors.values():
            tensor.fill_(2.0)  # the next step, in place
    assert checkpoint.latest(tmp_path) is None and background.check() == []
    disk.go.set()
    background.join()
    assert background.check() == [1] and background.check() == []
    weights, optimizer, position = checkpoint.load(checkpoint.latest(tmp_path))
    assert torch.equal(weights["w"], torch.ones(3)) and torch.equal(optimizer["m"], torch.ones(2, 2))
    assert (position["step"], position["seconds"]) == (1, 1.0)


def test_the_next_waits_for_the_one_before(tmp_path, disk, monkeypatch):
    def join(background):
        threading.Timer(0.3, disk.go.set).start()
        real(background)

    real = Background.join
    background = Background(tmp_path)
    background.save(1, *state(1.0))
    assert disk.begun.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(Background, "join", join)
        background.save(2, *state(2.0))
    assert (tmp_path / "step-0000001").exists() and background.paused > 0.2
    background.join()
    assert background.check() == [1, 2] and disk.most == 1


def test_where_memory_is_short_it_is_written_before_training_goes_on(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 50)
    background = Background(tmp_path)
    disk.go.set()
    background.save(1, *state(1.0))
    assert checkpoint.latest(tmp_path).name == "step-0000001" and background.check() == [1]


def test_one_that_fails_is_told_once_and_the_one_before_stays(tmp_path, disk, monkeypatch):
    background = Background(tmp_path)
    disk.go.set()
    background.save(1, *state(1.0))
    background.join()

    def full(*rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    background.save(2, *state(2.0))
    background.join()
    with pytest.raises(GPTError, match=r"checkpoint of step 2 could not be written .*step 1 is whole"):
        background.check()
    assert background.check() == [1] and [p.name for p in tmp_path.iterdir()] == ["step-0000001"]


def test_what_a_kill_cut_short_is_swept_by_the_next(tmp_path):
    (tmp_path / ".writing-0000001").mkdir()
    (tmp_path / ".writing-0000001" / "model.safetensors").write_bytes(b"half")
    checkpoint.save(tmp_path, 2, *state(2.0))
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000002"]


@pytest.mark.parametrize(("paused", "writing", "wait"), [(0.01, 0.1, 60), (2.0, 8.0, 200), (0.5, 30.0, 300)])
def test_the_time_between_two_is_at_least_a_minute_and_a_hundred_times_the_pause(
    tmp_path, monkeypatch, paused, writing, wait
):
    background, now = Background(tmp_path), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    background.begun, background.paused, background.writing = now[0], paused, writing
    for after, due in ((wait - 1, False), (wait + 1, True)):
        now[0] = 1000.0 + after
        assert background.due == due
