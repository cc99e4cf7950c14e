"""Finetuning whose kernel is killed: resumed, it ends where one that was never killed ends, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import TESTS

# Each part runs in a process of its own, with the same threads: sums over other threads are other numbers.
PART = """
import os, signal, sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from helpers.tiny import tiny_model
from jupyter_gpt import gpt
from jupyter_gpt.runs.events import read_events

if {part!r} == "resume":
    run = gpt.resume("a")
else:
    tiny_model(gpt)
    options = {{"steps": 300, "checkpoint_every": 20, "background": True, "eval_every": 100, "sample_every": 100}}
    if {kind!r} == "sft":
        rows = [(f"How many saw {{n}}?", f"{{n}} small birds.") for n in range(60)]
        options |= dict(lora=4, lora_dropout=0.2, context=64, batch_tokens=64, answer_tokens=4)
        run = gpt.sft("a", rows, "tiny", **options)
    else:
        rows = [(f"{{n}} {{word}}", word[0]) for n in range(20) for word in ("birds", "foxes", "hens")]
        run = gpt.classify("a", rows, "tiny", batch=8, **options)
    while {part!r} == "kill" and sum(e["event"] == "step" for e in read_events(run.folder / "events.jsonl")) < 5:
        time.sleep(0.001)
    if {part!r} == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
run.wait()
assert run.status == "finished", run.status
"""


def in_a_process(home: Path, kind: str, part: str) -> int:
    """Run PART under `home`; returns its exit status."""
    code = PART.format(tests=str(TESTS), kind=kind, part=part)
    env = {**os.environ, "JUPYTER_GPT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def told(home: Path) -> list[dict]:
    """The events, without their clocks."""
    lines = (home / "runs" / "a" / "events.jsonl").read_text("utf-8").splitlines()
    clocks = ("time", "seconds", "tokens_per_second", "mfu")
    events = [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]
    return [e for e in events if e["event"] in ("step", "evaluation", "sample")]


@pytest.mark.parametrize("kind, weights", [("sft", "adapter_model.safetensors"), ("classify", "model.safetensors")])
def test_killed_and_resumed_is_bit_identical(tmp_path, kind, weights):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_a_process(whole, kind, "whole") == 0
    assert in_a_process(killed, kind, "kill") == -9
    reached = [e["step"] for e in told(killed) if e["event"] == "step"][-1]
    assert 5 <= reached < 300 and not (killed / "models" / "a").exists()
    assert in_a_process(killed, kind, "resume") == 0
    assert told(killed) == told(whole) and len([e for e in told(whole) if e["event"] == "step"]) == 300
    one, two = ((home / "models" / "a" / weights).read_bytes() for home in (whole, killed))
    assert one == two
