"""vLLM, by a stand-in that speaks its documented API: served from a cell, and sampling for reinforcement learning."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from helpers import fake_vllm
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.endpoints import EndpointOptions

SMALL = {"max_tokens": 6, "prompts_per_step": 2, "samples": 4, "steps": 3, "eval_every": 3, "lr": 0.01}
PROMPTS = [f"Tale {n}. The old fox" for n in range(4)]


def short(prompt, completion):
    return -float(len(completion))


@pytest.fixture
def tiny(gpt, tiny_model, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_CONFIG", str(gpt.home / "config"))
    return tiny_model(gpt, "tiny")


@pytest.fixture
def engine(gpt, tiny):
    """A stand-in for vLLM on a thread, declared as the endpoint `tiny-vllm`."""
    server = fake_vllm.FakeVLLM(gpt.models.about("tiny").folder, "tiny")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    gpt.models.endpoints.declare(EndpointOptions.of(name="tiny-vllm", base_url=server.url, model="tiny", retries=0))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A `vllm` command in PATH."""
    fake_vllm.command(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_model_is_served_prompted_and_stopped_with_its_workers(gpt, tiny, installed):
    server = gpt.serve("tiny", engine="vllm")
    try:
        assert server.running and gpt.serve("tiny", engine="vllm") is server
        endpoint = gpt.models["tiny-vllm"]
        assert (endpoint.base_url, endpoint.model, endpoint.chat) == (server.url, "tiny", False)
        with pytest.raises(GPTError, match="already serving tiny at http"):
            gpt.serve("tiny", engine="vllm", vllm_args="--max-num-seqs 4")
        worker = int(server.log.read_text().split("worker ")[1])
        assert alive(worker)
    finally:
        assert gpt.serving.stop() == ["vLLM with tiny"]
    assert not server.running and "tiny-vllm" not in gpt.models
    until = time.monotonic() + 60
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def test_vllm_ends_with_a_kernel_that_is_killed(tmp_path, installed):
    code = f"""
import os, pathlib
from jupyter_gpt.server.vllm import VLLM
server = VLLM("tiny", pathlib.Path("nothing"), "tiny-vllm", pathlib.Path({str(tmp_path)!r}) / "log", None, None)
server.wait()
os.kill(os.getpid(), 9)
"""
    path = os.pathsep.join(each for each in sys.path if each)
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    assert ran.returncode == -9
    worker = int((tmp_path / "log").read_text().split("worker ")[1])
    until = time.monotonic() + 60
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def test_what_cannot_be_served_is_one_line(gpt, tiny, installed, monkeypatch):
    with pytest.raises(GPTError, match=r"vLLM ended while it started: ValueError: no GPU \(all it printed"):
        gpt.serve("tiny", engine="vllm", vllm_args="--fail 'no GPU'")
    assert "tiny-vllm" not in gpt.models and gpt.serving.engines == {}
    with fake_vllm.FakeVLLM("here", "x") as taken, pytest.raises(GPTError, match="cannot listen on port"):
        gpt.serve("tiny", engine="vllm", port=taken.server_address[1])
    for given, message in (
        ({"model": "tiny"}, "the kernel serves all of its models"),
        ({"engine": "vllm"}, "needs the model to serve"),
        ({"model": "tiny", "engine": "vllm", "host": "0.0.0.0"}, "takes no --?host"),
        ({"model": "tiny", "engine": "vllm", "vllm_args": "'"}, "cannot be split"),
        ({"model": "nobody", "engine": "vllm"}, "there is no model nobody"),
    ):
        with pytest.raises(GPTError, match=message):
            gpt.serve(**given)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GPTError, match="vLLM is not installed: pip install"):
        gpt.serve("tiny", engine="vllm")


