"""A completion sampled without alternatives has them when it is looked at token by token."""

from dataclasses import replace

import pytest

from jupyter_gpt.notebook.views.inspect import COUNT, with_alternatives


@pytest.mark.parametrize("chat", [False, True])
def test_they_are_those_that_logprobs_would_have_kept(gpt, tiny_model, chat):
    model = tiny_model(gpt, "tiny", chat=chat)
    asked = {"model": "tiny", "max_tokens": 15, "seed": 3, "temperature": 1.0}
    bare, kept = gpt.prompt("The old fox", **asked), gpt.prompt("The old fox", logprobs=COUNT, **asked)
    found = with_alternatives(model, bare)
    assert found.tokens == kept.tokens and not any(bare.top)
    for mine, theirs in zip(found.top, kept.top, strict=True):
        assert [i for i, _ in mine] == [i for i, _ in theirs]
        assert [x for _, x in mine] == pytest.approx([x for _, x in theirs], abs=1e-4)
    assert with_alternatives(model, kept) is kept


def test_a_prompt_that_reads_otherwise_is_left_alone(gpt, tiny_model):
    model = tiny_model(gpt, "tiny")
    done = gpt.prompt("The old fox", model="tiny", max_tokens=4)
    odd = replace(done, prompt_tokens=done.prompt_tokens + 1)
    assert with_alternatives(model, odd) is odd


def test_models_compared_side_by_side(gpt, tiny_model):
    for name in ("one", "two"):
        tiny_model(gpt, name)
    found = gpt.compare(["one", "two"], ["The old", "A hen"], max_tokens=8, samples=2, seed=4, temperature=1.0)
    alone = [gpt.prompt("A hen", model="two", max_tokens=8, seed=seed, temperature=1.0).text for seed in (4, 5)]
    assert found.table["two"].tolist()[2:] == alone
    assert found.table["seed"].tolist() == [4, 5, 4, 5]
