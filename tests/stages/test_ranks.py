"""Runs on two devices, from the cell to the model: stopped, killed, resumed on as many and on one."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from helpers import rank_runs
from helpers.processes import of_folder, wait_until
from helpers.stopping import hold_at
from helpers.tiny import tiny_run
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.control import FLAGS, RanksControl
from jupyter_gpt.runs.events import Ready, Step
from jupyter_gpt.runs.launchers import launcher

LONG = {"steps": 60, "checkpoint_every": 5, "dtype": "float32", "sample_every": 1000, "eval_every": 1000}


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def losses(run) -> list[float]:
    return [event["loss"] for event in run.events if event["event"] == "step"]


def test_stopped_killed_and_resumed_on_two_devices_and_on_one(gpt, monkeypatch):
    """Ends as a run does that was on one device from the beginning, and never stopped."""
    hold_at(monkeypatch, 3)
    run = tiny_run(gpt, "two", devices=2, background=True, **LONG)
    wait_until(lambda: run.step == 3)
    run.stop()
    run.wait()
    start = next(event for event in run.events if event["event"] == "start")
    assert (start["ranks"], start["shard"]) == (2, False) and start["sent"] > 4 * start["parameters"] / 2
    assert run.status == "stopped" and run.step == 3
    assert {"evaluation", "sample", "checkpoint"} <= {event["event"] for event in run.events[-6:]}
    hold_at(monkeypatch, 9)
    run = gpt.resume("two", devices=2, shard=True, background=True)
    wait_until(lambda: run.step == 9)
    ranks = [each for each in of_folder(run.folder) if "torch.distributed.run" not in each.cmdline()]
    assert len(ranks) == 2
    os.kill(ranks[1].pid, signal.SIGKILL)
    with pytest.raises(GPTError, match=r"rank 1 was killed by SIGKILL, most .* out\. %gpt resume"):
        run.wait()
    wait_until(lambda: not of_folder(run.folder))
    assert run.status == "interrupted"
    finished, whole = gpt.resume("two"), tiny_run(gpt, "one", **LONG)
    assert finished.status == "finished" and losses(finished) == pytest.approx(losses(whole), abs=1e-5)
    for one, two in zip(*(gpt.models[name].module.parameters() for name in ("one", "two")), strict=True):
        assert torch.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 4, "on": "slurm", "prompts_per_step": 3}, "--prompts-per-step 3 is less than the 4 devices"),
        ({"devices": 2, "rollout_dtype": "bfloat16"}, "--rollout-dtype samples on one device"),
        ({"devices": 2, "shard": True}, "--shard is for pretraining and supervised finetuning"),
        ({"devices": 2, "algo": SimpleNamespace(METRICS=[], step=print)}, r"--algo \$SimpleNamespace: an algorithm of"),
    ],
)
def test_what_is_not_for_several_devices_is_refused_before_a_process_starts(gpt, monkeypatch, options, message):
    rank_runs.fox(gpt)
    monkeypatch.setattr(launcher.launcher("processes"), "start", lambda launch: pytest.fail("a process started"))
    with pytest.raises(GPTError, match=message):
        gpt.rlhf("no", rank_runs.PROMPTS, reward=lambda prompt, text: 1.0, **{**rank_runs.RL, "algo": "grpo"} | options)
    with pytest.raises(GPTError, match="--shard is for pretraining and supervised finetuning"):
        gpt.reward("no", base="fox", rankings="taste", devices=2, shard=True)
    with pytest.raises(GPTError, match="--shard divides a model among devices: give --devices 2 or more"):
        tiny_run(gpt, "no", steps=3, shard=True)
    assert "no" not in gpt.runs


def test_a_nameless_function_rewards_on_two_devices(gpt):
    rank_runs.fox(gpt)
    longer = 0.01
    given = {**rank_runs.RL, **rank_runs.GRPO, **rank_runs.EVERY}
    run = gpt.rlhf("two", rank_runs.PROMPTS, reward=lambda prompt, text: longer * len(text), devices=2, **given)
    assert run.status == "finished" and run.recipe["reward"] == ["$reward"]


def test_the_first_rank_stops_the_others_while_it_evaluates(tmp_path):
    """They wait for its word before the next step; before the first and after the last it has none to tell."""
    told = []
    ranks = SimpleNamespace(rank=0, shard=False, joined=False, told=lambda words: told.append(words) or words)
    run = SimpleNamespace(steps=9, **{name: threading.Event() for name in FLAGS})
    control = RanksControl(tmp_path, ranks)
    control.look(run, None)
    ranks.joined = True
    control.look(run, Ready())
    assert told == [[False] * 4]
    control.asked.stopping.set()
    control.look(run, None)  # in a step
    assert len(told) == 1 and not run.stopping.is_set()
    control.look(run, Step(step=1, values={}, tokens=1, seconds=1.0, tokens_per_second=1.0))
    control.look(run, None)  # in an evaluation
    assert told[1:] == [[True, False, False, False]] and run.stopping.is_set()
    control.asked.skipping.set()
    control.look(run, None)  # in the last evaluation, alone
    assert len(told) == 2 and run.skipping.is_set()
