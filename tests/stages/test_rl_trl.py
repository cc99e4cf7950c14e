"""The same batch through TRL: losses, gradients and advantages within 1e-5."""

import pytest
import torch

from helpers import trl_batches
from helpers.driven import outcome
from helpers.trl_batches import TALES, gradients, model, rows_in, same, settings
from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.models.scoring import scores
from jupyter_gpt.nn.logprobs import Reader, logprobs, mask_of
from jupyter_gpt.nn.preference_loss import preference_loss, ranking_loss
from jupyter_gpt.nn.rl_losses import group_advantages, grpo_loss, leave_one_out, token_weights
from jupyter_gpt.stages.policy import scorer_of
from jupyter_gpt.stages.rollout import Reward, Rollout, rewarded, rollout_values

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def tokenizer():
    return trl_batches.tokenizer()


def by_length():
    """A reward of TRL's, and the rewards that it has given."""
    told = []

    def reward(completions, **rest):
        told.extend(float(len(text)) for text in completions)
        return told[-len(completions) :]

    return told, reward


def sampled(kind, module, rewards, tokenizer, folder, **more):
    """A trainer of TRL's, and four completions of a prompt with their advantages."""
    from datasets import Dataset

    options = {"num_generations": 4, "max_completion_length": 6, "epsilon": 0.2, "temperature": 1.0, **more}
    trainer = getattr(trl, f"{kind}Trainer")(
        module,
        rewards,
        args=settings(getattr(trl, f"{kind}Config"), folder, **options),
        train_dataset=Dataset.from_list([{"prompt": text[:12]} for text in TALES]),
        processing_class=tokenizer,
    )
    module.train()
    return trainer, trainer._generate_and_score_completions([{"prompt": "Tale 7. The"}] * 4)


def sampled_rows(inputs, lengths):
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    return [
        PromptCompletion(tuple(p), tuple(c[:n].tolist()))
        for p, c, n in zip(prompts, inputs["completion_ids"], lengths, strict=True)
    ]


KINDS = {  # TRL's options, and the coefficient of the KL penalty
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, 0.04),
    "grpo": ({"loss_type": "grpo"}, 0.04),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, 0.04),
    "gspo": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, 0.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "mask_truncated_completions"])
def test_grpo_advantages_loss_and_gradients(tokenizer, tmp_path, masked, kind):
    told, reward = by_length()
    start = model(tokenizer)
    with torch.no_grad():  # so that some end
        start.lm_head.weight[tokenizer.eos_token_id] *= 3
    start.save_pretrained(tmp_path / "start")  # TRL loads its reference from there
    module = type(start).from_pretrained(tmp_path / "start")
    more = {"beta": KINDS[kind][1], "mask_truncated_completions": masked, **KINDS[kind][0]}
    trainer, inputs = sampled("GRPO", module, reward, tokenizer, tmp_path, **more)
    wanted = group_advantages(torch.tensor(told, dtype=torch.float32).view(1, 4), kind != "dr_grpo").flatten()
    torch.testing.assert_close(inputs["advantages"].flatten(), wanted, atol=1e-5, rtol=1e-5)

    with torch.no_grad():
        for parameter in module.parameters():  # a policy that is no longer the one that sampled, nor the reference
            parameter.add_(0.05 * torch.randn_like(parameter))
    lengths = [n or 6 for n in inputs["completion_mask"].sum(1).tolist()]
    rows = sampled_rows(inputs, lengths)
    mask = mask_of(rows)
    truncated = torch.tensor([row.completion[-1] != tokenizer.eos_token_id for row in rows])
    assert 0 < truncated.sum() < 4
    learned = mask & ~truncated[:, None] if masked else mask
    width = mask.shape[1]
    old = (
        torch.randn(mask.shape, generator=torch.Generator().manual_seed(2)) * 0.1
        + logprobs(Reader(module), rows)[0].detach()
    )
    inputs["old_per_token_logps"] = torch.nn.functional.pad(old, (0, inputs["completion_ids"].shape[1] - width))
    reference = inputs["ref_per_token_logps"][:, :width] if KINDS[kind][1] else None
    inputs["num_items_in_batch"], trainer.current_gradient_accumulation_steps = learned.sum(), 1
    theirs = trainer._compute_loss(module, inputs)
    theirs.backward()
    their_gradients = gradients(module)
    module.zero_grad()
    weights, clip = token_weights(kind, learned, 6), (0.2, KINDS[kind][0].get("epsilon_high", 0.2))
    now, coefficient = logprobs(Reader(module), rows)[0], KINDS[kind][1]
    mine = grpo_loss(now, old, reference, wanted, learned, weights, kind, clip, coefficient).loss
    mine.backward()
    assert abs(float(mine.detach()) - float(theirs.detach())) < 1e-5
    same(gradients(module), their_gradients)


