"""A kernel killed while a checkpoint is being written: the one before is whole, and the run ends as if never killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import TESTS
from jupyter_gpt.runs.run import Run

# Each part runs in a process of its own, with the same threads: sums over other threads are other numbers.
PART = """
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import safetensors.torch
from helpers.tiny import DOCUMENTS, TINY
from jupyter_gpt import gpt

real = safetensors.torch.save_file

def stuck(tensors, path, *rest, **options):
    real(tensors, path, *rest, **options)
    if {part!r} == "kill" and ".writing-0000014" in str(path):  # its weights are there, its optimizer is not
        (Path({home!r}) / "written").touch()
        time.sleep(1000)

safetensors.torch.save_file = stuck
if {part!r} == "resume":
    gpt.resume("k")
else:
    options = {{**TINY, "steps": 40, "checkpoint_every": 7}}
    gpt.pretrain("k", {{"$docs": 1.0}}, variables={{"docs": DOCUMENTS}}, **options)
"""


def start(home: Path, part: str) -> subprocess.Popen:
    code = PART.format(tests=str(TESTS), home=str(home), part=part)
    env = {**os.environ, "JUPYTER_GPT_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)


def test_killed_while_a_checkpoint_is_written(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for home in (whole, killed):
        home.mkdir()
    uninterrupted, process = start(whole, "whole"), start(killed, "kill")
    while process.poll() is None and not (killed / "written").exists():
        time.sleep(0.01)
    time.sleep(0.3)  # the training goes on meanwhile, up to the checkpoint that waits for this one
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9, process.stderr.read()
    assert uninterrupted.wait() == 0, uninterrupted.stderr.read()
    checkpoints = killed / "runs" / "k" / "checkpoints"
    assert (checkpoints / ".writing-0000014" / "model.safetensors").exists()
    assert [p.name for p in sorted(checkpoints.glob("step-*"))] == ["step-0000000", "step-0000007"]
    assert Run(killed / "runs" / "k").step > 14
    resumed = start(killed, "resume")
    assert resumed.wait() == 0, resumed.stderr.read()
    mine, theirs = ((h / "models" / "k" / "model.safetensors").read_bytes() for h in (killed, whole))
    assert mine == theirs
