"""Speculative decoding: prompt lookup gives the tokens of plain decoding, a draft model their distribution, in fewer
passes."""

from dataclasses import replace

import pytest
import torch

from helpers.shapes import CONTEXT, VOCAB, build, lora
from jupyter_gpt.inference import engine, sampling, speculative
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request, Sequence, Stream
from jupyter_gpt.inference.speculative import Draft, Pace, PromptLookup

STOP = frozenset(range(7, VOCAB, 40))


def said(module, request):
    return [token for token in generate(module, [request]) if token is not None]


def compare(module, request):
    """Both ways; the tokens of the second."""
    plain, quick = said(module, request), said(module, replace(request, lookup=True))
    assert [t.id for t in quick] == [t.id for t in plain]
    assert [t.finish for t in quick] == [t.finish for t in plain]
    assert [t.logprob for t in quick] == pytest.approx([t.logprob for t in plain], abs=1e-4)
    assert [[i for i, _ in t.top] for t in quick] == [[i for i, _ in t.top] for t in plain]
    return quick


def quoting(prompts):
    """Prompts that say everything twice, so that there is something to guess, rightly or not."""
    return [(*p, *p[: len(p) // 2]) for p in prompts if 3 < len(p) < 40]


def test_the_tokens_are_those_of_plain_decoding(model, prompts):
    ends = set()
    for number, ids in enumerate(quoting(prompts)[:8]):
        stop = STOP if number % 2 else frozenset()
        ends.add(compare(model, Request(ids, max_tokens=40, temperature=0, stop_ids=stop, top_logprobs=2))[-1].finish)
    assert ends == {"stop", "length"}


@pytest.mark.parametrize("kind", ["starcoder2", "cohere2"])
def test_models_with_their_own_forward(kind, prompts):
    for ids in quoting(prompts)[:4]:
        compare(build(kind), Request(ids, max_tokens=40, temperature=0))


def test_a_model_that_reads_all_again(prompts, monkeypatch):
    from jupyter_gpt.inference import forward

    monkeypatch.setattr(engine, "forward_of", forward.uncached_forward)
    for ids in quoting(prompts)[:3]:
        compare(build("llama"), Request(ids, max_tokens=30, temperature=0))


def test_ends_within_a_guess(llama, prompts):
    ids = quoting(prompts)[0]
    for count in (1, 2, 3, 17):
        assert len(compare(llama, Request(ids, max_tokens=count, temperature=0))) == count
    compare(llama, Request(ids, max_tokens=50, temperature=0, min_tokens=20, stop_ids=STOP))
    compare(llama, Request(ids, max_tokens=50, temperature=0, until=lambda said: len(said) == 13))
    compare(llama, Request((ids * CONTEXT)[: CONTEXT - 9], max_tokens=50, temperature=0))  # the context ends first


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.6, "top_p": 0.9, "top_k": 20}])
def test_sampled_answers_are_the_same_with_lookup(model, prompts, settings):
    for seed, ids in enumerate(quoting(prompts)[:4]):
        compare(model, Request(ids, max_tokens=40, seed=seed, stop_ids=STOP, **settings))


@pytest.mark.parametrize(("off", "most"), [(0, 16), (1, 60)])
def test_accepted_drafts_save_passes_and_rejected_ones_change_nothing(llama, prompts, monkeypatch, off, most):
    request, passes, step = Request(prompts[0], max_tokens=60, temperature=0), [], engine.SpeculativeBatch.step
    known = [token.id for token in said(llama, request)]

    def oracle(self, sequence, count):
        at = len(sequence.ids)
        return Draft([(id + off) % VOCAB for id in known[at : at + count]], [])

    monkeypatch.setattr(PromptLookup, "draft", oracle)
    monkeypatch.setattr(engine.SpeculativeBatch, "step", lambda self: passes.append(1) or step(self))
    quick = compare(llama, request)
    assert len(passes) <= most
    drafted, accepted = sum(t.drafted for t in quick), sum(t.accepted for t in quick)
    assert len(quick) == len(passes) + accepted
    assert accepted == (0 if off else drafted) and drafted > 0


class Forcing:
    """A constraint that forces two tokens after every multiple of three, forbids five, and sets its own temperature."""

    temperature = 0.0

    def __init__(self):
        self.last = 0

    def mask(self):
        return torch.arange(VOCAB) % 5 != 0

    def forced(self):
        return [11, 13] if self.last % 3 == 0 else []

    def accept(self, id):
        self.last = id


def test_constraints_with_forced_tokens(model, prompts):
    drafted = 0
    for number, ids in enumerate(quoting(prompts)[:4]):
        quick = compare(model, Request(ids, max_tokens=30 + number, temperature=1.0, constraint=Forcing))
        drafted += sum(token.drafted for token in quick)
    assert drafted > 0


def lookup_of(ids, most):
    found = PromptLookup()
    found.read(ids)
    return found.draft(None, most).tokens