def test_several_rewards_with_weights_and_none_are_trls(tokenizer, tmp_path):
    """One of them does not apply to two completions; both see the tokens of each."""
    told = {}

    def length(prompts, completions, completion_ids, **rest):
        told.update(texts=completions, prompts=prompts, ids=completion_ids)
        return [float(len(text)) for text in completions]

    def first(completions, completion_ids, **rest):
        return [None if n in (0, 2) else float(ids[0]) for n, ids in enumerate(completion_ids)]

    weights = [0.5, -2.0]
    more = {"beta": 0.0, "reward_weights": weights}
    trainer, inputs = sampled("GRPO", model(tokenizer), [length, first], tokenizer, tmp_path, **more)
    lengths = [len(ids) for ids in told["ids"]]
    rows, reasons = sampled_rows(inputs, lengths), ["stop"] * 4
    assert [list(row.completion) for row in rows] == told["ids"]
    rollout = Rollout(4, rows, told["prompts"], told["texts"], reasons, torch.zeros(4, max(lengths)))
    named = [Reward(f"${f.__name__}", w, function=f) for f, w in zip((length, first), weights, strict=True)]
    scores = outcome(rewarded(named, rollout))
    mine = group_advantages(torch.tensor(scores.total).view(1, 4)).flatten()
    torch.testing.assert_close(mine, inputs["advantages"].flatten(), atol=1e-5, rtol=1e-5)
    rollout.rewards, rollout.parts = torch.tensor(scores.total), scores.parts
    values, theirs = rollout_values(rollout), trainer._metrics["train"]
    assert [values["reward/length"]] == pytest.approx(theirs["rewards/length/mean"])
    assert [values["reward/first"]] == pytest.approx(theirs["rewards/first/mean"])
    assert [float(values["reward"])] == pytest.approx(theirs["reward"])


def test_rloo_advantages_and_loss(tokenizer, tmp_path):
    told, reward = by_length()
    module = model(tokenizer)
    trainer, inputs = sampled("RLOO", module, reward, tokenizer, tmp_path, beta=0.0)
    wanted = leave_one_out(torch.tensor(told, dtype=torch.float32).view(1, 4)).flatten()
    torch.testing.assert_close(inputs["advantages"].flatten(), wanted, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    lengths = inputs["completion_mask"].sum(1).tolist()
    rows = sampled_rows(inputs, lengths)
    mask = mask_of(rows)
    old = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2)) * 0.05
    old = (old + logprobs(Reader(module), rows)[0].detach()) * mask
    inputs["old_logps"] = old.sum(1)
    theirs = trainer._compute_loss(module, inputs)
    theirs.backward()
    their_gradients = gradients(module)
    module.zero_grad()
    now = logprobs(Reader(module), rows)[0]
    mine = grpo_loss(now, old, None, wanted, mask, token_weights("rloo", mask, 6), "rloo").loss
    mine.backward()
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    same(gradients(module), their_gradients)


