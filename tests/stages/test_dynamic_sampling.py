"""Dynamic sampling (DAPO): prompts that teach nothing are replaced, within a limit; what is cut costs."""

from types import SimpleNamespace

import pytest

from helpers.errors import fail
from helpers.rl_runs import PROMPTS
from helpers.stopping import stopped_at
from jupyter_gpt.stages import grpo
from jupyter_gpt.stages.rl import group_advantages_of

SMALL = {"policy": "tiny", "algo": "grpo", "max_tokens": 6, "samples": 4, "lora": 4, "held_out": 0.0, "lr": 1e-2}


def easy(prompt, completion):
    """Every completion of half of the prompts is right; of the others the long ones."""
    return 1.0 if int(prompt.split(".")[0][5:]) % 2 else float(len(completion))


def never(prompt, completion):
    return 0.0


@pytest.fixture
def trained_on(monkeypatch):
    """The rollouts of the steps of all runs."""
    found, update = [], grpo.update

    def watched(training, rollout, reference):
        found.append(rollout)
        return (yield from update(training, rollout, reference))

    monkeypatch.setattr(grpo, "update", watched)
    return found


def test_other_prompts_take_the_place_of_those_whose_rewards_are_alike(gpt, tiny, trained_on):
    given = {"reward": easy, "steps": 3, "prompts_per_step": 4, **SMALL}
    plain = gpt.rlhf("plain", PROMPTS, **given)
    before = [rollout.rewards.view(4, 4) for rollout in trained_on]
    trained_on.clear()
    run = gpt.rlhf("dynamic", PROMPTS, dynamic_sampling=8, **given)
    assert any(groups.amax(1).eq(groups.amin(1)).any() for groups in before)
    for rollout in trained_on:
        groups = rollout.rewards.view(4, 4)
        assert (groups.amax(1) > groups.amin(1)).all() and len(set(rollout.prompts)) == 4
        assert rollout.prompts == [prompt for prompt in rollout.prompts[::4] for _ in range(4)]
        assert rollout.rewards.tolist() == [easy(*each) for each in zip(rollout.prompts, rollout.texts, strict=True)]
    table = run.history
    alike = int(before[0].amax(1).eq(before[0].amin(1)).sum())
    assert table["resampled"].iloc[0] >= alike > 0 and "resampled" not in plain.history
    # the figures tell of the prompts that came, not of those that were chosen
    assert table["reward"].iloc[0] == plain.history["reward"].iloc[0] == pytest.approx(float(before[0].mean()))
    assert table["length"].iloc[0] == plain.history["length"].iloc[0]
    assert table["tokens"].iloc[0] > plain.history["tokens"].iloc[0]


def test_up_to_the_limit(gpt, tiny):
    given = {"reward": never, "steps": 4, "prompts_per_step": 2, **SMALL}
    run = gpt.rlhf("a", PROMPTS, dynamic_sampling=3, **given)
    assert run.history["resampled"].tolist() == [6.0] * 4 and run.history["loss"].tolist() == [0.0] * 4
    assert [e["step"] for e in run.events if e["event"] == "warning"] == [3]  # nothing to learn from


def test_prompts_that_were_not_asked_yet_come_first(gpt, tiny, monkeypatch):
    from jupyter_gpt.stages import rl

    asked, rollout_of = [], rl.rollout_of

    def watched(training, prompts, samples, *rest):
        if samples == 4 and len(prompts) == 3:
            asked.append([prompt.text for prompt in prompts])
        return (yield from rollout_of(training, prompts, samples, *rest))

    monkeypatch.setattr(rl, "rollout_of", watched)
    gpt.rlhf("a", PROMPTS, reward=never, dynamic_sampling=4, steps=1, prompts_per_step=3, **SMALL)
    assert len(asked) == 5 and sorted(text for texts in asked[:4] for text in texts) == sorted(PROMPTS)


def test_stopped_and_resumed_equals_uninterrupted(gpt, tiny):
    given = {"reward": "$easy", "steps": 8, "eval_every": 4, "prompts_per_step": 4, "dynamic_sampling": 3, **SMALL}
    variables = {"easy": easy}
    whole = gpt.rlhf("whole", PROMPTS, variables=variables, **given)
    run = stopped_at(3, gpt.rlhf, "part", PROMPTS, variables=variables, **given)
    assert run.status == "stopped" and 3 <= run.step < 8
    again = gpt.resume("part", variables=variables)
    assert again.history["resampled"].tolist() == whole.history["resampled"].tolist()
    one, two = ((gpt.models.folder(n) / "adapter_model.safetensors").read_bytes() for n in ("whole", "part"))
    assert one == two


def test_what_is_cut_costs_in_grpo_too(gpt, tiny, trained_on):
    """All have one reward; those that ended get more than those that were cut."""
    tiny.module.lm_head.weight.data[tiny.tokenizer.eos_token_id] *= 8
    given = {"reward": never, "steps": 1, "prompts_per_step": 2, **SMALL, "samples": 16}
    run = gpt.rlhf("a", PROMPTS, missing_eos_penalty=2.0, **given)
    [rollout] = trained_on
    cut = rollout.truncated
    assert 0 < cut.sum() < 32 and run.history["reward"].tolist() == [0.0] and run.history["grad_norm"].iloc[0] > 0
    recipe = SimpleNamespace(missing_eos_penalty=2.0, loss=None, no_std=False)
    advantages = group_advantages_of(SimpleNamespace(recipe=recipe), rollout)[:, 0]
    assert advantages[cut].min() < 0 < advantages[~cut].max() and (advantages[cut] <= 0).all()
    plain = gpt.rlhf("b", PROMPTS, **given)
    assert plain.history["grad_norm"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algo": "ppo", "dynamic_sampling": 2}, "--dynamic-sampling belongs to --algo grpo"),
        ({"dynamic_sampling": 0}, "--dynamic-sampling 0 must be above zero"),
        ({"dynamic_sampling": 101}, "--dynamic-sampling 101 must be 100 or less"),
    ],
)
def test_bad_input_is_one_line(gpt, tiny, given, message):
    assert message in fail(gpt.rlhf, "a", PROMPTS, **{**SMALL, "reward": never, **given})