def test_what_is_looked_up():
    assert lookup_of([1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3], 3) == [5, 8, 2], "the last time that it stood there"
    assert lookup_of([4, 2, 3, 6, 7, 2, 3, 5, 4, 2, 3], 2) == [6, 7], "the longest that is known"
    assert lookup_of([1, 2, 3], 5) == lookup_of([1], 5) == []
    assert lookup_of([7, 1, 2, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1], "a repetition goes on"


def test_a_context_that_grows_is_looked_up_as_one_read_at_once(prompts):
    ids, grown = [*quoting(prompts)[0], *quoting(prompts)[0]], PromptLookup()
    for count in range(1, len(ids) + 1):
        grown.read(ids[:count])
    assert grown.draft(None, 9) == Draft(lookup_of(ids, 9), [])


def test_drafts_that_are_never_accepted_cost_little():
    pace, price = Pace(), 0.0
    for tokens in range(1000):
        count = pace.length()
        price += pace.price(count) if count else 0
        pace.add(count, 0)
        assert price <= 0.5 + 0.02 * tokens + 1e-9
    assert price > 10, "it goes on trying"


def test_drafts_that_are_accepted_grow_and_those_of_a_dear_model_stay_short():
    cheap, dear = Pace(), Pace(cost=0.3)
    for pace in (cheap, dear):
        for number in range(60):
            count = pace.length()
            pace.add(count, count if number % 3 else count // 2)
    assert cheap.length() == speculative.MOST
    assert 0 < dear.length() < 8


def test_what_is_decoded_speculatively(llama):
    one = Request((1, 2), lookup=True)
    assert isinstance(speculative.drafter_of(llama, one), PromptLookup)
    assert isinstance(speculative.drafter_of(llama, replace(one, draft=llama)), speculative.DraftModel)
    assert speculative.drafter_of(llama, replace(one, lookup=False)) is None
    assert isinstance(speculative.drafter_of(llama, replace(one, lookup=None)), PromptLookup)
    low = build("llama").bfloat16()
    assert speculative.drafter_of(low, replace(one, lookup=None)) is None
    assert isinstance(speculative.drafter_of(low, one), PromptLookup)
    assert speculative.drafter_of(llama, replace(one, samples=2)) is None
    assert speculative.drafter_of(llama, replace(one, samples=2, draft=llama)) is None


# a draft model


@pytest.fixture(scope="module")
def small():
    """A model that often agrees with `llama`: its own weights, a little changed."""
    return shaken(build("llama"), 0.01)


def shaken(module, noise):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in module.parameters():
            weight += noise * torch.randn(weight.shape, generator=generator)
    return module


def with_draft(module, draft, request):
    """The tokens with a draft model, after a check that a second call gives them again."""
    tokens = said(module, replace(request, draft=draft))
    again = said(module, replace(request, draft=draft))
    assert [t.id for t in tokens] == [t.id for t in again]
    assert [(t.drafted, t.accepted) for t in tokens] == [(t.drafted, t.accepted) for t in again]
    return tokens


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma2", "cohere2"])
def test_greedy_answers_are_the_same_with_a_draft_model(kind, small, prompts, monkeypatch):
    monkeypatch.setattr(speculative, "BLOCK", 7)  # prompts are read in several passes
    monkeypatch.setattr(speculative, "relative_cost", lambda draft, target: 0.01)
    module = build(kind)
    alike = shaken(build(kind), 0.01)
    for ids in prompts[:3]:
        request = Request(ids, max_tokens=30, temperature=0, stop_ids=STOP, top_logprobs=2)
        plain = said(module, request)
        for draft in (small, alike):
            quick = with_draft(module, draft, request)
            assert [t.id for t in quick] == [t.id for t in plain]
            assert [t.finish for t in quick] == [t.finish for t in plain]
            assert [t.logprob for t in quick] == pytest.approx([t.logprob for t in plain], abs=1e-4)
            assert sum(t.drafted for t in quick) > 0
    accepted = sum(t.accepted for t in quick)
    assert accepted > len(quick) / 3


def test_sampled_log_probabilities_are_those_of_the_model(llama, small, prompts):
    for ids in prompts[:5]:
        request = Request(ids, max_tokens=40, temperature=0.8, top_k=50)
        tokens = with_draft(llama, small, request)
        logits = llama(torch.tensor([[*ids, *(t.id for t in tokens)]])).logits[0, len(ids) - 1 : -1]
        nats = logits.log_softmax(-1).gather(-1, torch.tensor([[t.id] for t in tokens]))[:, 0]
        assert [t.logprob for t in tokens] == pytest.approx(nats.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 1.0}, {"temperature": 0.7}, {"top_k": 6}, {"top_p": 0.6, "temperature": 1.3}, {"min_p": 0.2}],
)
def test_rejection_sampling_gives_the_distribution_of_the_model(settings):
    """A chi-square test of single tokens."""
    generator = torch.Generator().manual_seed(2)
    target, noise = torch.randn(2, 24, generator=generator) * 1.5
    draft = target + noise / 2
    sequence = Sequence(0, 0, Request((1,), **settings), 10, Stream(1), None)
    p, q = (speculative.distribution(logits, sequence) for logits in (target, draft))
    assert 0.1 < float((p - q).clamp(min=0).sum()) < 0.9
    drafts, count, accepted = Stream(speculative.DRAFT_STREAM), 10_000, 0
    counts = torch.zeros(24)
    drawn = sampling.descend(q.expand(count, -1), [drafts.next() for _ in range(count)])
    for token in drawn.tolist():
        kept = speculative.accept_or_resample(token, q, p, drafts.next()[0], sequence.stream.next)
        counts[kept] += 1
        accepted += kept == token
    assert_follows(counts, p)
    overlap = float(torch.minimum(p, q).sum())
    assert accepted / count == pytest.approx(overlap, abs=4 * (overlap * (1 - overlap) / count) ** 0.5)


