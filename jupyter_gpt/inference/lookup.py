"""Prompt-lookup decoding (Saxena 2023): the next tokens are guessed from the prompt, and one pass checks the guess.

If the last few tokens occur earlier in the prompt or the answer, what followed them there is the guess; as much of
it is kept as the model would have generated. It is speculative decoding (Leviathan et al. 2023) without a second model,
greedy: the tokens are those of plain decoding, up to rounding. In fp32 a pass over several tokens rounds the same but
for rare near ties; in bf16 a near tie may fall the other way, as in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from jupyter_gpt.inference.sampling import Request

LONGEST, SHORTEST = 3, 2  # length of the n-grams that are looked up
LEAST, MOST = 4, 16  # tokens guessed at once: doubled after a guess that was right to its end


def suits(request: Request) -> bool:
    """Whether a request asks for lookup and is one greedy sample without a constraint."""
    return request.lookup and request.samples == 1 and request.temperature == 0 and request.constraint is None


def guess_next(ids: Sequence[int], most: int) -> list[int]:
    """What followed the last earlier occurrence of the end of `ids`, at most `most` tokens; empty if there is none."""
    for length in range(min(LONGEST, len(ids) - 1), SHORTEST - 1, -1):
        end = list(ids[-length:])
        for start in range(len(ids) - length - 1, -1, -1):
            if ids[start] == end[0] and list(ids[start : start + length]) == end:
                return list(ids[start + length : start + length + most])
    return []


def greedy(logits: Tensor, request: Request, generated: int) -> list[int]:
    """The most probable token after each of logits `(t, V)`, the first of which comes after `generated` tokens."""
    early = request.min_tokens - generated
    if early > 0 and request.stop_ids:
        logits = logits.clone()
        logits[:early, sorted(request.stop_ids)] = float("-inf")
    return logits.argmax(dim=-1).tolist()
