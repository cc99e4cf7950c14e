"""Models with a score head: the labels of a classifier, the score of a reward model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jupyter_gpt.data.prompt_completion import Asked, batches, encode_pair, end_token_id
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.heads import head_of
from jupyter_gpt.nn.logprobs import LONGEST, Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.report.parts import Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.worker import on_worker

if TYPE_CHECKING:
    from pandas import DataFrame

SCORED_TOKENS = 4096  # in one pass of a reward model
CPU_TOKENS = 4096  # in one pass of a small classifier on a CPU


def label_scores(reader: Reader, rows: Sequence[Sequence[int]]) -> Tensor:
    """The scores `(B, labels)` in fp32 of each row of ids, read at its last token; with gradients."""
    head = head_of(reader.module)
    last = torch.tensor([len(row) for row in rows], device=reader.device).cumsum(0) - 1
    return head(reader.hidden(rows)[last].to(next(head.parameters()).dtype)).float()


def scores(reader: Reader, rows: Sequence[Sequence[int]]) -> Tensor:
    """The scores `(B,)` of a model with one label."""
    return label_scores(reader, rows)[:, 0]


def outputs(reader: Reader, rows: Sequence[Sequence[int]], most: int) -> Iterator[None]:
    """`label_scores` of many rows without gradients, at most `most` tokens at once; yields between batches, returns a
    tensor on the CPU.
    """
    result = {}
    for places in batches([len(row) for row in rows], most):
        with torch.no_grad():
            result |= zip(places, label_scores(reader, [rows[place] for place in places]).cpu(), strict=True)
        yield
    return torch.stack([result[place] for place in range(len(rows))]) if rows else torch.zeros(0, 1)


def scored(reader: Reader, rows: Sequence[Sequence[int]]) -> Iterator[None]:
    """Scores of many rows without gradients; yields between batches, returns the list of floats."""
    return (yield from outputs(reader, rows, SCORED_TOKENS))[:, 0].tolist()


def probabilities(reader: Reader, rows: Sequence[Sequence[int]]) -> Iterator[None]:
    """Probabilities `(B, labels)` as an array, without gradients; yields between batches, returns it."""
    return (yield from outputs(reader, rows, at_once(reader.module))).softmax(-1).numpy()


def row_of(
    name: str, tokenizer, prompt: Asked, completion: str, most: int, finished: bool = True, sampled: bool = True
) -> tuple[tuple[int, ...], bool]:
    """The ids of prompt and completion, and whether they were truncated to `most` tokens, as `encode_pair` has them.

    The token that ends a `finished` completion is dropped if it is also the padding token: transformers' classifiers
    read at the last token that is not padding.
    """
    pair, cut = encode_pair(name, tokenizer, prompt, completion, most, finished, sampled)
    ids = pair.ids
    while len(ids) > 1 and ids[-1] == tokenizer.pad_token_id == end_token_id(tokenizer):
        ids = ids[:-1]
    return ids, cut


def at_once(model) -> int:
    """Tokens per forward pass: on a CPU about a second's work."""
    if model.device.type == "cuda":
        return 32768
    return min(CPU_TOKENS, max(512, int(1e11 / sum(p.numel() for p in model.parameters()))))


def encoded(tokenizer, texts: Sequence[str], most: int) -> list[list[int]]:
    """The ids of each text, at most `most`, at least one."""
    ids = [list(row) for row in tokenizer(list(texts), verbose=False)["input_ids"]]
    return [row[:most] or [tokenizer.eos_token_id] for row in ids]


def classify(model, texts: str | Iterable[str]) -> DataFrame:
    """The `label` of each text and the probability of every label, a row per text. Raises GPTError for a model that is
    not a classifier."""
    import pandas

    if model.is_reward_model:
        raise GPTError(f"{model.name} is a reward model and has no labels: .score(prompt, completion) is its score")
    if len(model.labels or ()) < 2:
        raise GPTError(f"{model.name} is not a classifier: `%%classify NAME --base {model.name}` trains one")
    if not model.resident:
        raise GPTError(f"{model.name} is not in memory: load it with gpt.models[{model.name!r}]")
    rows = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if wrong := [row for row in rows if not isinstance(row, str)]:
        raise GPTError(f"a classifier takes a text or a list of texts, not {wrong[0]!r:.40}")
    index = pandas.Index(rows, name="text", dtype=object)
    if not rows:
        return pandas.DataFrame(columns=["label", *model.labels], index=index)
    ids = encoded(model.tokenizer, rows, min(context_of(model.module), LONGEST))
    odds = on_worker("torch", lambda: result_of(probabilities(Reader(model.module), ids)))
    table = pandas.DataFrame(odds, columns=model.labels, index=index)
    table.insert(0, "label", [model.labels[place] for place in odds.argmax(1)], allow_duplicates=True)
    return table


def result_of(work: Iterator):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def score(model, prompt: str | list[dict], completion: str | None, finished: bool = True) -> float:
    """The score of one completion of a text or of messages, of which only differences mean something. One that was cut
    at its token limit, `finished=False`, is read without the token that ends it. Raises GPTError if `model` is not a
    reward model.
    """
    if model.labels and not model.is_reward_model:
        raise GPTError(f"{model.name} is a classifier: .classify(texts) gives the probability of each label")
    if not model.is_reward_model:
        raise GPTError(f"{model.name} is not a reward model: `%gpt reward` trains one from rankings")
    if not isinstance(completion, str):
        raise GPTError(f"{model.name} is a reward model: .score(prompt, completion) scores one completion, a text")
    row = row_of(model.name, model.tokenizer, prompt, completion, context_of(model.module), finished)[0]
    return on_worker("torch", lambda: result_of(scored(Reader(model.module), [row])))[0]


def labels_report(name: str, found: DataFrame) -> Report:
    """The label of each text and its probability; `found` is what `classify` returns."""
    labels = list(found.columns[1:])
    shown = labels if len(labels) <= 5 else []
    rows = [
        (text, label, *(Varies(f"{odds[labels.index(each)]:.3f}") for each in (shown or [label])))
        for text, label, *odds in found.itertuples(name=None)
    ]
    return Report(name, [Table(("text", "label", *(shown or ["probability"])), rows, "ll" + "r" * max(1, len(shown)))])