@pytest.mark.parametrize("options", [{"algo": "grpo", "lora": 4}, {"algo": "ppo", "lora": 0, "epochs": 2}])
def test_the_policy_learns_from_what_vllm_samples_with_its_weights_of_each_step(gpt, tiny, engine, options):
    run = gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, rollouts="tiny-vllm", **SMALL, **options)
    assert run.status == "finished"
    paths = [path for path, _ in engine.asked]
    update = ["/pause", "/collective_rpc", "/resume"]
    assert paths == 3 * [*update, "/v1/completions", "/v1/completions"]  # once a step; two prompts each
    steps = [event for event in run.events if event["event"] == "step"]
    # the weights are those of the step: in fp32 both forwards agree to rounding, though the policy moves
    assert all(event["sampler_gap"] < 1e-3 for event in steps)
    assert steps[-1]["kl"] > 10 * steps[0]["kl"] >= 0
    bodies = [body for path, body in engine.asked if path == "/v1/completions"]
    assert len({body["seed"] for body in bodies}) == 6 and all(isinstance(i, int) for i in bodies[0]["prompt"])
    assert not (run.folder / "rollouts").exists()
    again = gpt.rlhf("q", PROMPTS, policy="tiny", reward=short, rollouts="tiny-vllm", **SMALL, **options)
    losses = [[e["loss"] for e in each.events if e["event"] == "step"] for each in (run, again)]
    assert losses[0] == losses[1]


def test_an_engine_that_keeps_its_old_weights_is_found_out(gpt, tiny, engine, monkeypatch):
    def keeps_other_weights(weights_path):
        engine.load()
        for parameter in engine.model.parameters():
            torch.nn.init.normal_(parameter)

    monkeypatch.setattr(engine, "reload_weights", keeps_other_weights)
    with pytest.raises(GPTError, match="tiny-vllm samples from other weights than the policy's"):
        gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, algo="grpo", rollouts="tiny-vllm", **SMALL)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda engine: setattr(engine, "development", False), "cannot take new weights: it is no vLLM in development"),
        (lambda engine: setattr(engine, "reload_weights", None), "endpoint tiny-vllm failed on its side"),
        (lambda engine: setattr(engine, "complete", lambda body: {"choices": []}), "gave fewer completions than the 4"),
        (
            lambda engine: setattr(
                engine, "complete", lambda body: {"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}] * 4}
            ),
            "returns no token ids with log-probabilities",
        ),
    ],
)
def test_a_server_that_cannot_do_it_is_one_line(gpt, tiny, engine, break_it, message):
    break_it(engine)
    with pytest.raises(GPTError, match=message) as caught:
        gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, algo="grpo", rollouts="tiny-vllm", **SMALL)
    assert "\n" not in str(caught.value)


def test_a_dead_endpoint_and_options_that_do_not_go_together(gpt, tiny, engine):
    engine.shutdown(), engine.server_close()
    with pytest.raises(GPTError, match="endpoint tiny-vllm cannot be reached"):
        gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, algo="grpo", rollouts="tiny-vllm", **SMALL)
    with pytest.raises(GPTError, match="tiny is no endpoint"):
        gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, algo="grpo", rollouts="tiny", **SMALL)
    with pytest.raises(GPTError, match="--rollouts serves one device"):
        gpt.rlhf("p", PROMPTS, policy="tiny", reward=short, rollouts="tiny-vllm", devices=2)
    with pytest.raises(GPTError, match="dpo samples nothing"):
        gpt.rlhf("p", PROMPTS, policy="tiny", rankings="r", algo="dpo", rollouts="tiny-vllm")


def test_merged_tensors_are_those_of_the_merged_model(gpt, tiny):
    from jupyter_gpt.nn.lora import lora, merged, merged_tensors

    for options in ({}, {"dora": True}, {"tokens": (3, 5)}):
        adapter = lora(gpt.models["tiny"].module, 4, **options)
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        one_by_one, whole = dict(merged_tensors(adapter)), merged(adapter).state_dict()
        assert one_by_one.keys() == whole.keys()
        assert all(torch.allclose(tensor.float(), whole[name], atol=1e-6) for name, tensor in one_by_one.items())
