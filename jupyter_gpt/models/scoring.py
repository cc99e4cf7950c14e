"""Models with a score head: the labels of a classifier, the score of a reward model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from jupyter_gpt.data.prompt_completion import batches, encode_pair, end_token_id
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.heads import head_of
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import base_of
from jupyter_gpt.runs.worker import on_worker

AT_ONCE = 4096  # tokens scored in one pass


def scores(model: Reader, rows: Sequence[Sequence[int]]) -> Tensor:
    """The score `(B,)` in fp32 of each row of ids, read at its last token; with gradients."""
    head = head_of(model.module)
    last = torch.tensor([len(row) for row in rows], device=model.device).cumsum(0) - 1
    hidden = model.hidden(rows)[last]
    return head(hidden.to(next(head.parameters()).dtype))[:, 0].float()


def scored(model: Reader, rows: Sequence[Sequence[int]]) -> Iterator[None]:
    """Scores of many rows without gradients; yields between batches, returns the list of floats."""
    result = [0.0] * len(rows)
    for places in batches([len(row) for row in rows], AT_ONCE):
        with torch.no_grad():
            for place, value in zip(places, scores(model, [rows[p] for p in places]).tolist(), strict=True):
                result[place] = value
        yield
    return result


def row_of(
    name: str, tokenizer, prompt: str, completion: str, most: int, finished: bool = True
) -> tuple[tuple[int, ...], bool]:
    """The ids of prompt and completion, and whether they were truncated to `most` tokens.

    The token that ends a `finished` completion is dropped if it is also the padding token: transformers' classifiers
    read at the last token that is not padding.
    """
    found, cut = encode_pair(name, tokenizer, prompt, completion, most, finished)
    ids = found.ids
    while len(ids) > 1 and ids[-1] == tokenizer.pad_token_id == end_token_id(tokenizer):
        ids = ids[:-1]
    return ids, cut


CPU_TOKENS = 4096  # tokens in one pass of a small model on a CPU


def at_once(model) -> int:
    """Tokens per forward pass: on a CPU about a second's work."""
    if model.device.type == "cuda":
        return 32768
    return min(CPU_TOKENS, max(512, int(1e11 / sum(p.numel() for p in model.parameters()))))


def label_scores(trunk, model, rows: Sequence[Sequence[int]]):
    """The scores `(B, labels)` in fp32 of each row of ids, read at its last token."""
    from jupyter_gpt.nn.varlen import Segments

    device, lengths = model.device, [len(row) for row in rows]
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
    segments = Segments(lengths, positions, bounds.to(device, torch.int32), max(lengths))
    hidden = trunk(torch.tensor([[i for row in rows for i in row]], device=device), segments)[0, bounds[1:] - 1]
    head: Any = base_of(model).score
    return head(hidden.to(next(head.parameters()).dtype)).float()


def probabilities(trunk, model, rows: Sequence[Sequence[int]]) -> Iterator[None]:
    """Probabilities `(B, labels)` as an array, without gradients; yields between batches, returns it."""
    import numpy as np

    result, at, most = [], 0, at_once(model)
    while at < len(rows):
        end = at + 1
        while end < len(rows) and sum(map(len, rows[at : end + 1])) <= most:
            end += 1
        with torch.no_grad():
            result.append(torch.softmax(label_scores(trunk, model, rows[at:end]), -1).cpu().numpy())
        at = end
        yield
    return np.concatenate(result)


def encoded(tokenizer, texts: Sequence[str], most: int) -> list[list[int]]:
    """The ids of each text, at most `most`, at least one."""
    ids = [list(row) for row in tokenizer(list(texts), verbose=False)["input_ids"]]
    return [row[:most] or [tokenizer.eos_token_id] for row in ids]


def predict(model, texts: str | Sequence[str], as_probabilities: bool = False):
    """The label of each text, or with `as_probabilities` a dict of label to probability; of one text, one. Raises
    GPTError if `model` is not a classifier.
    """
    if len(model.labels or ()) < 2:
        raise GPTError(f"{model.name} is not a classifier: `%%classify NAME --base {model.name}` trains one")
    if not model.resident:
        raise GPTError(f"{model.name} is not in memory: load it with gpt.models[{model.name!r}]")
    rows = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if wrong := [row for row in rows if not isinstance(row, str)]:
        raise GPTError(f"predict takes a text or a list of texts, not {wrong[0]!r:.40}")
    if not rows:
        return []
    table = on_worker("torch", lambda: classify(model, rows))
    if as_probabilities:
        result = [{label: float(p) for label, p in zip(model.labels, row, strict=True)} for row in table]
    else:
        result = [model.labels[int(row.argmax())] for row in table]
    return result[0] if isinstance(texts, str) else result


def classify(model, texts: list[str]):
    """The probabilities `(texts, labels)`."""
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.nn.transformer import Trunk

    context = min(context_of(model.module), 1 << 16)
    trunk = Trunk(model.module, context, model.module.dtype)
    return result_of(probabilities(trunk, model.module, encoded(model.tokenizer, texts, context)))


def result_of(work: Iterator):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def score(model, prompt: str, completion: str, finished: bool = True) -> float:
    """The score of one completion, of which only differences mean something. One that was cut at its token limit,
    `finished=False`, is read without the token that ends it. Raises GPTError if `model` is not a reward model.
    """
    from jupyter_gpt.nn.modules import context_of

    if not model.is_reward_model:
        raise GPTError(f"{model.name} is not a reward model: `%gpt reward` trains one from rankings")
    row = row_of(model.name, model.tokenizer, prompt, completion, context_of(model.module), finished)[0]
    return on_worker("torch", lambda: result_of(scored(Reader(model.module), [row])))[0]
