"""Log-probabilities, values and scores of padded batches against one row at a time through transformers' own
forward.
"""

import pytest
import torch

from helpers.shapes import build
from jupyter_gpt.data.prompt_completion import PromptCompletion, batches
from jupyter_gpt.models.scoring import scores
from jupyter_gpt.nn.heads import head_of
from jupyter_gpt.nn.logprobs import Reader, logprobs, mask_of
from jupyter_gpt.stages.policy import critic_of, policy_of, scorer_of, values_of


def llama(tied=False):
    return build("llama", tie_word_embeddings=tied, pad_token_id=0)


def gpt2():
    return build("gpt2", pad_token_id=0)


ROWS = [
    PromptCompletion((5, 6, 7), (8, 9, 10, 11)),
    PromptCompletion((12,), (13,)),
    PromptCompletion((3, 4, 5, 6, 7, 8), (9, 4)),
]


def one_by_one(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    every = torch.log_softmax(logits, -1)[len(row.prompt) - 1 : -1]
    return every.gather(1, torch.tensor(row.completion)[:, None])[:, 0], -(every.exp() * every).sum(-1)


@pytest.mark.parametrize("make", [llama, lambda: llama(True), gpt2])
def test_a_padded_batch_is_its_rows(make):
    model = make()
    logp, entropy = logprobs(Reader(model), ROWS)
    assert mask_of(ROWS).sum(1).tolist() == [4, 1, 2]
    for n, row in enumerate(ROWS):
        expected, nats = one_by_one(model, row)
        torch.testing.assert_close(logp[n, : len(expected)].double(), expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(entropy[n, : len(nats)].double(), nats, atol=2e-5, rtol=1e-5)
        assert logp[n, len(expected) :].abs().sum() == 0


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_log_softmax(tied):
    weights = torch.randn(3, 4)
    found = []
    for own in (True, False):
        model = llama(tied).requires_grad_(True)
        if own:
            logp = logprobs(Reader(model), ROWS)[0]
        else:
            logp = torch.zeros(3, 4)
            for n, row in enumerate(ROWS):
                logits = model(input_ids=torch.tensor([row.ids])).logits[0]
                every = torch.log_softmax(logits, -1)[len(row.prompt) - 1 : -1]
                own_row = every.gather(1, torch.tensor(row.completion)[:, None])[:, 0]
                logp = logp + torch.nn.functional.pad(own_row, (0, 4 - len(own_row)))[None] * (
                    torch.arange(3)[:, None] == n
                )
        (logp * weights).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name in found[1]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=2e-4, rtol=1e-3)


def test_a_head_that_scales_its_logits_is_left_to_its_own_forward():
    model = build("granite", num_hidden_layers=1, logits_scaling=4.0)
    torch.testing.assert_close(
        logprobs(Reader(model), ROWS[:1])[0][0].double(), one_by_one(model, ROWS[0])[0], atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("make", [llama, gpt2])
def test_scores_are_those_of_the_librarys_classifier(make):
    model = scorer_of(make(), 4, 0, seed=1)
    rows = [row.ids for row in ROWS]
    padded = torch.tensor([[*row, *[0] * (8 - len(row))] for row in rows])
    torch.testing.assert_close(scores(Reader(model), rows), model(input_ids=padded).logits[:, 0])


def test_a_critic_begins_at_zero_and_values_each_state_by_what_stands_before_it():
    critic = critic_of(llama(), 4, 0, seed=1)
    assert values_of(Reader(critic), ROWS).abs().max() == 0
    with torch.no_grad():
        head_of(critic).weight.normal_()
    one = values_of(Reader(critic), ROWS)
    other = values_of(Reader(critic), [ROWS[0]._replace(completion=(8, 9, 10, 50)), *ROWS[1:]])
    assert torch.equal(one, other)  # the last token is an action, not a state
    changed = values_of(Reader(critic), [ROWS[0]._replace(completion=(8, 50, 10, 11)), *ROWS[1:]])
    assert torch.equal(one[0, :2], changed[0, :2]) and not torch.equal(one[0, 2:], changed[0, 2:])


def test_policy_critic_and_reward_share_the_tensors_of_the_base():
    base = llama()
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    storages = {p.data_ptr() for p in base.parameters()}
    for made in (policy_of(base, 4, 0), critic_of(base, 4, 0, 1), scorer_of(base, 4, 0, 2)):
        own = [p for p in made.parameters() if p.data_ptr() not in storages]
        assert sum(p.numel() for p in own) < 0.5 * sum(p.numel() for p in base.parameters())
        assert all(
            p.requires_grad or "original_module" in n
            for n, p in made.named_parameters()
            if p.data_ptr() not in storages
        )
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())


def test_a_scorer_of_an_adapter_has_what_the_adapter_learned():
    adapter = policy_of(llama(), 4, 0)
    with torch.no_grad():
        for name, p in adapter.named_parameters():
            if "lora_B" in name:
                p.normal_()
    hidden = adapter.get_base_model().model(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state
    scorer = scorer_of(adapter, 16, 0, 1)
    torch.testing.assert_close(
        scorer.get_base_model().model(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state, hidden
    )


def test_batches_hold_every_row_once_within_their_budget():
    lengths = [3, 9, 4, 4, 8, 30]
    found = batches(lengths, 18)
    assert sorted(place for batch in found for place in batch) == list(range(6))
    assert all(len(batch) == 1 or max(lengths[p] for p in batch) * len(batch) <= 18 for batch in found)
