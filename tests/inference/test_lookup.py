"""Prompt-lookup decoding says what plain decoding says, in fewer passes."""

from dataclasses import replace

import pytest

from helpers.shapes import CONTEXT, VOCAB, build
from jupyter_gpt.inference import engine, lookup
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

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
    for number, ids in enumerate(quoting(prompts)[:16]):
        stop = STOP if number % 2 else frozenset()
        ends.add(compare(model, Request(ids, max_tokens=60, temperature=0, stop_ids=stop, top_logprobs=2))[-1].finish)
    assert ends == {"stop", "length"}


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
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


@pytest.mark.parametrize(("off", "most"), [(0, 10), (1, 60)])
def test_right_guesses_save_passes_and_wrong_ones_change_nothing(llama, prompts, monkeypatch, off, most):
    request, passes, step = Request(prompts[0], max_tokens=60, temperature=0), [], engine.LookupBatch.step
    known = [token.id for token in said(llama, request)]

    def oracle(ids, count):
        at = len(ids) - len(request.ids)
        return [(id + off) % VOCAB for id in known[at : at + count]]

    monkeypatch.setattr(lookup, "guess_next", oracle)
    monkeypatch.setattr(engine.LookupBatch, "step", lambda self: passes.append(1) or step(self))
    compare(llama, request)
    assert len(passes) <= most


def test_what_is_guessed():
    ids = [1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3]
    assert lookup.guess_next(ids, 3) == [5, 8, 2], "the last time that it stood there"
    assert lookup.guess_next([4, 2, 3, 6, 7, 2, 3, 5, 4, 2, 3], 2) == [6, 7], "the longest that is known"
    assert lookup.guess_next([1, 2, 3], 5) == lookup.guess_next([1], 5) == lookup.guess_next(ids, 0) == []


def test_only_one_greedy_sample_that_is_free():
    one = Request((1, 2), temperature=0, lookup=True)
    assert lookup.suits(one)
    others = [
        replace(one, lookup=False),
        replace(one, temperature=1.0),
        replace(one, samples=2),
        replace(one, constraint=lambda: None),
    ]
    assert not any(lookup.suits(other) for other in others)
