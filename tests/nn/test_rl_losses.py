"""The losses against references of their own, written as sums in float64."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from jupyter_gpt.nn import rl_losses as L
from jupyter_gpt.nn.preference_loss import dpo_loss, log_before, plackett_luce, ranking_loss, right

B, T = 5, 7


@pytest.fixture
def random():
    return torch.Generator().manual_seed(7)


def normal(random, *shape):
    return torch.randn(shape, generator=random, dtype=torch.float64)


@pytest.fixture
def mask():
    lengths = torch.tensor([7, 1, 4, 6, 2])
    return torch.arange(T)[None] < lengths[:, None]


def gae_by_definition(rewards, values, lengths, gamma, lam):
    """A_t as the sum over l of (gamma lam)^l delta_{t+l}, for each t anew."""
    out = np.zeros_like(rewards)
    for b, n in enumerate(lengths):
        deltas = [rewards[b, t] + gamma * (values[b, t + 1] if t + 1 < n else 0) - values[b, t] for t in range(n)]
        for t in range(n):
            out[b, t] = sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t))
    return out


def advantages_as_in_trl(scores, logp, reference, values, mask, coefficient, gamma, lam):
    """`compute_rewards` and `compute_advantages` of TRL's PPOTrainer (0.11), whose formulas these are, by hand."""
    scores, logp, reference, values = (x.tolist() for x in (scores, logp, reference, values))
    raw, returns, lengths = [], [], mask.sum(1).tolist()
    for b, n in enumerate(lengths):
        rewards = [-coefficient * (logp[b][t] - reference[b][t]) for t in range(n)]
        rewards[-1] += scores[b]
        ahead, found = 0.0, []
        for t in reversed(range(n)):
            delta = rewards[t] + gamma * (values[b][t + 1] if t < n - 1 else 0.0) - values[b][t]
            ahead = delta + gamma * lam * ahead
            found.insert(0, ahead)
        raw.append(found)
        returns.append([a + v for a, v in zip(found, values[b][:n], strict=True)])
    every = [a for found in raw for a in found]
    mean, variance = np.mean(every), np.var(every, ddof=1)
    return [[(a - mean) / math.sqrt(variance + 1e-8) for a in found] for found in raw], returns


@pytest.mark.parametrize(("coefficient", "gamma", "lam"), [(0.05, 1.0, 0.95), (0.0, 1.0, 0.95), (2.0, 0.9, 0.5)])
def test_ppos_rewards_and_advantages_are_trls(random, mask, coefficient, gamma, lam):
    scores, (logp, reference, values) = 3 * normal(random, B) + 1, (normal(random, B, T) for _ in range(3))
    rewards = L.token_rewards(scores, logp, reference, mask, coefficient)
    advantages, returns = L.gae(rewards, values, mask, gamma, lam)
    white = L.whiten(advantages, mask)
    theirs, their_returns = advantages_as_in_trl(scores, logp, reference, values, mask, coefficient, gamma, lam)
    for b, n in enumerate(mask.sum(1).tolist()):
        np.testing.assert_allclose(white[b, :n], theirs[b], atol=1e-12)
        np.testing.assert_allclose(returns[b, :n], their_returns[b], atol=1e-12)
        assert rewards[b, n:].abs().sum() == 0


def test_the_running_scale_is_that_of_all_rewards_so_far(random):
    """As TRL's `RunningMoments`, whose scale `use_score_scaling` divides by; and 1 while there is nothing to scale
    by.
    """
    batches = [
        torch.full((4,), 0.3),
        2 * normal(random, 6) + 5,
        torch.full((3,), -1.0),
        normal(random, 1),
        normal(random, 64),
    ]
    moments, count, mean, variance = L.Moments(), 1e-24, 0.0, 1.0
    assert moments.std == moments.updated(batches[0]).std == 1.0
    for n, batch in enumerate(batches):
        moments = moments.updated(batch)
        size, delta = len(batch), float(batch.double().mean()) - mean
        total = (
            float(batch.double().var(unbiased=False)) * size
            + variance * count
            + delta**2 * count * size / (count + size)
        )
        mean, count = mean + delta * size / (count + size), count + size
        variance = total / count
        every = torch.cat(batches[: n + 1]).double()
        if n:
            assert moments.std == pytest.approx(math.sqrt(variance * count / (count - 1)), rel=1e-9)
            assert moments.std == pytest.approx(float(every.std()), rel=1e-9)
        assert moments.mean == pytest.approx(float(every.mean()), rel=1e-9)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_its_definition(random, mask, gamma, lam):
    rewards, values = normal(random, B, T), normal(random, B, T)
    advantages, returns = L.gae(rewards, values, mask, gamma, lam)
    expected = gae_by_definition(rewards.numpy(), values.numpy(), mask.sum(1).tolist(), gamma, lam)
    np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(returns.numpy(), (expected + values.numpy()) * mask.numpy(), atol=1e-12)


