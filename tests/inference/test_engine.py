"""The engine against transformers' generate and against itself: what must be equal is equal."""

import copy
from collections import defaultdict

import pytest
import torch

from helpers import architectures
from helpers.decoding import STOP, ids_of, run, same_as_generate, theirs
from helpers.shapes import CONTEXT, VOCAB, build, lora, random_prompts
from jupyter_gpt.errors import GPTError, OutOfMemory
from jupyter_gpt.inference import decode_forward
from jupyter_gpt.inference.engine import Batch, generate, sample
from jupyter_gpt.inference.forward import Decoder, forward_of
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.nn.lora import copied


def test_greedy_tokens_are_those_of_generate(model, prompts):
    said = same_as_generate(model, prompts)
    ends = {tokens[-1].finish for tokens in said.values()}
    assert ends == {"stop", "length"}  # both ways of ending were tried
    assert all(token.finish is None for tokens in said.values() for token in tokens[:-1])


def test_greedy_tokens_with_an_adapter(model, prompts):
    wrapped = lora(copy.deepcopy(model))
    said = same_as_generate(wrapped, prompts)
    plain = run(model, [Request(prompts[0], max_tokens=20, temperature=0, stop_ids=STOP)])
    assert ids_of(plain[0, 0]) != ids_of(said[0, 0]) or ids_of(plain[0, 0]) != ids_of(said[1, 0])


def test_a_model_without_a_forward_of_ours(prompts):
    same_as_generate(build("starcoder2", sliding_window=12), prompts[:12])
    same_as_generate(
        build("cohere2", sliding_window=12, layer_types=["sliding_attention", "full_attention"]), prompts[:12]
    )


@pytest.mark.parametrize("kind", ["llama", "starcoder2"])
@pytest.mark.parametrize("rope", architectures.ROPES)
def test_texts_beside_each_other_where_rotations_depend_on_the_length(kind, rope):
    """Prompts of 3 to 30 tokens and 20 more, of models trained on 16 and on 8."""
    positions = 16 if rope == "dynamic" else 64
    model = architectures.tiny(kind, max_position_embeddings=positions, rope_parameters=architectures.ROPES[rope])
    random = torch.Generator().manual_seed(3)
    ids = [tuple(torch.randint(5, architectures.VOCAB, (n,), generator=random).tolist()) for n in (3, 7, 12, 20, 30, 9)]
    said = run(copied(model), [Request(each, max_tokens=20, temperature=0, stop_ids=STOP) for each in ids])
    for number, each in enumerate(ids):
        assert ids_of(said[number, 0]) == theirs(copied(model), each, 20)  # which remembers the longest text so far


def test_a_model_whose_memory_is_a_state(prompts):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.2
    )
    same_as_generate(transformers.MambaForCausalLM(config).eval(), prompts[:6], 8)


