"""Rollouts by a copy of the policy in fewer bits."""

import copy

import pytest
import torch

from helpers.rl_runs import PROMPTS, SMALL, bytes_of, short
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.lora import lora, merged
from jupyter_gpt.nn.rl_losses import importance_weights
from jupyter_gpt.stages.rollout_copy import followed, rounded

DTYPES = ("bfloat16", "int8", "int4")
GAP = {"bfloat16": 0.02, "int8": 0.03, "int4": 0.2}  # of logits, in standard deviations of them


@pytest.fixture
def start(gpt, tiny):
    return gpt.models["tiny"].module


def test_weighted_losses_of_another_sampler_have_the_policys_expectation():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator, dtype=torch.float64)
    policy = logits.log_softmax(0)
    sampler = (logits + 0.2 * torch.randn(50, generator=generator, dtype=torch.float64)).log_softmax(0)
    loss = torch.randn(50, generator=generator, dtype=torch.float64)
    expected = (policy.exp() * loss).sum()
    found = (sampler.exp() * importance_weights(policy, sampler) * loss).sum()
    plain = (sampler.exp() * loss).sum()
    torch.testing.assert_close(found, expected)
    assert (plain - expected).abs() > 1e-3
    assert importance_weights(torch.tensor([0.0]), torch.tensor([-5.0])).item() == 2


@pytest.mark.parametrize("tokens", [(), (3, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_copy_is_the_policy_and_follows_it(start, dtype, tokens):
    policy = lora(start, 4, seed=1, tokens=tokens).eval()
    ids = torch.randint(0, start.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(2))

    def gap(of):
        with torch.no_grad():
            mine, theirs = merged(policy)(ids).logits, of(ids).logits.float()
        return ((mine - theirs).std() / mine.std()).item()

    made = followed(policy, None, dtype)
    assert 0 < gap(made) < GAP[dtype]
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter + torch.randn(parameter.shape, generator=generator) / 8
    assert gap(made) > 2 * GAP[dtype], "the adapter has changed, the copy has not"
    again = followed(policy, made, dtype)
    assert again is made and gap(made) < GAP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_leaves_the_model_as_it_is(start, dtype):
    before = copy.deepcopy(start.state_dict())
    made = rounded(start, dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())
    assert not any(p.data_ptr() == q.data_ptr() for p in made.parameters() for q in start.parameters() if p.numel())
    assert not any(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize(
    ("dtype", "options"), [*((each, {}) for each in DTYPES), ("int8", {"lora": 0}), ("int8", {"epochs": 2})]
)
def test_a_run(gpt, tiny, dtype, options):
    given = {**SMALL, **options}
    run = gpt.rlhf("policy", PROMPTS, policy="tiny", algo="grpo", reward=short, rollout_dtype=dtype, **given)
    assert run.status == "finished" and run.recipe["rollout_dtype"] == dtype
    steps = [event for event in run.events if event["event"] == "step"]
    assert len(steps) == 3 and all(0 < step["sampler_gap"] < 0.3 for step in steps)
    plain = gpt.rlhf("plain", PROMPTS, policy="tiny", algo="grpo", reward=short, **given)
    assert all("sampler_gap" not in event for event in plain.events)
    assert bytes_of(gpt, "policy") != bytes_of(gpt, "plain")


def test_dynamic_sampling_keeps_the_samplers_log_probabilities(gpt, tiny):
    run = gpt.rlhf(
        "policy", PROMPTS, policy="tiny", algo="grpo", reward=lambda prompt, completion: float("e" in completion),
        rollout_dtype="int8", dynamic_sampling=2, **SMALL,
    )  # fmt: skip
    assert all(0 < event["sampler_gap"] < 0.3 for event in run.events if event["event"] == "step")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algo": "ppo"}, "--rollout-dtype belongs to --algo grpo: leave it out with ppo"),
        ({"devices": 2}, "--rollout-dtype samples on one device: leave --devices and --nodes out"),
    ],
)
def test_what_does_not_go_together(gpt, tiny, options, message):
    given = {"algo": "grpo", "reward": short, "rollout_dtype": "int8", **SMALL, **options}
    with pytest.raises(GPTError, match=message):
        gpt.rlhf("policy", PROMPTS, policy="tiny", **given)