def test_with_lambda_one_the_advantage_is_what_came_less_what_was_expected(random, mask):
    rewards, values = normal(random, B, T) * mask, normal(random, B, T)
    _, returns = L.gae(rewards, values, mask, 1.0, 1.0)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns, to_come * mask)


def test_whitened_advantages_have_mean_zero_and_variance_one(random, mask):
    x = 3 + 5 * normal(random, B, T)
    white = L.whiten(x, mask)[mask]
    assert abs(white.mean()) < 1e-7 and white.var() == pytest.approx(1.0, abs=1e-6)
    assert L.whiten(x, mask)[~mask].abs().max() == 0


def clipped_by_hand(logp, old, advantages, mask, clip):
    total, cut, count = 0.0, 0, 0
    for b, t in itertools.product(range(B), range(T)):
        if mask[b, t]:
            ratio = math.exp(logp[b, t] - old[b, t])
            a = float(advantages[b, t])
            near = min(max(ratio, 1 - clip), 1 + clip)
            total -= min(ratio * a, near * a)
            cut += near * a < ratio * a
            count += 1
    return total / count, cut / count


@pytest.mark.parametrize("clip", [0.05, 0.2])
def test_the_clipped_loss_and_its_gradient(random, mask, clip):
    old = normal(random, B, T) - 3
    logp = (old + 0.3 * normal(random, B, T)).requires_grad_()
    advantages = normal(random, B, T)
    loss, cut = L.policy_loss(logp, old, advantages, mask, clip)
    expected, share = clipped_by_hand(logp.detach(), old, advantages, mask, clip)
    assert loss.item() == pytest.approx(expected, abs=1e-12) and float(cut) == pytest.approx(share)
    loss.backward()
    for b, t in [(0, 0), (2, 3), (3, 5), (1, 4)]:
        up, down = (logp.detach().clone() for _ in range(2))
        up[b, t] += 1e-6
        down[b, t] -= 1e-6
        slope = (
            clipped_by_hand(up, old, advantages, mask, clip)[0] - clipped_by_hand(down, old, advantages, mask, clip)[0]
        ) / 2e-6
        assert float(logp.grad[b, t]) == pytest.approx(slope, abs=1e-6)


def test_the_value_loss_takes_the_worse_of_free_and_clipped(random, mask):
    values, old, returns = (normal(random, B, T) for _ in range(3))
    loss, cut = L.value_loss(values, old, returns, mask, 0.2)
    worst = [
        max((v - r) ** 2, (o + max(-0.2, min(0.2, v - o)) - r) ** 2)
        for v, o, r in zip(*(x[mask].tolist() for x in (values, old, returns)), strict=True)
    ]
    assert float(loss) == pytest.approx(0.5 * sum(worst) / len(worst)) and 0 < float(cut) < 1


def test_kl_estimates_have_the_right_mean_and_sign(random):
    """Over all tokens of two small distributions, weighted by the policy: k1 and k3 are the KL itself, k2 is near
    it.
    """
    p = torch.softmax(normal(random, 50), dim=0)
    q = torch.softmax(p.log() + 0.1 * normal(random, 50), dim=0)
    exact = float((p * (p / q).log()).sum())
    found = {kind: float((p * L.kl(p.log(), q.log(), kind)).sum()) for kind in L.KL_KINDS}
    assert found["k1"] == pytest.approx(exact, abs=1e-12) and found["k3"] == pytest.approx(exact, abs=1e-12)
    assert found["k2"] == pytest.approx(exact, rel=0.1)
    assert L.kl(p.log(), q.log(), "k3").min() >= 0 > L.kl(p.log(), q.log(), "k1").min()


