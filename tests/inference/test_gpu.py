"""What only a GPU can tell: real CUDA graphs, its attention kernels, its memory. Elsewhere these are skipped, and
`test_graphs.py` and `test_devices.py` stand in."""

import warnings

import pytest
import torch

from helpers.decoding import STOP, ids_of, run
from helpers.shapes import build, lora, random_prompts
from jupyter_gpt.inference import forward
from jupyter_gpt.inference.sampling import Request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
DEVICE = "cuda"


@pytest.fixture
def recorded(monkeypatch):
    """The sizes of the graphs that were recorded; a recording that fails is an error."""
    sizes, record = [], forward.GraphedSteps.capture
    monkeypatch.setattr(forward, "COLUMNS", 64)
    monkeypatch.setattr(forward.GraphedSteps, "capture", lambda steps, size: sizes.append(size) or record(steps, size))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="decoding without CUDA graphs")
        yield sizes


def plain(module, requests, monkeypatch):
    """The same by plain steps."""
    with monkeypatch.context() as patch:
        patch.setattr(forward, "Decoder", lambda module, lean: lean)
        return {key: ids_of(tokens) for key, tokens in run(module, requests).items()}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "adapted"])
def test_graphs_say_what_plain_steps_and_generate_say(kind, recorded, monkeypatch):
    module = (lora(build("llama")) if kind == "adapted" else build(kind)).to(DEVICE)
    prompts = random_prompts(20)
    asked = [Request(p, max_tokens=20 + 2 * n, temperature=0, stop_ids=STOP) for n, p in enumerate(prompts)]
    said = {key: ids_of(tokens) for key, tokens in run(module, asked).items()}
    assert len({rows for rows, _ in recorded}) > 1 and len({columns for _, columns in recorded}) > 1
    assert said == plain(module, asked, monkeypatch)
    for number, prompt in enumerate(prompts[:6]):
        ids = torch.tensor([prompt], device=DEVICE)
        out = module.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20 + 2 * number,
            eos_token_id=sorted(STOP),
            pad_token_id=0,
        )
        assert said[number, 0] == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_bf16_log_probabilities_are_those_of_one_forward(kind, recorded):
    module = build(kind).bfloat16().to(DEVICE)
    prompts = random_prompts(9)  # of mixed length: padded, so every kernel gets a mask
    said = run(module, [Request(p, samples=3, max_tokens=24, seed=n) for n, p in enumerate(prompts)])
    for (number, _), tokens in said.items():
        ids = torch.tensor([[*prompts[number], *ids_of(tokens)]], device=DEVICE)
        full = module(ids).logits[0].float().log_softmax(-1)[len(prompts[number]) - 1 :]
        expected = [full[place, token.id].item() for place, token in enumerate(tokens)]
        assert [token.logprob for token in tokens] == pytest.approx(expected, abs=0.25)
    assert recorded


def test_memory_is_given_back_and_does_not_grow(recorded):
    module = build("llama").bfloat16().to(DEVICE)
    asked = [Request(p, samples=4, max_tokens=40, seed=n) for n, p in enumerate(random_prompts(8))]
    taken = []
    for _ in range(6):
        run(module, asked)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        taken.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert recorded and taken[5] == taken[2], taken


def test_a_failed_recording_leaves_a_device_that_works(monkeypatch):
    step = forward.GraphedSteps.step

    def waits(steps, *size):
        logits = step(steps, *size)
        if torch.cuda.is_current_stream_capturing():
            logits.sum().item()
        return logits

    module = build("llama").to(DEVICE)
    asked = [Request((1, 2, 3), samples=3, max_tokens=30, seed=1)]
    expected = {key: ids_of(tokens) for key, tokens in run(module, asked).items()}
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="without CUDA graphs"):
        patch.setattr(forward.GraphedSteps, "step", waits)
        assert {key: ids_of(tokens) for key, tokens in run(module, asked).items()} == expected
    assert {key: ids_of(tokens) for key, tokens in run(module, asked).items()} == expected
