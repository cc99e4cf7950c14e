"""Alternatives reckoned afterwards are those that sampling would have kept."""

import pytest

from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.notebook.views.inspect import BLOCK, alternatives


def test_one_pass_gives_what_sampling_gives(model):
    prompt = (5, 17, 3, 99)
    kept = [t for t in generate(model, [Request(prompt, max_tokens=40, seed=2, top_logprobs=4)]) if t is not None]
    found = alternatives(model, prompt, [token.id for token in kept], 4)
    assert len(found) == len(kept) == 40
    for mine, token in zip(found, kept, strict=True):
        assert [i for i, _ in mine] == [i for i, _ in token.top]
        assert [x for _, x in mine] == pytest.approx([x for _, x in token.top], abs=1e-4)


def test_more_places_than_a_block(llama, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.notebook.views.inspect.BLOCK", 7)
    tokens = [i % 50 for i in range(30)]
    few = alternatives(llama, (1,), tokens, 3)
    monkeypatch.setattr("jupyter_gpt.notebook.views.inspect.BLOCK", BLOCK)
    assert few == alternatives(llama, (1,), tokens, 3)
    assert len(few) == 30 and all(a[0][1] >= a[1][1] >= a[2][1] for a in few)
