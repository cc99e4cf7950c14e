"""Recorded steps, replayed: they read nothing but what stays in its place, and say what plain steps say."""

import pytest
import torch

from helpers import recorder
from helpers.decoding import STOP, ids_of, run, same_as_generate
from helpers.shapes import build, lora, random_prompts
from jupyter_gpt.inference import forward
from jupyter_gpt.inference.engine import Batch
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.inference.sampling import Request


@pytest.fixture
def made(monkeypatch):
    """The graphs that were recorded, as (GraphedSteps, size, graph)."""
    found, quick = [], forward.Decoder

    def recording(steps, size):
        graph, logits = recorder.recording(steps, size)
        found.append((steps, size, graph))
        return graph, logits

    monkeypatch.setattr(forward, "Decoder", lambda module, lean: quick(module, lean, static=True))
    monkeypatch.setattr(forward, "CAPTURING_DEVICES", ("cpu",))
    monkeypatch.setattr(forward, "COLUMNS", 16)
    monkeypatch.setattr(forward.GraphedSteps, "capture", recording)
    return found


def test_replayed_steps_say_what_generate_says(model, prompts, made):
    same_as_generate(model, prompts[:21], 40)
    assert sum(graph.replays for _, _, graph in made) > 20
    assert len({size for _, size, _ in made}) > 2


@pytest.mark.parametrize("tokens", [None, list(range(1, 150, 3))])
def test_with_an_adapter(made, tokens):
    same_as_generate(lora(build("llama"), tokens=tokens), random_prompts(6, 20), 40)
    assert sum(graph.replays for _, _, graph in made) > 20


def test_rows_that_join_and_a_cache_that_grows(model, prompts, made, monkeypatch):
    """Whoever joins moves the memory: graphs of the old place must not be replayed."""
    from jupyter_gpt.inference import engine as batches

    monkeypatch.setattr(batches, "ROOM", 2)
    homes, settle = [], forward.GraphedSteps.bind
    monkeypatch.setattr(forward.GraphedSteps, "bind", lambda steps, cache: homes.append(cache) or settle(steps, cache))
    asked = [Request(p, max_tokens=30, seed=n, stop_ids=STOP) for n, p in enumerate(prompts[:9])]
    batch, said, turn = Batch(model, max_sequences=4), {n: [] for n in range(9)}, 0
    while batch.busy or turn < 9:
        if turn < 9 and turn % 3 == 0:
            for request in asked[turn : turn + 3]:
                batch.add(request)
        for token in batch.step():
            said[token.request].append(token.id)
        turn += 1
    assert len(homes) > 1
    monkeypatch.setattr(forward, "CAPTURING_DEVICES", ())
    for n, request in enumerate(asked):
        assert said[n] == ids_of(run(model, [request])[0, 0])


def test_one_pool_as_long_as_the_memory_stays(llama, made):
    """torch refuses a pool whose last graph has gone."""
    steps = forward.GraphedSteps(forward.forward_of(llama).forward)
    steps.pool, old = (0, 1), KVCache(2, 64, torch.device("cpu"))
    positions, mask = old.append([4, 4], 4)
    steps.forward(torch.ones(2, 4, dtype=torch.long), positions, mask, old, 1)
    positions, mask = old.append([1, 1], 1)
    steps(torch.ones(2, 1, dtype=torch.long), positions, mask, old)
    assert steps.pool is None and steps.home is old.layers[0].keys


def test_weights_are_laid_out_before_graphs_are_made(llama, prompts, made, monkeypatch):
    laid = []
    keep = forward.decode_forward.prepack
    monkeypatch.setattr(forward.decode_forward, "prepacked", lambda module: None)
    monkeypatch.setattr(forward.decode_forward, "prepack", lambda module: laid.append(len(made)) or keep(module))
    run(llama, [Request(prompts[0], max_tokens=20)])
    assert laid == [0] and made


def test_a_recording_that_fails_is_told_once_and_steps_go_on(llama, prompts, made, monkeypatch):
    def fails(steps, size):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(forward.GraphedSteps, "capture", fails)
    with pytest.warns(UserWarning, match="without CUDA graphs: operation not permitted") as told:
        same_as_generate(llama, prompts[:5], 30)
    assert len([w for w in told if "CUDA graphs" in str(w.message)]) <= 5  # once for each call


@pytest.mark.parametrize("mistake", ["a number", "a tensor made anew"])
def test_what_a_graph_would_not_follow_is_found(llama, prompts, made, monkeypatch, mistake):
    """The recorder is worth its name: a step that a GPU would replay wrongly fails here."""
    step, call = forward.GraphedSteps.step, forward.GraphedSteps.__call__

    def baked(steps, *size):
        steps.column = torch.full_like(steps.column, int(steps.column))
        return step(steps, *size)

    def anew(steps, ids, positions, mask, cache):
        steps.column = torch.zeros(1, dtype=torch.long)
        return call(steps, ids, positions, mask, cache)

    if mistake == "a number":
        monkeypatch.setattr(forward.GraphedSteps, "step", baked)
    else:
        monkeypatch.setattr(forward.GraphedSteps, "__call__", anew)
    with pytest.raises(AssertionError, match="waits for the device" if mistake == "a number" else "prompt 0"):
        same_as_generate(llama, prompts[:3], 30)


def test_padding_queries_see_themselves_and_nothing_is_nan():
    from jupyter_gpt.inference.decode_forward import additive

    mask = torch.tensor([[False, False, True], [True, True, True]])
    bias = additive(mask, 3, torch.float32)
    assert bias.shape == (2, 1, 3, 3)
    assert bool(bias.softmax(-1).isfinite().all())
    low = float("-inf")
    assert bias[0, 0].tolist() == [[0.0, low, low], [low, 0.0, low], [low, low, 0.0]]
    assert bias[1, 0].tolist() == [[0.0, low, low], [0.0, 0.0, low], [0.0, 0.0, 0.0]]
