"""The prompts that an alignment from rankings or votes is evaluated on are none of those it has learned."""

import pytest

from jupyter_gpt.stages import rl_preparation
from jupyter_gpt.stages.rankings import Ranking

PROMPTS = [f"Tale {n}. The old fox" for n in range(24)]
SMALL = {
    "policy": "tiny",
    "algo": "dpo",
    "max_tokens": 4,
    "lora": 2,
    "prompts_per_step": 2,
    "steps": 1,
    "eval_every": 1,
}
VOTES = [
    {"prompt": prompt, "completion": f"{text} birds.", "label": text == "saw"}
    for prompt in PROMPTS
    for text in ("saw", "xx")
]


@pytest.fixture
def watched(gpt, tiny, monkeypatch):
    """`watched(prompts, **options)`: the prompts that a run is evaluated on, and those it has learned, as text."""
    made = []

    def kept(**given):
        made.append(real(**given))
        return made[-1]

    real = rl_preparation.RL
    monkeypatch.setattr(rl_preparation, "RL", kept)

    def run(prompts=None, **options):
        gpt.rlhf("aligned", prompts, **SMALL, **options, overwrite=True)
        rows = [row for each in made[-1].rankings for row in getattr(each, "rows", None) or (each.row,)]
        return [each.text for each in made[-1].watched], {tiny.tokenizer.decode(row.prompt[1:]) for row in rows}

    return run


def rank(gpt, ties=()):
    for n, prompt in enumerate(PROMPTS):
        pair = tuple({"model": "tiny", "text": f"{text} {n}", "seed": 0} for text in ("saw", "xx"))
        gpt.rankings.named("taste").add(Ranking(prompt, pair, ((0, 1),) if n in ties else ((0,), (1,)), time=float(n)))


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
@pytest.mark.parametrize("ties", [(), (23,), (2, 5)], ids=str)
def test_with_rankings_that_are_ties_too(gpt, watched, loss, ties):
    rank(gpt, ties)
    asked, learned = watched(rankings="taste", loss=loss)
    assert asked and learned < set(PROMPTS) and not learned & set(asked)


def test_with_prompts_in_the_body_that_are_ranked(gpt, watched):
    rank(gpt)
    asked, learned = watched(PROMPTS[:12], rankings="taste")
    assert asked and not learned & set(asked)
    asked, learned = watched(sorted(learned), rankings="taste")
    assert set(asked) < learned, "there are no others"
    others = [f"Why did {n} hens sing?" for n in range(20)]
    assert set(watched(others, rankings="taste")[0]) < set(others)


def test_with_votes_and_prompts_that_have_none(watched):
    asked, learned = watched([*VOTES, {"prompt": "Who sang?"}], loss="kto")
    assert asked and not learned & set(asked) and learned < set(PROMPTS)