def test_logprobs_are_those_of_one_forward(model, prompts):
    asked = [
        Request(p, max_tokens=12, temperature=0.7, top_p=0.9, seed=n, top_logprobs=3) for n, p in enumerate(prompts[:9])
    ]
    for (number, _), tokens in run(model, asked).items():
        ids = torch.tensor([[*prompts[number], *ids_of(tokens)]])
        full = model(ids).logits[0].log_softmax(-1)[len(prompts[number]) - 1 :]
        for place, token in enumerate(tokens):
            assert token.logprob == pytest.approx(full[place, token.id].item(), abs=1e-4)
            best = full[place].topk(3)
            assert [name for name, _ in token.top] == best.indices.tolist()
            assert [nats for _, nats in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_samples_equal_calls_with_their_seeds(model, prompts):
    options = dict(max_tokens=16, temperature=1.1, top_k=50, top_p=0.95, min_p=0.01, stop_ids=STOP)
    together = run(model, [Request(prompts[3], samples=8, seed=5, **options)])
    beside = run(
        model,
        [Request(p, samples=2, seed=0, **options) for p in prompts[:5]]
        + [Request(prompts[3], samples=8, seed=5, **options)],
    )
    for k in range(8):
        alone = ids_of(run(model, [Request(prompts[3], seed=5 + k, **options)])[0, 0])
        assert ids_of(together[0, k]) == alone == ids_of(beside[5, k])
    assert len({tuple(ids_of(tokens)) for tokens in together.values()}) == 8


def test_few_rows_at_once_give_the_same(model, prompts):
    asked = [Request(p, samples=2, max_tokens=5 + n % 9, seed=n, stop_ids=STOP) for n, p in enumerate(prompts[:12])]
    expected = {key: ids_of(tokens) for key, tokens in run(model, asked).items()}
    batch, said = Batch(model, max_sequences=5), defaultdict(list)
    for request in asked:
        batch.add(request)
    late = Request(prompts[20], max_tokens=9, seed=4)
    rounds = 0
    while batch.busy:
        for token in batch.step():
            said[token.request, token.sample].append(token.id)
        assert len(batch.sequences) <= 5
        rounds += 1
        if rounds == 6:
            batch.add(late)
    assert said.pop((12, 0)) == ids_of(run(model, [late])[0, 0])
    assert said == expected


def test_a_prompt_read_in_pieces(model, prompts):
    batch = Batch(model)
    batch.tokens_per_pass = 7
    for prompt in prompts[:8]:
        batch.add(Request(prompt, max_tokens=10, temperature=0, stop_ids=STOP))
    said, quiet = defaultdict(list), 0
    while batch.busy:
        tokens = batch.step()
        quiet += not tokens
        for token in tokens:
            said[token.request].append(token.id)
    assert quiet > 20
    for number, prompt in enumerate(prompts[:8]):
        assert said[number] == theirs(model, prompt, 10)


def test_the_prompt_is_read_once(llama):
    read = []
    hook = llama.model.embed_tokens.register_forward_hook(lambda module, args, out: read.append(args[0].numel()))
    batch = Batch(llama)
    batch.forward = own(llama)
    batch.add(Request(tuple(range(1, 41)), samples=6, max_tokens=5))
    while batch.busy:
        batch.step()
    hook.remove()
    assert read == [40, 6, 6, 6, 6]


def own(module):
    from jupyter_gpt.inference.forward import own_forward

    return own_forward(module)


def test_the_cache_grows(llama, monkeypatch):
    from jupyter_gpt.inference import engine, kv_cache

    monkeypatch.setattr(engine, "ROOM", 2)
    monkeypatch.setattr(kv_cache, "GROWTH", 3)
    same_as_generate(llama, random_prompts(6, 20), 60)


def test_steps_in_static_memory(model, prompts, monkeypatch):
    """What a GPU records as CUDA graphs, run as it is: rows leave, columns pass a boundary, the cache moves."""
    from jupyter_gpt.inference import forward

    quick, sizes, step = forward.Decoder, [], forward.GraphedSteps.step
    monkeypatch.setattr(forward, "Decoder", lambda module, lean: quick(module, lean, static=True))
    monkeypatch.setattr(forward, "COLUMNS", 16)
    monkeypatch.setattr(forward.GraphedSteps, "step", lambda self, *size: sizes.append(size) or step(self, *size))
    same_as_generate(model, prompts[:21], 40)
    assert len({rows for rows, _ in sizes}) > 2
    assert len({columns for _, columns in sizes}) > 2


class Says:
    """A constraint: even tokens only, a forced run at the start and after each token below 20."""

    def __init__(self, start=(), after=(50, 52)):
        self.start, self.after, self.heard = list(start), list(after), []
        self.even = torch.arange(VOCAB) % 2 == 0

    def mask(self):
        return self.even

    def forced(self):
        if not self.heard:
            return list(self.start)
        return list(self.after) if self.heard[-1] < 20 else []

    def accept(self, id):
        self.heard.append(id)


@pytest.mark.parametrize("start", [(), (33,), (33, 35, 37)])
def test_constraints_mask_and_force(model, prompts, start):
    made = []

    def constraint():
        made.append(Says(start))
        return made[-1]

    asked = [
        Request(p, samples=2, max_tokens=14, seed=n, temperature=2.0, constraint=constraint)
        for n, p in enumerate(prompts[:6])
    ]
    asked.append(Request(prompts[7], max_tokens=14, seed=1))
    said = run(model, asked)
    told = iter(made)
    forced = 0
    for number, prompt in enumerate(prompts[:6]):
        for k in range(2):
            tokens = said[number, k]
            ids = ids_of(tokens)
            assert ids == next(told).heard
            assert len(ids) == 14
            assert tokens[-1].finish == "length"
            assert tuple(ids[: len(start)]) == start
            assert all(i % 2 == 0 for i in ids[len(start) :])
            for at, id in enumerate(ids):
                if id < 20:
                    forced += 1
                    assert ids[at + 1 : at + 3] == [50, 52][: 13 - at]
            full = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)[len(prompt) - 1 :]
            assert [t.logprob for t in tokens] == pytest.approx(
                [full[n, i].item() for n, i in enumerate(ids)], abs=1e-4
            )
    assert forced > 3
    alone = run(model, [Request(prompts[7], max_tokens=14, seed=1)])
    assert ids_of(said[6, 0]) == ids_of(alone[0, 0])