def assert_follows(counts, p):
    """Raises if counts are improbable (1 in 10,000) under the distribution p; what it excludes never occurs."""
    scipy = pytest.importorskip("scipy.stats")
    assert counts[p == 0].sum() == 0
    expected = (p / p.sum() * counts.sum())[p > 0]
    few = expected < 5
    pairs = [(counts[p > 0][~few], expected[~few])]
    if few.any():
        pairs.append((counts[p > 0][few].sum()[None], expected[few].sum()[None]))
    found, wanted = (torch.cat(part).double() for part in zip(*pairs, strict=True))
    assert scipy.chisquare(found.numpy(), (wanted * found.sum() / wanted.sum()).numpy()).pvalue > 1e-4


def test_sampled_answers_have_the_distribution_of_the_model(monkeypatch):
    """Answers of four tokens, of 600 seeds: each may come as often as the model's probabilities say."""
    monkeypatch.setattr(speculative, "relative_cost", lambda draft, target: 0.01)
    module, draft = tiny(0), tiny(1)
    request = Request((1, 2), max_tokens=4, temperature=0.9, top_k=4)
    counts, drafted, accepted, whole = torch.zeros(5, 5, 5, 5), 0, 0, 0
    for seed in range(600):
        tokens = said(module, replace(request, seed=seed, draft=draft))
        counts[tuple(t.id for t in tokens)] += 1
        drafted, accepted = drafted + sum(t.drafted for t in tokens), accepted + sum(t.accepted for t in tokens)
        whole += any(t.accepted == 2 for t in tokens)
    assert 0.2 < accepted / drafted < 0.9
    assert 50 < whole < 550, "some drafts of two tokens are accepted, and some are not"
    assert_follows(counts.flatten(), of_continuations(module, request, 4).flatten())


def tiny(seed):
    import transformers

    torch.manual_seed(seed)
    shape = dict(vocab_size=5, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = transformers.LlamaConfig(**shape, initializer_range=0.3, max_position_embeddings=16)
    return transformers.LlamaForCausalLM(config).eval()


def of_continuations(module, request, count):
    """The probabilities `(V, …, V)` of the next `count` tokens."""
    sequence = Sequence(0, 0, request, count, Stream(0), None)
    found, ids = torch.ones(1), torch.tensor([request.ids])
    with torch.inference_mode():
        for _ in range(count):
            logits = module(ids).logits[:, -1]
            next_ones = torch.stack([speculative.distribution(row, sequence) for row in logits])
            found = (found[:, None] * next_ones).flatten()
            V = next_ones.shape[1]
            ids = torch.cat([ids.repeat_interleave(V, 0), torch.arange(V).repeat(len(ids))[:, None]], dim=1)
    return found.view(count * (V,))


def test_a_draft_model_with_a_shorter_context_and_more_rows(llama, prompts):
    """Beyond its context it drafts nothing; tokens that only it has are never drafted."""
    short, wide = build("llama"), build("llama")
    short.config.max_position_embeddings = 40
    wide.resize_token_embeddings(VOCAB + 9)
    with torch.no_grad():
        wide.lm_head.weight[VOCAB:] = wide.lm_head.weight.mean(0) + 10.0
    request = Request(prompts[1][:20], max_tokens=60, temperature=0)
    plain = [t.id for t in said(llama, request)]
    for draft in (short, wide):
        tokens = with_draft(llama, draft, request)
        assert [t.id for t in tokens] == plain
        assert sum(t.drafted for t in tokens) > 0
    assert not any(t.drafted for t in tokens[25:]) or draft is wide


def test_a_draft_model_of_a_constrained_and_of_an_adapted_model(llama, small, prompts):
    request = Request(prompts[0], max_tokens=50, temperature=1.0, constraint=Forcing)
    plain = said(llama, request)
    assert [t.id for t in with_draft(llama, small, request)] == [t.id for t in plain], "its temperature is 0"
    adapted = lora(build("llama"))
    request = Request(prompts[0], max_tokens=50, temperature=0)
    plain = [t.id for t in said(adapted, request)]
    assert [t.id for t in with_draft(adapted, small, request)] == plain
    assert [t.id for t in with_draft(small, adapted, request)] == [t.id for t in said(small, request)]
