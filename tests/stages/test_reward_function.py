"""Rewards by functions: one completion at a time or all at once, with the columns of the prompts' rows."""

import numpy as np
import pandas
import pytest
import torch

from helpers.errors import fail
from helpers.stopping import stopped_at
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.run_report import panels
from jupyter_gpt.runs.events import declared
from jupyter_gpt.stages.reward_function import check_columns, rewards_of
from jupyter_gpt.stages.rl_rows import Rows, rows_of

ROWS = [{"question": f"Tale {n}. The old fox", "answer": f"{n} birds #### {n}", "weight": n / 2} for n in range(6)]
PROMPTS = [row["question"] for row in ROWS]
COLUMNS = {row["question"]: {"answer": row["answer"], "weight": row["weight"]} for row in ROWS}
SMALL = {"max_tokens": 6, "prompts_per_step": 2, "samples": 4, "lora": 4, "steps": 2, "eval_every": 2}


def simple(prompt, completion, answer):
    return float(answer.split("#### ")[1])


def all_at_once(prompts, completions, answer, **more):
    assert len(prompts) == len(completions) == len(more["weight"]) == len(more["finish_reason"])
    return [simple(*each) for each in zip(prompts, completions, answer, strict=True)]


def trls(completions, answer, **kwargs):
    return [float(each.split("#### ")[1]) for each in answer]


@pytest.mark.parametrize("function", [simple, all_at_once, trls])
def test_a_function_is_given_the_columns_it_names(function):
    prompts = [PROMPTS[3], PROMPTS[1], PROMPTS[3]]
    assert rewards_of("f", function, COLUMNS, prompts, ["a", "b", "c"], [True, False, True], [[1]] * 3) == [
        3.0,
        1.0,
        3.0,
    ]


def test_what_has_a_default_or_is_not_named_is_left_out():
    def scaled(prompt, completion, scale=2.0, *, finish_reason, weight=0.0):
        return scale + weight + (finish_reason == "length")

    assert rewards_of("f", scaled, COLUMNS, PROMPTS[2:3], ["a"], [False], [[1]]) == [4.0]
    plain = lambda prompt, completion: len(completion)  # noqa: E731
    assert rewards_of("f", plain, COLUMNS, PROMPTS[:1], ["abc"], [True], [[1]]) == [3.0]
    assert rewards_of("f", max, {}, ["1"], ["3"], [True], [[1]]) == [3.0]  # a builtin without a signature


@pytest.mark.parametrize(
    "function",
    [
        lambda completion, answer: completion + answer,
        lambda completion, prompt, answer: completion + answer + prompt[:0],
        lambda answer, completion: completion + answer,
        lambda answer, completion, prompt, **more: completion + answer + more["weight"],
        lambda completion, *, answer: completion + answer,
        lambda text, reply, answer: reply + answer,
        lambda text, completion, answer: completion + answer,
    ],
)
def test_prompt_and_completion_come_under_their_names_wherever_they_stand(function):
    columns = {"p": {"answer": "2", "weight": ""}}
    check_columns("f", function, columns)
    assert rewards_of("f", function, columns, ["p"], ["1"], [True], [[1]]) == [12.0]
    assert rewards_of("f", lambda completion: completion, columns, ["p"], ["1"], [True], [[1]]) == [1.0]
    with pytest.raises(GPTError, match="reward f asks for text, but the prompts have answer, weight"):
        check_columns("f", lambda text, prompt: 1.0, columns)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda completions: [1.0], "reward f must return 2 numbers, one for each completion, got 1"),
        (lambda completions: 1.0, "must return 2 numbers, one for each completion, got 1.0"),
        (lambda completions: np.float64(1.0), "must return 2 numbers, one for each completion, got"),
        (lambda completions: None, "must return 2 numbers, one for each completion, got None"),
        (lambda completions: np.ones((2, 3)), "must return a finite number"),
        (lambda prompt, completion: [1.0, 2.0], "must return a finite number, at most 1e+18 in size, got '[1.0, 2.0]'"),
        (lambda completions: [1.0, "x"], "must return a finite number, at most 1e+18 in size, got 'x' for"),
        (lambda prompt, completion: float("nan"), "must return a finite number"),
    ],
)
def test_other_answers_are_refused(function, message):
    with pytest.raises(GPTError) as error:
        rewards_of("f", function, {}, ["a", "b"], ["c", "d"], [True, True], [[1], [2]])
    assert message in str(error.value)


@pytest.mark.parametrize("rows", [ROWS, pandas.DataFrame(ROWS), "$rows"])
def test_rows_are_a_list_a_table_or_a_variable(rows):
    if isinstance(rows, str):
        found = rows_of([rows], {"rows": ROWS})
    else:
        found = rows_of(["$rows"], {"rows": rows})
    assert found.texts == PROMPTS and found.columns == COLUMNS


