"""A kernel that is killed: resumed, its run ends where one that was never killed ends, bit for bit."""

import json
import signal
from pathlib import Path

import pytest

from helpers.killed import die_in_a_checkpoint, die_in_a_step, in_a_process
from jupyter_gpt.runs.run import Run

WEIGHTS = {"sft": "adapter_model.safetensors", "ppo": "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """`uninterrupted(kind)`: the folder of a run that is never killed, made once."""
    homes = tmp_path_factory.mktemp("whole")

    def whole(kind):
        home = homes / kind
        if not home.exists():
            assert in_a_process(home, kind) == 0
        return home

    return whole


def told(home: Path) -> list[dict]:
    """The events, without their clocks."""
    lines = (home / "runs" / "a" / "events.jsonl").read_text("utf-8").splitlines()
    clocks = ("time", "seconds", "tokens_per_second", "mfu")
    events = [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]
    return [e for e in events if e["event"] in ("step", "evaluation", "sample", "warning", "table")]


def ends_as(home: Path, whole: Path, kind: str, steps: int) -> None:
    assert in_a_process(home, kind, resume=True) == 0
    assert told(home) == told(whole) and len([e for e in told(home) if e["event"] == "step"]) == steps
    path = Path("models", "a", WEIGHTS.get(kind, "model.safetensors"))
    assert (home / path).read_bytes() == (whole / path).read_bytes()


@pytest.mark.parametrize(
    ("kind", "after"), [("pretrain", 2), ("pretrain", 14), ("pretrain", 21), ("sft", 20), ("classify", 20), ("ppo", 3)]
)
def test_in_the_middle_of_a_step(tmp_path, uninterrupted, kind, after):
    assert in_a_process(tmp_path / "a", kind, die_in_a_step, after) == -signal.SIGKILL
    run = Run(tmp_path / "a" / "runs" / "a")
    assert run.status == "interrupted" and run.step == after and not (tmp_path / "a" / "models" / "a").exists()
    ends_as(tmp_path / "a", uninterrupted(kind), kind, 6 if kind == "ppo" else 24)


def test_while_a_checkpoint_is_written(tmp_path, uninterrupted):
    """The one before is whole."""
    assert in_a_process(tmp_path / "a", "pretrain", die_in_a_checkpoint, 14) == -signal.SIGKILL
    folder = tmp_path / "a" / "runs" / "a"
    assert (folder / "checkpoints" / ".writing-0000014" / "model.safetensors").exists()
    assert [p.name for p in sorted(folder.glob("checkpoints/step-*"))] == ["step-0000007", "step-0000012"]
    assert Run(folder).step > 14
    ends_as(tmp_path / "a", uninterrupted("pretrain"), "pretrain", 24)
