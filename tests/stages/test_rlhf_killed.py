"""PPO whose kernel is killed in the middle of a step: resumed, it ends where one that was never killed ends, bit for
bit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import TESTS

# Each part runs in a process of its own, with the same threads: sums over other threads are other numbers.
PART = """
import os, signal, sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from helpers.tiny import tiny_model
from jupyter_gpt import gpt

def short(prompt, completion):
    return -float(len(completion))

if {part!r} == "resume":
    run = gpt.resume("a", variables={{"short": short}})
else:
    tiny_model(gpt)
    run = gpt.rlhf("a", [f"Tale {{n}}. The old fox" for n in range(6)], policy="tiny", algo="ppo", reward="$short",
                   variables={{"short": short}}, background=True, max_tokens=6, prompts_per_step=2, samples=4, lora=4,
                   steps=12, eval_every=6, checkpoint_every=2)
    while {part!r} == "kill" and run.step < 5:
        time.sleep(0.001)
    if {part!r} == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
run.wait()
assert run.status == "finished", run.status
"""


def in_a_process(home: Path, part: str) -> int:
    """Run PART under `home`; returns its exit status."""
    code = PART.format(tests=str(TESTS), part=part)
    env = {**os.environ, "JUPYTER_GPT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def told(home: Path) -> list[dict]:
    """The events, without their clocks."""
    lines = (home / "runs" / "a" / "events.jsonl").read_text("utf-8").splitlines()
    clocks = ("time", "seconds", "tokens_per_second")
    events = [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]
    return [e for e in events if e["event"] in ("step", "evaluation", "sample", "warning", "table")]


def test_killed_and_resumed_is_bit_identical(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_a_process(whole, "whole") == 0
    assert in_a_process(killed, "kill") == -9
    assert not any(e["event"] == "table" for e in told(killed)), "it had ended before it was killed"
    assert in_a_process(killed, "resume") == 0
    assert told(killed) == told(whole)
    one, two = ((home / "models" / "a" / "adapter_model.safetensors").read_bytes() for home in (whole, killed))
    assert one == two