def test_simpo_and_orpo_are_trls():
    """On log-probabilities per token, which both take; TRL's NLL of ORPO is that of the better completion."""
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    random = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[3, 7], [5, 2], [4, 4]])
    each = -torch.rand(3, 2, generator=random) * 2 - 0.05
    told = SimpleNamespace(
        beta=0.7,
        loss_type="simpo",
        simpo_gamma=0.5,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
        alpha=0.0,
    )
    simpo = CPOTrainer.cpo_loss(told, each[:, 0], each[:, 1])[0]
    orpo = -ORPOTrainer.odds_ratio_loss(told, each[:, 0], each[:, 1])[0] - each[:, 0]
    for kind, theirs in (("simpo", simpo), ("orpo", orpo)):
        mine = [preference_loss(kind, a * n, None, n, ((0,), (1,)), 0.7) for a, n in zip(each, lengths, strict=True)]
        torch.testing.assert_close(torch.stack(mine), theirs)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_dpo_loss_and_gradients(tokenizer, tmp_path, kind):
    from datasets import Dataset

    data = [{"prompt": f"Tale {n}.", "chosen": f" The old fox saw {n} birds", "rejected": " glad"} for n in range(4)]
    module, reference = model(tokenizer), model(tokenizer, seed=1)
    trainer = trl.DPOTrainer(
        module,
        reference,
        args=settings(trl.DPOConfig, tmp_path, beta=0.3, loss_type=kind),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(data),
    )
    inputs = next(
        iter(torch.utils.data.DataLoader(trainer.train_dataset, batch_size=4, collate_fn=trainer.data_collator))
    )
    module.eval()
    theirs = trainer._compute_loss(module, inputs, return_outputs=False)
    theirs.backward()
    their_gradients = gradients(module)
    module.zero_grad()
    rows = rows_in(inputs)
    now = logprobs(Reader(module), rows)[0].sum(1)
    with torch.no_grad():
        start = logprobs(Reader(reference), rows)[0].sum(1)
    pairs = [[n, n + 4] for n in range(4)]  # TRL stacks the chosen on the rejected
    lengths = torch.tensor([len(row.completion) for row in rows])
    losses = [preference_loss(kind, now[p], start[p], lengths[p], ((0,), (1,)), 0.3) for p in pairs]
    mine = torch.stack(losses).mean()
    mine.backward()
    assert abs(float(mine.detach()) - float(theirs.detach())) < 1e-5
    same(gradients(module), their_gradients)


def test_reward_loss_and_gradients(tokenizer, tmp_path):
    from datasets import Dataset

    module = scorer_of(model(tokenizer).eval(), 0, tokenizer.pad_token_id, seed=3)
    data = [
        {"chosen": f"Tale {n}. The old fox saw {n}", "rejected": f"Tale {n}. glad", "margin": 0.1 * n} for n in range(4)
    ]
    trainer = trl.RewardTrainer(
        module,
        args=settings(trl.RewardConfig, tmp_path, center_rewards_coefficient=0.01),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{k: d[k] for k in ("chosen", "rejected")} for d in data]),
    )
    inputs = next(
        iter(torch.utils.data.DataLoader(trainer.train_dataset, batch_size=4, collate_fn=trainer.data_collator))
    )
    module.eval()
    for margin in (None, 0.25):
        given = dict(inputs) if margin is None else {**inputs, "margin": torch.full((4,), margin)}
        module.zero_grad()
        theirs = trainer.compute_loss(module, given)
        theirs.backward()
        their_gradients = gradients(module)
        module.zero_grad()
        pad = tokenizer.pad_token_id  # TRL ends each text with it, and transformers' classifiers do not see it
        rows = [tuple(token for token in ids if token != pad) for ids in inputs["input_ids"].tolist()]
        found = scores(Reader(module), rows)
        mine = ranking_loss([found[[n, n + 4]] for n in range(4)], [((0,), (1,))] * 4, margin or 0.0, 0.01)
        mine.backward()
        assert abs(float(mine.detach()) - float(theirs.detach())) < 1e-5
        same(gradients(module), their_gradients)
