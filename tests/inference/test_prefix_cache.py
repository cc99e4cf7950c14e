"""The prefix cache: what comes of it equals what comes without it, and it is small and up to date."""

import gc

import pytest
import torch

from helpers.architectures import ARCHITECTURES, tiny
from helpers.decoding import ids_of, run
from helpers.shapes import VOCAB, build, lora, shake
from jupyter_gpt.inference import prefix_cache
from jupyter_gpt.inference.engine import Batch, generate
from jupyter_gpt.inference.prefix_cache import cache_of
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.nn import devices


@pytest.fixture(params=["gpt2", "llama", "qwen3"])
def module(request):
    return build(request.param)


@pytest.fixture
def llama():
    return build("llama")


def text(length: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(1, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def reused(module, requests):
    """Tokens by (request, sample), and how much of each prompt was cached."""
    said = run(module, requests, reuse=True)
    return said, [said[n, 0][0].cached for n in range(len(requests))]


def same(ours, plain, tolerance=1e-5):
    assert ours.keys() == plain.keys()
    for key, tokens in plain.items():
        assert ids_of(ours[key]) == ids_of(tokens), key
        assert [t.finish for t in ours[key]] == [t.finish for t in tokens]
        for one, other in zip(ours[key], tokens, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=tolerance)
            assert [n for n, _ in one.top] == [n for n, _ in other.top]


def mixed(shared):
    """Prompts of many lengths, most of which begin alike, some as a whole with the beginning of another."""
    prompts = [shared + text(n, n) for n in (1, 3, 9, 20, 33)]
    return [*prompts, text(20, 5), text(50, 6), shared, shared[:40] + text(9, 7), prompts[2][:-2]]


def test_a_batch_equals_one_without_the_cache(module):
    prompts = mixed(text(50, 1))
    asked = [
        Request(p, samples=1 + n % 3, max_tokens=12, temperature=n % 2, seed=n, top_logprobs=3)
        for n, p in enumerate(prompts)
    ]
    plain = run(module, asked)
    said, _ = reused(module, asked)
    same(said, plain)
    again, cached = reused(module, asked)
    same(again, plain)
    assert cached == [len(p) if len(p) > 32 else 0 for p in prompts]
    others = [Request((*p[:45], *text(30, 100 + n)), max_tokens=12, seed=n) for n, p in enumerate(prompts)]
    said, cached = reused(module, others)
    same(said, run(module, others))
    assert cached == [45, 45, 45, 45, 45, 0, 45, 45, 45, 45]


def test_a_prompt_that_is_known_as_a_whole_gives_the_same_bits(module):
    run(module, [Request((1, 2), max_tokens=12)])  # the weights are prepacked: they are multiplied alike from now on
    asked = [Request(text(70, 2), samples=3, max_tokens=20)]
    first, _ = reused(module, asked)
    again, _ = reused(module, asked)
    same(again, first, tolerance=0)


def test_the_turns_of_a_chat(module):
    chat, seen = text(40, 4), 0
    for turn in range(3):
        asked = [Request(chat, max_tokens=12, temperature=0)]
        said, [cached] = reused(module, asked)
        same(said, run(module, asked))
        assert cached == seen
        answer = ids_of(said[0, 0])
        seen = len(chat) + len(answer) - 1  # the last token of an answer is never read
        chat += (*answer, *text(5, turn))


def test_speculative_decoding(module):
    chat = (*text(12, 5) * 4, *text(4, 6))
    for _ in range(3):
        asked = [Request(chat, max_tokens=16, temperature=0, lookup=True)]
        said, _ = reused(module, asked)
        same(said, run(module, [Request(chat, max_tokens=16, temperature=0)]))
        chat += (*ids_of(said[0, 0]), 7)
    assert said[0, 0][0].cached > 70


class Forces:
    """After its third token it forces two, and only even tokens are allowed."""

    def __init__(self):
        self.count = 0

    def mask(self):
        return torch.arange(VOCAB) % 2 == 0

    def forced(self):
        return [3, 5] if self.count == 3 else []

    def accept(self, token):
        self.count += 1


def test_constrained_answers_of_uneven_steps(module):
    """Forced tokens leave gaps in the columns of the others: what is kept of them has none."""
    prompts = [text(40, 8), text(44, 9), text(60, 10)]

    def asked(prompts):
        made = [None, Forces, None]
        return [Request(p, max_tokens=12, seed=n, constraint=made[n]) for n, p in enumerate(prompts)]

    said, _ = reused(module, asked(prompts))
    same(said, run(module, asked(prompts)))
    longer = [(*p, *ids_of(said[n, 0]), 9, 8) for n, p in enumerate(prompts)]
    again, cached = reused(module, asked(longer))
    same(again, run(module, asked(longer)))
    assert cached == [len(p) + 11 for p in prompts]


def test_a_long_prompt_after_its_prefix_is_read_in_pieces(llama):
    shared = text(40, 11)
    reused(llama, [Request(shared, max_tokens=1)])
    batch, asked = Batch(llama, reuse=True), [Request((*shared, *text(n, n)), max_tokens=5) for n in (30, 31, 37)]
    batch.tokens_per_pass = 9
    said = {}
    for request in asked:
        batch.add(request)
    while batch.busy:
        for token in batch.step():
            said.setdefault((token.request, token.sample), []).append(token)
    same(said, run(llama, asked))


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_sliding_window_is_read_anew(kind):
    module = build(kind, sliding_window=8)
    assert cache_of(module) is None
    asked = [Request((*text(40, 12), n), max_tokens=9) for n in range(3)]
    for _ in range(2):
        said, cached = reused(module, asked)
        same(said, run(module, asked))
        assert not any(cached)


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture(kind):
    """Any other model gets the same with the cache, or has none."""
    module = tiny(kind)
    first, second = text(40, 13), text(35, 14)
    prompts = [first + text(9, 15), second + text(3, 16), first + text(2, 17), text(12, 18)]

    def asked(prompts, count=6):
        return [Request(tuple(i % 90 + 3 for i in p), max_tokens=count, seed=1) for p in prompts]

    reused(module, asked([first, second], 1))  # a single token is not read: the answers are not kept
    said, cached = reused(module, asked(prompts))
    same(said, run(module, asked(prompts)), tolerance=1e-4)
    assert cached == ([40, 35, 40, 0] if cache_of(module) else [0, 0, 0, 0])


def test_another_active_adapter_begins_anew():
    wrapped = lora(build("llama"), "one", 3)
    import peft

    wrapped.add_adapter("two", peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    shake(wrapped, "two", 4)
    first, more = ([Request((*text(50, 19), *end), max_tokens=8, temperature=0)] for end in ((), (5,)))
    assert reused(wrapped, first)[1] == [0]
    said, cached = reused(wrapped, more)
    same(said, run(wrapped, more))
    assert cached == [50]
    wrapped.set_adapter("two")
    said, cached = reused(wrapped, more)
    assert cached == [0]
    same(said, run(wrapped, more))
    with wrapped.disable_adapter():
        asked = [Request((*text(50, 19), 6), max_tokens=8, temperature=0)]
        said, cached = reused(wrapped, asked)
        same(said, run(wrapped, asked))
    assert cached == [0]


def written(module):
    with torch.no_grad():
        module.model.layers[0].mlp.up_proj.weight.mul_(1.5)


def written_behind(module):
    module.model.layers[0].mlp.up_proj.weight.data *= 1.5


def one_row(module):
    with torch.no_grad():
        module.model.embed_tokens.weight[5] = 0.3


def another_dtype(module):
    module.to(torch.bfloat16)


def replaced(module):
    module.model.layers[1].self_attn.o_proj = torch.nn.Linear(64, 48, bias=False)


def trained(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(input_ids=torch.tensor([text(9, 1)]), labels=torch.tensor([text(9, 1)])).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("change", [written, written_behind, one_row, another_dtype, replaced, trained])
def test_changed_weights_empty_it(llama, change):
    asked = [Request((*text(50, 20), 5), max_tokens=8, temperature=0)]
    reused(llama, asked)
    assert cache_of(llama).nbytes > 0
    change(llama)
    said, cached = reused(llama, asked)
    assert cached == [0]
    same(said, run(llama, asked))


def test_weights_that_change_while_a_batch_runs(llama):
    """What was read with the old weights is neither used by nor kept for those after."""
    batch = Batch(llama, reuse=True)
    batch.add(Request(text(50, 21), max_tokens=9))
    batch.step()
    written(llama)
    while batch.busy:
        batch.step()
    batch.add(Request((*text(50, 21), 4), max_tokens=2))
    [token] = batch.step()
    assert token.cached == 0 and cache_of(llama).nbytes == 0


def test_a_hook_may_do_anything(llama):
    asked = [Request(text(50, 22), max_tokens=4, temperature=0)]
    reused(llama, asked)
    handle = llama.model.layers[0].register_forward_hook(lambda *args: args[-1] * 2)
    said, cached = reused(llama, asked)
    assert cached == [0]
    same(said, run(llama, asked))
    handle.remove()
    assert reused(llama, asked)[1] == [50]


def test_it_is_used_only_where_it_is_asked_for(llama):
    run(llama, [Request(text(50, 23), max_tokens=4)])
    assert cache_of(llama).nbytes == 0


def test_it_takes_no_more_memory_than_it_may(llama, monkeypatch):
    most = 80_000
    monkeypatch.setattr(prefix_cache, "limit", lambda device: most)
    other, first = build("qwen3"), text(40, 24)
    for n in range(12):
        for module in (llama, other):
            reused(module, [Request((*first, *text(20, 200 + n)), max_tokens=4)])
            assert prefix_cache.held("cpu") <= most
            cache = cache_of(module)
            assert cache.nbytes == sum(node.nbytes for node in cache.nodes)
    assert prefix_cache.held("cpu") > most / 2
    asked = [Request((*first, 9, 9, 9), max_tokens=4)]  # what all had in common is there still
    said, cached = reused(llama, asked)
    assert cached == [40]
    same(said, run(llama, asked))
    monkeypatch.setattr(prefix_cache, "limit", lambda device: 1000)
    reused(llama, [Request(text(100, 25), max_tokens=4)])  # larger than all it may take: not kept
    assert prefix_cache.held("cpu") <= 1000


def test_it_gives_way_where_memory_is_short(llama, monkeypatch):
    reused(llama, [Request(text(60, 26), max_tokens=4)])
    assert prefix_cache.held("cpu") > 0
    monkeypatch.setattr(devices, "free", lambda device: 1000)
    reused(llama, [Request(text(60, 27), max_tokens=4)])
    assert prefix_cache.room(torch.device("cpu")) == 0
    assert reused(llama, [Request((*text(60, 27), 3), max_tokens=4)])[1] == [0]


@pytest.mark.parametrize("at", ["prefill", "decode", "multiply"])
def test_out_of_memory_frees_it_first(llama, monkeypatch, at):
    reused(llama, [Request(text(60, 28), max_tokens=4)])
    asked = [Request((*text(60, 28), 5), samples=3, max_tokens=6, seed=1), Request(text(20, 29), max_tokens=6)]
    plain = run(llama, asked)
    batch, said, failed = Batch(llama, reuse=True), {}, []

    def once(function, wanted=lambda *args: True):
        def wrapped(*args):
            result = function(*args)  # it has written something before it fails
            if not failed and wanted(*args):
                failed.append(prefix_cache.held("cpu"))
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            return result

        return wrapped

    if at == "multiply":
        from jupyter_gpt.inference import engine

        monkeypatch.setattr(engine, "gather", once(engine.gather))
    else:
        batch.forward = once(batch.forward, lambda ids, *rest: (len(ids) == 4) == (at == "decode"))
    for request in asked:
        batch.add(request)
    while batch.busy:
        for token in batch.step():
            said.setdefault((token.request, token.sample), []).append(token)
    assert failed and failed[0] > 0
    same(said, plain)


def test_an_unloaded_model_leaves_nothing():
    module = build("llama")
    reused(module, [Request(text(60, 30), max_tokens=4)])
    before = len(prefix_cache._caches)
    del module
    gc.collect()
    assert len(prefix_cache._caches) == before - 1


def test_an_answer_given_up_early_is_not_kept(llama):
    tokens = generate(llama, [Request(text(50, 31), max_tokens=20)], reuse=True)
    for _ in range(4):
        next(tokens)
    tokens.close()
    assert [len(node.ids) for node in cache_of(llama).nodes] == [50]