def luce_by_hand(scores, order):
    """Of all permutations that agree with the groups: the sum of Plackett's products, over every one of them."""
    w = [math.exp(s) for s in scores]
    total = 0.0
    for way in itertools.product(*(itertools.permutations(group) for group in order)):
        line = [place for group in way for place in group]
        chance = 1.0
        for n in range(len(line)):
            chance *= w[line[n]] / sum(w[place] for place in line[n:])
        total += chance
    return -math.log(total)


@pytest.mark.parametrize(
    "order",
    [
        ((0,), (1,)),
        ((2,), (0,), (1,)),
        ((1, 2), (0,)),
        ((0,), (1, 2, 3)),
        ((3, 0), (1,), (2, 4)),
        ((0, 1, 2, 3), (4, 5)),
        ((0, 1, 2),),
    ],
)
def test_plackett_luce_sums_over_all_orders_of_those_who_tie(random, order):
    count = sum(map(len, order))
    scores = normal(random, count)
    assert float(plackett_luce(scores, order)) == pytest.approx(luce_by_hand(scores.tolist(), order), abs=1e-12)
    assert torch.autograd.gradcheck(lambda s: plackett_luce(s, order), scores.requires_grad_())


def before_by_hand(scores, rest):
    """The sum of Plackett's products over all n! orders of `scores`, with gradients."""
    ways = scores[torch.tensor(list(itertools.permutations(range(len(scores)))))]
    line = torch.cat([ways, rest.expand(len(ways), 1)], dim=1)
    left = line.flip(1).logcumsumexp(1).flip(1)[:, :-1]
    return torch.logsumexp((ways - left).sum(dim=1), dim=0)


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("n", range(2, 9))
def test_ties_equal_the_sum_over_all_their_orders(random, n, spread):
    given = [(spread * normal(random, n)).requires_grad_(), (spread * normal(random, 1)[0]).requires_grad_()]
    mine, theirs = log_before(*given), before_by_hand(*given)
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(mine, given), torch.autograd.grad(theirs, given), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


def test_thirty_ties_equal_the_exact_fraction(random):
    """Where the rates are 1, 2 and 3 times that of the rest, the integral is that of a polynomial with whole
    coefficients.
    """
    rates = [1 + n % 3 for n in range(30)]
    polynomial = [1]
    for rate in rates:  # times 1 - u^rate
        polynomial = [a - b for a, b in itertools.zip_longest(polynomial, [0] * rate + polynomial, fillvalue=0)]
    exact = sum(Fraction(c, k + 1) for k, c in enumerate(polynomial))
    scores = (torch.tensor(rates, dtype=torch.float64).log() + 0.7).requires_grad_()
    found = log_before(scores, torch.tensor(0.7, dtype=torch.float64))
    assert float(found.detach()) == pytest.approx(math.log(exact), abs=1e-12)
    slopes = torch.autograd.grad(found, scores)[0]
    up = log_before(
        scores.detach() + 1e-5 * torch.eye(30, dtype=torch.float64)[4], torch.tensor(0.7, dtype=torch.float64)
    )
    down = log_before(
        scores.detach() - 1e-5 * torch.eye(30, dtype=torch.float64)[4], torch.tensor(0.7, dtype=torch.float64)
    )
    assert float(slopes[4]) == pytest.approx(float(up - down) / 2e-5, abs=1e-9)


