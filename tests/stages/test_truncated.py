"""A completion that was cut at its token limit gets no end token: not from reward models, DPO, PPO or GRPO."""

import json

import pytest
import torch

from helpers.driven import outcome
from helpers.recipes import reward_recipe, rl_recipe
from jupyter_gpt.data.prompt_completion import end_token_id
from jupyter_gpt.data.render import Question, render
from jupyter_gpt.models.scoring import scores
from jupyter_gpt.nn.logprobs import Reader, logprobs
from jupyter_gpt.stages import dpo, rl_preparation
from jupyter_gpt.stages import reward as reward_stage
from jupyter_gpt.stages.dpo import summed
from jupyter_gpt.stages.rank import rank
from jupyter_gpt.stages.rankings import Ranking
from jupyter_gpt.stages.rollout import Prompt, Reward, rewarded, roll_out

PROMPTS = [f"Tale {n}. The old fox" for n in range(6)]
TEXTS = (" saw 3 small birds.", " saw 7")


@pytest.fixture(params=[False, True], ids=["base", "chat"])
def model(request, gpt, tiny_model):
    made = tiny_model(gpt, "tiny", chat=request.param)
    with torch.no_grad():  # a fresh model's blocks write nothing: no token would see another
        generator = torch.Generator().manual_seed(1)
        for parameter in made.module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made


def told(finish_reasons=("stop", "length")):
    pair = tuple(
        {"model": "tiny", "text": text, "seed": 0} | ({"finish_reason": why} if why else {})
        for text, why in zip(TEXTS, finish_reasons, strict=True)
    )
    return [Ranking(prompt, pair, ((0,), (1,)), time=float(n)) for n, prompt in enumerate(PROMPTS)]


def ids_of(model, prompt, text, ended):
    tokenizer = model.tokenizer
    ids = [*render("tiny", tokenizer, Question(prompt)).ids, *tokenizer(text, add_special_tokens=False).input_ids]
    return tuple(ids) + ((end_token_id(tokenizer),) if ended else ())


@pytest.mark.parametrize(("why", "ended"), [("length", False), ("stop", True), (None, True)])
def test_a_reward_model_learns_the_text_as_it_stands(model, why, ended):
    recipe = reward_recipe("tiny", "taste", lora=4)
    training = outcome(reward_stage.prepare(recipe, model, told(("stop", why))))
    for ranked in training.rankings + training.held_out:
        wanted = ids_of(model, ranked.prompt, TEXTS[1], ended)
        if model.tokenizer.pad_token_id == wanted[-1]:  # transformers' classifiers read before the padding
            wanted = wanted[:-1]
        assert ranked.rows[1] == wanted
        found = scores(training.reader, ranked.rows).detach()
        with torch.no_grad():
            theirs = [training.model(input_ids=torch.tensor([row])).logits[0, 0] for row in ranked.rows]
        torch.testing.assert_close(found, torch.stack(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("why", "ended"), [("length", False), ("stop", True), (None, True)])
def test_dpo_learns_the_text_as_it_stands(model, why, ended):
    recipe = rl_recipe("tiny", [], algo="dpo", rankings="taste", max_tokens=4)
    training = outcome(rl_preparation.prepare(recipe, "a", model, dpo, [], told(("stop", why))))
    one = training.rankings[0]
    assert one.rows[0].completion[-1] == end_token_id(model.tokenizer)
    assert one.rows[1].ids in [ids_of(model, prompt, TEXTS[1], ended) for prompt in PROMPTS]
    with torch.no_grad():
        found = summed(training.policy, one.rows)
        for row, mine in zip(one.rows, found, strict=True):
            logp = torch.log_softmax(model.module(torch.tensor([row.ids])).logits[0].float(), dim=-1)
            places = range(len(row.prompt) - 1, len(row.ids) - 1)
            theirs = sum(logp[place, row.ids[place + 1]] for place in places)
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


def test_what_the_policy_samples_is_learned_and_judged_as_it_stands(gpt, model):
    """Some end and some do not: PPO and GRPO learn the ids that were sampled, a reward model reads the text with its
    end or without."""
    end = end_token_id(model.tokenizer)
    stop = frozenset({end, *range(40, 90)})  # so many that often one is said
    asked = [Prompt(text, render("tiny", model.tokenizer, Question(text)).ids) for text in PROMPTS]
    found = outcome(roll_out(model.module, model.tokenizer, asked, 8, 6, stop, range(len(asked))))
    assert 4 < sum(found.finished) < 44 and found.truncated.tolist() == [not whole for whole in found.finished]
    for row, whole in zip(found.rows, found.finished, strict=True):
        assert (row.completion[-1] in stop) == whole and not stop & set(row.completion[:-1])
        assert whole or len(row.completion) == 6
    with torch.no_grad():
        mine = logprobs(Reader(model.module), found.rows)[0]
        for place, row in enumerate(found.rows):
            logp = torch.log_softmax(model.module(torch.tensor([row.ids])).logits[0].float(), dim=-1)
            theirs = logp[len(row.prompt) - 1 : -1].gather(1, torch.tensor(row.completion)[:, None])[:, 0]
            torch.testing.assert_close(mine[place, : len(theirs)], theirs, atol=1e-4, rtol=1e-4)

    judge = outcome(reward_stage.prepare(reward_recipe("tiny", "taste", lora=4), model, told()))
    reward = Reward("judge", model=judge.reader, tokenizer=model.tokenizer)
    values = outcome(rewarded([reward], found)).total
    for prompt, text, whole, value in zip(found.prompts, found.texts, found.finished, values, strict=True):
        ids = ids_of(model, prompt, text, whole and end != model.tokenizer.pad_token_id)
        with torch.no_grad():
            assert value == pytest.approx(float(judge.model(input_ids=torch.tensor([ids])).logits), abs=1e-5)


def test_a_reward_model_can_be_asked_of_a_text_that_was_cut(gpt, tiny_model):
    tiny_model(gpt, "tiny", chat=True)
    for ranking in told():
        gpt.rankings.named("taste").add(ranking)
    gpt.reward("judge", rankings="taste", steps=1, lora=4)
    judge = gpt.models["judge"]
    row = ids_of(judge, PROMPTS[0], TEXTS[0], ended=False)
    with torch.no_grad():
        theirs = float(judge.module(input_ids=torch.tensor([row])).logits)
    assert judge.score(PROMPTS[0], TEXTS[0], finished=False) == pytest.approx(theirs, abs=1e-5)
    assert judge.score(PROMPTS[0], TEXTS[0]) != pytest.approx(theirs, abs=1e-5)


def test_rankings_keep_how_each_completion_ended(gpt, tiny_model):
    tiny_model(gpt, "tiny")
    ranked = rank(
        gpt,
        "taste",
        PROMPTS,
        model="tiny",
        samples=3,
        max_tokens=2,
        judge=lambda prompt, text: len(text) + hash(text) % 7,
    )
    lines = [json.loads(line) for line in ranked.rankings.path.read_text("utf-8").splitlines()]
    reasons = [[each["finish_reason"] for each in line["completions"]] for line in lines]
    assert "length" in {reason for each in reasons for reason in each}
    assert [r.finished for r in ranked.rankings.read()] == [[one == "stop" for one in each] for each in reasons]
