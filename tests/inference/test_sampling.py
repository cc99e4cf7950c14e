"""Filters against transformers' own, and the inverse of the distribution function against frequencies."""

import pytest
import torch

from jupyter_gpt.inference import sampling


def logits(rows=6, vocab=1000, seed=0, scale=3.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("k", [1, 100, 5000])
def test_top_k_is_transformers(k):
    from transformers import TopKLogitsWarper

    scores = logits()
    assert torch.equal(sampling.keep_top_k(scores, [k] * 6), TopKLogitsWarper(k)(None, scores))


@pytest.mark.parametrize("p", [0.01, 0.9])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_top_p_is_transformers(p, scale):
    from transformers import TopPLogitsWarper

    scores = logits(scale=scale)  # a flat distribution needs more than the few best
    assert torch.equal(sampling.keep_top_p(scores, [p] * 6), TopPLogitsWarper(p)(None, scores))


@pytest.mark.parametrize("p", [0.001, 0.1, 1.0])
def test_min_p_is_transformers(p):
    from transformers import MinPLogitsWarper

    scores = logits()
    assert torch.equal(sampling.keep_min_p(scores, [p] * 6), MinPLogitsWarper(p)(None, scores))


def test_rows_are_filtered_apart():
    scores = logits(4)
    mixed = sampling.keep_top_p(sampling.keep_top_k(scores, [0, 3, 0, 7]), [1.0, 1.0, 0.5, 0.8])
    assert torch.equal(mixed[0], scores[0])
    assert torch.equal(mixed[1], sampling.keep_top_k(scores[1:2], [3])[0])
    assert torch.equal(mixed[2], sampling.keep_top_p(scores[2:3], [0.5])[0])
    assert torch.equal(mixed[3], sampling.keep_top_p(sampling.keep_top_k(scores[3:], [7]), [0.8])[0])


def test_min_p_of_some_rows_leaves_others():
    scores = logits(2)
    assert torch.equal(sampling.keep_min_p(scores, [0.0, 0.2])[0], scores[0])


def draw(scores, uniforms, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    n = len(scores)
    uniforms = [u if isinstance(u, list) else [u] * sampling.DEPTH for u in uniforms]
    return sampling.draw(scores, uniforms, [temperature] * n, [top_k] * n, [top_p] * n, [min_p] * n)


def test_frequencies_are_the_distribution():
    one = logits(1, 12, scale=1.0)
    uniforms = ((torch.arange(4000) + 0.5) / 4000).tolist()
    counts = torch.bincount(torch.tensor(draw(one.expand(4000, -1), uniforms, 0.7)), minlength=12) / 4000
    assert torch.allclose(counts, (one[0] / 0.7).softmax(-1), atol=1e-3)


def test_frequencies_of_a_vocabulary_of_several_levels():
    one, n = logits(1, 700, scale=1.5), 40_000
    stream = sampling.Stream(3)
    counts = torch.bincount(torch.tensor(draw(one.expand(n, -1), [stream.next() for _ in range(n)])), minlength=700)
    expected = one[0].softmax(-1).double() * n
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert 699 - 5 * (2 * 699) ** 0.5 < chi < 699 + 5 * (2 * 699) ** 0.5


@pytest.mark.parametrize("vocab", [16, 257, 4097])
def test_every_token_can_be_drawn_and_no_other(vocab):
    scores = torch.full((vocab, vocab), float("-inf")).fill_diagonal_(0.5)
    for u in (0.0, 0.4, 1.0):
        assert draw(scores, [u] * vocab) == list(range(vocab))


def test_the_last_bits_of_the_logits_decide_next_to_nothing():
    """A batch of another size sums in another order. One number in the distribution function of the whole vocabulary
    falls across a border in 142 of these 1,000 draws."""
    scores, n = logits(40, 49_152, scale=2.0), 25
    other = scores + logits(40, 49_152, seed=1, scale=3e-5) + torch.linspace(-3e-5, 3e-5, 49_152)
    differ = 0
    for seed in range(n):
        stream = sampling.Stream(seed)
        uniforms = [stream.next() for _ in range(40)]
        differ += sum(a != b for a, b in zip(draw(scores, uniforms), draw(other, uniforms), strict=True))
    assert differ <= 3


def test_the_ends_of_the_interval():
    scores = torch.tensor([[float("-inf"), 1.0, float("-inf"), 2.0, float("-inf")]])
    assert draw(scores, [0.0]) == [1]
    assert draw(scores, [1.0]) == [3]  # nothing is drawn that has no probability
    assert draw(scores, [1 - 2**-53]) == [3]


def test_temperature_zero_is_greedy_whatever_runs_beside_it():
    scores = logits(3)
    drawn = sampling.draw(
        scores, [[0.5] * sampling.DEPTH] * 3, [0.0, 1.0, 0.0], [0, 5, 1], [0.1, 1.0, 1.0], [0.0, 0.0, 0.0]
    )
    assert [drawn[0], drawn[2]] == scores.argmax(-1)[[0, 2]].tolist()


def test_a_stream_is_its_seed():
    one, again, other = sampling.Stream(7), sampling.Stream(7), sampling.Stream(8)
    first = [u for _ in range(200) for u in one.next()]
    assert first == [u for _ in range(200) for u in again.next()]
    assert len({*first, *(u for _ in range(200) for u in other.next())}) == 400 * sampling.DEPTH
    assert 0 <= min(first) < 0.05 < 0.95 < max(first) < 1
    assert sampling.Stream(-1).next() != sampling.Stream(1).next()
    seeds = [0, 5, -1, 1 << 31, *(5 + (n << 32) for n in range(1, 40)), 5 + (1 << 63), 1 << 200]
    assert len({tuple(sampling.Stream(seed).next()) for seed in seeds}) == len(seeds), "every bit of a seed counts"
    first = torch.rand(sampling.DEPTH, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert sampling.Stream(5).next() == first.tolist()


def test_prompts_of_one_seed_have_random_numbers_of_their_own():
    first = [sampling.Request((1, 2, 3), seed=s).stream(k).next() for s, k in ((5, 0), (4, 1), (0, 5))]
    assert first[0] == first[1] == first[2], "sample k of seed s is sample 0 of seed s + k"
    streams = [
        sampling.Request(ids, seed=s).stream(0).next() for ids in ((1, 2), (1, 3), (12,), (2, 1)) for s in (0, 1)
    ]
    assert len({tuple(numbers) for numbers in streams}) == 8


def test_the_largest_uniform_number_draws_the_last_token_that_is_left():
    """`torch.rand` in float64 comes as near to 1 as 1 - 2**-53, where a product with the sum may be rounded up to
    it.
    """
    scores = logits(200, 500)
    scores[:, 300:] = float("-inf")
    drawn = draw(scores, [1 - 2.0**-53] * 200)
    assert max(drawn) < 300 and set(drawn) == {299}