def test_a_constraint_that_allows_nothing(llama):
    class Mute(Says):
        def mask(self):
            return torch.zeros(VOCAB, dtype=torch.bool)

    with pytest.raises(GPTError, match="no token"):
        run(llama, [Request((1, 2), constraint=Mute)])


def test_until_ends_a_sample_and_min_tokens_forbids_to_stop(model, prompts):
    everything = frozenset(range(0, VOCAB, 2))
    said = run(
        model,
        [Request(p, max_tokens=12, min_tokens=5, seed=n, stop_ids=everything) for n, p in enumerate(prompts[:8])],
    )
    for tokens in said.values():
        assert all(token.id % 2 for token in tokens[:5])
        assert tokens[-1].finish == ("stop" if tokens[-1].id % 2 == 0 else "length")
    until = run(model, [Request(prompts[0], until=lambda ids: len(ids) == 3), Request(prompts[1], max_tokens=5)])
    assert [len(until[n, 0]) for n in range(2)] == [3, 5]
    assert until[0, 0][-1].finish == "stop"


def theirs_plain(module, prompt, count=10):
    ids = torch.tensor([prompt])
    out = module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def test_a_sample_of_many_is_what_its_seed_gives_alone():
    import transformers

    torch.manual_seed(0)
    wide = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32_000,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.1,
        )
    ).eval()
    for n, prompt in enumerate([(5, 6, 7), (8,), (9, 10, 11, 12, 13, 14)]):
        seed, more = 100 * n, {"max_tokens": 24, "temperature": (1.0, 0.7)[n % 2]}
        many = run(wide, [Request(prompt, samples=8, seed=seed, **more)])
        for k in range(8):
            assert ids_of(many[0, k]) == ids_of(run(wide, [Request(prompt, seed=seed + k, **more)])[0, 0])


def test_the_context_is_the_limit(model):
    said = run(model, [Request(tuple(range(1, CONTEXT - 4)), max_tokens=50)])
    assert len(said[0, 0]) == 5
    assert said[0, 0][-1].finish == "length"
    with pytest.raises(GPTError, match="131 tokens, 4 more than fit"):
        run(model, [Request((1,) * (CONTEXT + 3))])
    with pytest.raises(GPTError, match="empty"):
        run(model, [Request(())])


def test_out_of_memory_frees_and_says_what_fits(llama, prompts):
    batch = Batch(llama)
    batch.add(Request(prompts[0], samples=3, max_tokens=9))
    batch.step()
    forward, batch.forward = (
        batch.forward,
        lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("no more")),
    )
    with pytest.raises(GPTError, match=r"out of memory with 3 samples.*room for about \d+"):
        batch.step()
    assert batch.cache is None and not batch.busy
    batch.forward = forward
    batch.add(Request(prompts[0], max_tokens=2))
    assert len(batch.step()) == 1


def test_out_of_memory_where_a_prompt_is_multiplied(llama, prompts, monkeypatch):
    """The likeliest place: all samples' memory is taken at once."""
    from jupyter_gpt.inference import engine as batches

    def full(parts, room):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(batches, "gather", full)
    batch = Batch(llama)
    batch.add(Request(prompts[0], samples=3, max_tokens=9))
    with pytest.raises(
        OutOfMemory, match=r"out of memory with 3 samples of up to \d+ tokens: there is room for about \d+"
    ):
        batch.step()
    assert batch.cache is None and not batch.busy


@pytest.mark.parametrize("temperature", [0, 1])
def test_damaged_weights_are_told(temperature):
    module = build("llama")
    with torch.no_grad():
        module.model.norm.weight.fill_(float("nan"))
    with pytest.raises(GPTError, match="NaN"):
        run(module, [Request((1, 2, 3), temperature=temperature)])


def test_packed_weights_follow_the_weights(prompts):
    module = build("llama")
    asked = [Request(prompts[0], max_tokens=30, temperature=0)]
    first = ids_of(run(module, asked)[0, 0])
    assert decode_forward.prepacked(module) is not None
    again = ids_of(run(module, asked)[0, 0])
    with torch.no_grad():
        module.model.layers[0].mlp.down_proj.weight.data.mul_(-3)  # .data: no version counter tells of it
    assert decode_forward.prepacked(module) is None
    changed = ids_of(run(module, asked)[0, 0])
    assert first == again != changed
    assert changed == theirs_plain(module, prompts[0], 30)
    assert decode_forward.prepacked(module) is not None
    decode_forward.release(module)
    assert decode_forward.prepacked(module) is None and ids_of(run(module, asked)[0, 0]) == changed


