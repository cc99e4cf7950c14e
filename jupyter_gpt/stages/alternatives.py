"""A completion of a model in this kernel, with the alternatives that were not kept while it was sampled."""

from __future__ import annotations

from dataclasses import replace

from jupyter_gpt.runs.worker import worker

COUNT = 5


def with_alternatives(model, completion):
    """The completion with its `top` filled in, from one pass of `model` on the worker.

    As it is where it has them, or where its prompt no longer reads as the same tokens.
    """
    from jupyter_gpt.data.render import encode
    from jupyter_gpt.inference.alternatives import alternatives

    prompt = encode(model.tokenizer, completion.prompt)
    if any(completion.top) or not completion.tokens or not prompt or len(prompt) != completion.prompt_tokens:
        return completion

    def job():
        yield
        return alternatives(model.module, prompt, completion.tokens, COUNT)

    return replace(completion, top=worker("torch").submit(job()).wait())
