"""Prompt-lookup decoding (Saxena 2023): an answer that quotes its prompt is read from there and only checked.

Where the last few tokens stand earlier in the prompt or the answer, what followed them there is the guess; one pass
reads all of it, and as much is kept as the model would have said itself. Speculative decoding (Leviathan et al. 2023)
without a second model, greedy: the tokens are those of plain decoding, as far as the number format goes. In fp32 a pass
over several tokens rounds as near as no difference; in bf16 a near tie may fall the other way, as it may in any batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from jupyter_gpt.inference.batch import Batch, adapter_names
from jupyter_gpt.inference.cache import Rows
from jupyter_gpt.inference.requests import Request, Token
from jupyter_gpt.inference.sequence import gain

LONGEST, SHORTEST = 3, 2  # tokens in a row that are looked for
LEAST, MOST = 4, 16  # tokens guessed at once: twice as many after a guess that was right to its end


def suits(requests: Sequence[Request]) -> bool:
    """Whether these requests are one greedy sample, free of a constraint, that asks for it."""
    return len(requests) == 1 and all(
        r.lookup and r.samples == 1 and r.temperature == 0 and r.constraint is None for r in requests
    )


def guessed(ids: Sequence[int], most: int) -> list[int]:
    """What followed the last time that the end of `ids` stood in it, at most `most` tokens; none where it never did."""
    for length in range(min(LONGEST, len(ids) - 1), SHORTEST - 1, -1):
        end = list(ids[-length:])
        for start in range(len(ids) - length - 1, -1, -1):
            if ids[start] == end[0] and list(ids[start : start + length]) == end:
                return list(ids[start + length : start + length + most])
    return []


def forget(cache: Rows, columns: int) -> None:
    """Take the last `columns` back; what stands there is written over."""
    cache.length -= columns
    cache.positions = [place - columns for place in cache.positions]
    for layer in cache.layers:
        layer.length -= columns


class Lookup(Batch):
    """A batch of one request for which `suits` holds."""

    size = LEAST

    def advance(self) -> list[Token]:
        """One pass: over the prompt, over the last token, or over it and a guess."""
        if not self.rows:
            return super().advance()
        [row] = self.rows
        guess = guessed((*row.asked.ids, *row.ids), min(self.size, row.limit - len(row.ids) - 1))
        if not guess:
            return super().advance()
        began, block = time.perf_counter(), [*row.pending, *guess]
        positions, mask = self.cache.append([len(block)], len(block))
        adapters = adapter_names(self.module, [row.asked.adapter])
        ids = torch.tensor([block], device=self.device)
        logits = self.forward(ids, positions, mask, self.cache, len(guess) + 1, adapters)
        best = self.greedy(logits[0], row.asked, len(row.ids))
        right = next((n for n, (a, b) in enumerate(zip(guess, best, strict=False)) if a != b), len(guess))
        forget(self.cache, len(guess) - right)
        self.size = min(MOST, 2 * self.size) if right == len(guess) else LEAST
        tokens = gain(row, best[: right + 1])
        row.pending = tokens[-1:]
        return self.report(self.rows, logits, [(0, n, token) for n, token in enumerate(tokens)], began)

    @staticmethod
    def greedy(logits: torch.Tensor, asked: Request, said: int) -> list[int]:
        """The likeliest token after each of logits `(t, V)`, the first of which comes after `said` tokens."""
        early = asked.min_tokens - said
        if early > 0 and asked.stop_ids:
            logits = logits.clone()
            logits[:early, sorted(asked.stop_ids)] = float("-inf")
        return logits.argmax(dim=-1).tolist()