def test_texts_stay_texts():
    assert rows_of("Tell me.\n\n  Why? \n", {}) == Rows(["Tell me.", "Why?"])
    assert rows_of(["$5 is what?"], {}) == Rows(["$5 is what?"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "Tale"}], "row 0 of the prompts has no text named prompt or question"),
        ([{"prompt": "Tale", "answer": 1}, {"prompt": "Tale", "answer": 2}], "stands in two rows whose other columns"),
        ([{"prompt": "Tale", "answer": object()}], "so they are texts, numbers or lists: Object of type object"),
        (["$rwos"], "there is no variable rwos with prompts (did you mean rows?)"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(rows, message):
    with pytest.raises(GPTError) as error:
        rows_of(rows, {"rows": ROWS})
    assert message in str(error.value)


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_a_run_on_rows_has_its_columns_when_it_is_resumed(gpt, tiny_model, algo):
    tiny_model(gpt)
    given = {"policy": "tiny", "algo": algo, "reward": "$simple", "variables": {"simple": simple}, **SMALL}
    run = gpt.rlhf("whole", ROWS, **given)
    assert run.status == "finished" and run.recipe["columns"] == COLUMNS
    rewards = {e["prompt"]: e["reward"] for e in run.events if e["event"] == "sample"}
    assert rewards and all(reward == PROMPTS.index(prompt) for prompt, reward in rewards.items())
    stopped_at(1, gpt.rlhf, "part", ROWS, **{**given, "steps": 8, "eval_every": 8})
    assert gpt.resume("part", variables={"simple": simple}).status == "finished"


def test_a_column_that_no_row_has_is_told_before_training(gpt, tiny_model):
    tiny_model(gpt)
    given = {"policy": "tiny", "algo": "grpo", "reward": simple, **SMALL}
    rows = [{"prompt": text, "label": 1} for text in PROMPTS]
    assert fail(gpt.rlhf, "a", rows, **given) == "reward $simple asks for answer, but the prompts have label"
    assert fail(gpt.rlhf, "a", PROMPTS, **given) == "reward $simple asks for answer, but the prompts are texts alone"


def one(prompt, completion, completion_ids, finish_reason):
    return float(len(completion_ids)) + (finish_reason == "length") / 2


def together(completions, completion_ids, finish_reasons):
    given = zip(completion_ids, finish_reasons, strict=True)
    return [len(ids) + (reason == "length") / 2 for ids, reason in given]


@pytest.mark.parametrize("function", [one, together])
def test_the_tokens_and_why_it_ended_are_passed_by_name(function):
    check_columns("$f", function, {})
    assert rewards_of("f", function, {}, ["p", "p"], ["a", "b"], [True, False], [[7, 8], [9]]) == [2.0, 1.5]


def test_the_tokens_of_a_run_spell_the_completion(gpt, tiny_model):
    model, seen = tiny_model(gpt), []
    with torch.no_grad():  # so that some end
        model.module.lm_head.weight[model.tokenizer.eos_token_id] *= 8

    def reward(prompts, completions, completion_ids, finish_reasons):
        seen.extend(zip(completions, completion_ids, finish_reasons, strict=True))
        return [float(len(text)) for text in completions]

    gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=reward, **SMALL)
    for text, ids, reason in seen:
        own = ids[:-1] if reason == "stop" else ids
        assert model.tokenizer.decode(own, skip_special_tokens=True) == text and len(ids) <= 6
    assert {reason for *_, reason in seen} == {"stop", "length"}


def birds(prompt, completion):
    return float(len(completion)) if "1" in prompt else None


def length(prompt, completion):
    return -float(len(completion))


def test_each_of_several_rewards_has_a_curve_and_none_is_left_out(gpt, tiny_model):
    tiny_model(gpt)
    given = {"policy": "tiny", "algo": "grpo", "reward": [birds, length], **SMALL, "prompts_per_step": 6}
    run = gpt.rlhf("a", PROMPTS, reward_weights=[0.5, 2.0], held_out=0.0, **given)
    labels = {metric.name: metric.label for metric in declared(run.events)}
    assert labels["reward/birds"] == "reward birds" and labels["reward/length"] == "reward length"
    table, evaluation = run.history, next(e for e in run.events if e["event"] == "evaluation")
    summed = 2.0 * table["reward/length"] + 0.5 * table["reward/birds"] / 6  # one prompt of the six has birds
    assert table["reward"].tolist() == pytest.approx(summed.tolist(), rel=1e-5)
    assert (table["reward/birds"] > 0).all() and evaluation["reward/length"] < 0
    assert "reward birds" in {panel.title for panel in panels(declared(run.events), steps_of(run), [])}


def steps_of(run):
    return [e for e in run.events if e["event"] == "step"]


def test_a_completion_that_no_reward_applies_to_is_one_line(gpt, tiny_model):
    tiny_model(gpt)
    given = {"policy": "tiny", "algo": "grpo", "reward": [birds, birds], **SMALL}
    message = fail(gpt.rlhf, "a", PROMPTS, **given)
    assert message.startswith("reward $birds, $birds must return a finite number, got None for the completion")
    few = {**given, "reward_weights": [1.0]}
    assert fail(gpt.rlhf, "a", PROMPTS, **few) == "there are 2 rewards and 1 --reward-weights: give one of each"