def test_a_long_ranking_weighs_as_much_as_a_pair():
    """At equal scores the best one's gradient is InstructGPT's, -1/K; with ties a choice pulls by less than one in
    all.
    """
    for count in (2, 3, 8):
        scores = torch.zeros(count, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.grad(ranking_loss([scores], [[(n,) for n in range(count)]]), scores)[0]
        pairs = [
            torch.nn.functional.logsigmoid(scores[a] - scores[b]) for a, b in itertools.combinations(range(count), 2)
        ]
        instruct = torch.autograd.grad(-torch.stack(pairs).mean(), scores)[0]
        assert float(gradient[0]) == pytest.approx(float(instruct[0])) == pytest.approx(-1 / count)
    for groups in ([(0, 1, 2, 3), (4, 5, 6, 7)], [(0,), (1, 2, 3, 4, 5, 6, 7)], [(0, 1, 2, 3, 4, 5, 6), (7,)]):
        scores = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.grad(ranking_loss([scores], [groups]), scores)[0]
        assert 0 < -float(gradient[list(groups[0])].sum()) < 1  # of a pair: one half
        assert float(gradient.sum()) == pytest.approx(0, abs=1e-12)


def test_for_two_it_is_bradley_terry_with_its_margin():
    scores = torch.tensor([0.3, 1.1], dtype=torch.float64)
    assert float(plackett_luce(scores, ((1,), (0,)))) == pytest.approx(math.log(1 + math.exp(0.3 - 1.1)))
    assert float(plackett_luce(scores, ((1,), (0,)), 0.5)) == pytest.approx(math.log(1 + math.exp(0.3 - 1.1 + 0.5)))
    centred = ranking_loss([scores], [((1,), (0,))], centring=0.01)
    assert float(centred) == pytest.approx(math.log(1 + math.exp(-0.8)) + 0.01 * 1.4**2)


def test_probabilities_of_all_orders_sum_to_one(random):
    scores = normal(random, 4)
    total = sum(
        math.exp(-float(plackett_luce(scores, [(p,) for p in way]))) for way in itertools.permutations(range(4))
    )
    assert total == pytest.approx(1.0)


def test_huge_scores_stay_finite():
    scores = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    loss = plackett_luce(scores, ((1, 2), (0,)))
    assert math.isfinite(float(loss.detach())) and float(loss.detach()) > 1e4
    assert torch.autograd.grad(loss, scores)[0].isfinite().all()


def test_dpo_is_its_equation(random):
    now, start = normal(random, 2), normal(random, 2)
    expected = math.log(1 + math.exp(-0.1 * float((now[0] - start[0]) - (now[1] - start[1]))))
    assert float(dpo_loss([now], [start], [((0,), (1,))], 0.1)) == pytest.approx(expected)


def test_group_advantages_compare_within_the_prompt_and_survive_equal_rewards():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    found = L.group_advantages(rewards)
    std = np.std([1, 2, 3, 4], ddof=1)
    np.testing.assert_allclose(found[0], (np.array([1, 2, 3, 4]) - 2.5) / (std + 1e-4))
    assert found[1].abs().max() == 0


def test_the_gradient_of_grpos_penalty_is_that_of_the_kl(random):
    """Over all tokens of a small vocabulary, weighted by the policy that sampled: no sampling error is left."""
    logits, other = normal(random, 6).requires_grad_(), normal(random, 6)
    logp, reference = torch.log_softmax(logits, 0), torch.log_softmax(other, 0)
    exact = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)[0]
    slopes = []
    for token in range(6):
        one = L.grpo_loss(
            logp[None, token, None],
            logp[None, token, None].detach(),
            reference[None, token, None],
            torch.zeros(1, dtype=torch.float64),
            torch.ones(1, 1, dtype=torch.bool),
            torch.ones(1, 1),
            coefficient=1.0,
        ).loss
        slopes.append(logp[token].exp().detach() * torch.autograd.grad(one, logits, retain_graph=True)[0])
    torch.testing.assert_close(torch.stack(slopes).sum(0), exact)


def test_the_controller_holds_its_target():
    fixed, adaptive = L.KLController(0.1), L.KLController(0.1, target=6.0)
    for _ in range(5):
        fixed.update(100.0)
        adaptive.update(100.0)
    assert fixed.coefficient == 0.1 and adaptive.coefficient == pytest.approx(0.1 * 1.02**5)
    adaptive.update(5.4)
    assert adaptive.coefficient == pytest.approx(0.1 * 1.02**5 * 0.99)


def test_right_counts_the_pairs_that_are_told_apart():
    assert right([3.0, 2.0, 1.0], ((0,), (1,), (2,))) == (3, 3)
    assert right([3.0, 2.0, 2.0], ((1,), (0, 2))) == (0, 2)
