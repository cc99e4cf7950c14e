"""The loss of a causal LM on texts: how well it predicts documents that it may never have seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from jupyter_gpt.data.prompt_completion import PromptCompletion, batches
from jupyter_gpt.data.render import encode, opening_token
from jupyter_gpt.data.tokenizer import delimiter
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.scoring import at_once, result_of
from jupyter_gpt.nn.logprobs import LONGEST, Reader, logprobs
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.runs.worker import on_worker


def losses(model, texts: str | Sequence[str]):
    """The mean loss of each text, in nats per token, read as a document: after the token that begins a prompt, if the
    tokenizer has one, else after the delimiter. Of one text, one figure.

    A text longer than the context is read in windows of it, each token once. Raises GPTError for a model with a score
    head, and for texts that have no token.
    """
    if model.labels:
        raise GPTError(f"{model.name} ({model.kind}) returns scores and predicts no text: choose another model")
    if not model.resident:
        raise GPTError(f"{model.name} is not in memory: load it with gpt.models[{model.name!r}]")
    documents = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if wrong := [text for text in documents if not (isinstance(text, str) and text)]:
        raise GPTError(f"losses takes a text or a list of texts, none of them empty, not {wrong[0]!r:.40}")
    context = min(context_of(model.module), LONGEST)
    rows, owners, begin = [], [], opening_token(model.tokenizer)
    begin = delimiter(model.tokenizer) if begin is None else begin
    for number, text in enumerate(documents):
        for window in windows((begin, *encode(model.tokenizer, text)), context):
            rows.append(window)
            owners.append(number)
    nats, counts = [0.0] * len(documents), [0] * len(documents)
    for row, owner, value in zip(rows, owners, on_worker("torch", lambda: result_of(summed(model, rows))), strict=True):
        nats[owner] += value
        counts[owner] += len(row.completion)
    found = [value / count for value, count in zip(nats, counts, strict=True)]
    return found[0] if isinstance(texts, str) else found


def windows(ids: Sequence[int], context: int) -> Iterator[PromptCompletion]:
    """Rows of at most `context` ids, of which each predicts all but its first: together all but the first of `ids`."""
    for first in range(0, len(ids) - 1, context - 1):
        row = tuple(ids[first : first + context])
        yield PromptCompletion(row[:1], row[1:])


def summed(model, rows: Sequence[PromptCompletion]) -> Iterator[None]:
    """The loss of each row in nats, summed over its tokens; yields between batches, returns a list."""
    reader, result = Reader(model.module), {}
    for places in batches([len(row.ids) for row in rows], at_once(model.module)):
        with torch.no_grad():
            found = -logprobs(reader, [rows[place] for place in places])[0].cpu().double().sum(dim=1)
        result |= zip(places, found.tolist(), strict=True)
        yield
    return [result[place] for place in range(len(rows))]
