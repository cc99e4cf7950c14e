"""Speculative decoding: prompt lookup gives the tokens of plain decoding, in fewer passes."""

from dataclasses import replace

import pytest
import torch

from helpers.shapes import CONTEXT, VOCAB, build
from jupyter_gpt.inference import engine
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.inference.speculative import PromptLookup, uses_lookup

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

    def oracle(self, ids, count):
        at = len(ids) - len(request.ids)
        return [(id + off) % VOCAB for id in known[at : at + count]]

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
    return PromptLookup().draft(ids, most)


def test_what_is_looked_up():
    assert lookup_of([1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3], 3) == [5, 8, 2], "the last time that it stood there"
    assert lookup_of([4, 2, 3, 6, 7, 2, 3, 5, 4, 2, 3], 2) == [6, 7], "the longest that is known"
    assert lookup_of([1, 2, 3], 5) == lookup_of([1], 5) == []
    assert lookup_of([7, 1, 2, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1], "a repetition goes on"


def test_a_context_that_grows_is_looked_up_as_one_read_at_once(prompts):
    ids, grown = [*quoting(prompts)[0], *quoting(prompts)[0]], PromptLookup()
    for count in range(1, len(ids) + 1):
        drafted = grown.draft(ids[:count], 9)
    assert drafted == lookup_of(ids, 9)


def test_what_is_decoded_speculatively(llama):
    one, low = Request((1, 2), lookup=True), build("llama").bfloat16()
    assert uses_lookup(llama, one) and uses_lookup(low, one) and uses_lookup(llama, replace(one, lookup=None))
    assert not uses_lookup(llama, replace(one, lookup=False)) and not uses_lookup(low, replace(one, lookup=None))
    assert not uses_lookup(llama, replace(one, samples=2))