def test_training_state_is_left_alone(prompts):
    module = build("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    expected = ids_of(run(module, [Request(prompts[0], max_tokens=9, temperature=0)])[0, 0])
    module.train()
    module.transformer.h[0].eval()
    state = [part.training for part in module.modules()]
    assert ids_of(run(module, [Request(prompts[0], max_tokens=9, temperature=0)])[0, 0]) == expected
    assert state == [part.training for part in module.modules()]
    module(torch.tensor([prompts[1]]), labels=torch.tensor([prompts[1]])).loss.backward()


def test_never_yields_inside_a_torch_context(model, prompts):
    for _ in generate(model, [Request(prompts[0], max_tokens=4)]):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_sample_keeps_its_signature(llama, prompts):
    ids = list(prompts[4])
    assert list(sample(llama, ids, 9, 0)) == theirs_plain(llama, ids)[:9]
    drawn = list(sample(llama, ids, 9, 0.8, seed=3))
    assert drawn == list(sample(llama, ids, 9, 0.8, seed=3)) != list(sample(llama, ids, 9, 0.8, seed=4))
    stop = drawn[4]
    assert list(sample(llama, ids, 9, 0.8, 3, frozenset({stop}))) == drawn[: drawn.index(stop) + 1]
    assert list(sample(llama, [1] * CONTEXT, 9)) == []


ROWS = list(range(3, VOCAB, 3))  # of so many tokens that prompts and answers have some


@pytest.mark.parametrize("tokens", [None, ROWS])
@pytest.mark.parametrize(
    "kind, more", [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen3", {}), ("gpt2", {})]
)
def test_an_adapter_has_a_forward_of_ours_on_the_packed_weights_of_its_base(kind, more, tokens, prompts):
    base = build(kind, **more)
    wrapped = lora(base, tokens=tokens)  # the adapter is on the very tensors of the base
    asked = [Request(prompts[0], max_tokens=30, temperature=0)]
    assert isinstance(forward_of(wrapped), Decoder)
    first = ids_of(run(wrapped, asked)[0, 0])
    assert first == theirs_plain(wrapped, prompts[0], 30)
    assert tokens is None or (set(first) & set(tokens) and set(prompts[0]) - set(tokens))
    made = decode_forward.prepacked(wrapped)
    assert made is not None
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                weight.mul_(-2)
    assert decode_forward.prepacked(wrapped) is not None  # what is laid out is the base's
    assert ids_of(run(wrapped, asked)[0, 0]) == theirs_plain(wrapped, prompts[0], 30) != first
    with wrapped.disable_adapter():
        assert ids_of(run(wrapped, asked)[0, 0]) == theirs_plain(wrapped, prompts[0], 30)


def test_what_lora_is_not_is_left_to_its_own_forward(prompts):
    peft = pytest.importorskip("peft")
    for more in ({"use_dora": True}, {"lora_dropout": 0.5}, {"target_modules": ["embed_tokens"]}, {"lora_bias": True}):
        config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **more})
        wrapped = peft.get_peft_model(build("llama"), config)
        assert not isinstance(forward_of(wrapped), Decoder)
        assert ids_of(run(wrapped, [Request(prompts[0], max_tokens=5, temperature=0)])[0, 0]) == theirs_plain(
            wrapped, prompts[0], 5
        )


def test_bfloat16_is_sampled_on_every_cpu(prompts):
    """Without AVX-512 oneDNN has no packed layout for it."""
    module = build("llama").bfloat16()
    assert len(run(module, [Request(prompts[0], max_tokens=12, temperature=0)])[0, 0]) == 12
    packs = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert decode_forward.worth_packing(module) == packs


def test_an_adapter_of_other_precision_than_its_base(prompts):
    wrapped = lora(build("llama").bfloat16())
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    assert isinstance(forward_of(wrapped), Decoder)
    ids = torch.tensor([prompts[0]])
    with torch.no_grad():
        expected = wrapped(input_ids=ids).logits[0, -1].float()
    cache = KVCache(1, ids.shape[1], ids.device)
    positions, mask = cache.append([ids.shape[1]], ids.shape[1])
    found = forward_of(wrapped)(ids, positions, mask, cache, 1)[0, -1]
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
