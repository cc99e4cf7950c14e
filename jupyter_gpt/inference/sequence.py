"""One sample under way: its tokens, where it ends, and what it may say next."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.requests import Constraint, Request
from jupyter_gpt.inference.sampling import Stream

Key = tuple[tuple[int, ...], str | None]  # what is read once: a prompt's ids, and the adapter that reads it


@dataclass
class Row:
    """A sample under way.

    `pending` are its tokens that the model has not read; `unsaid` those of them that wait for their log
    probability, because they were forced; `finish` is set when the last token is known.
    """

    request: int
    sample: int
    asked: Request
    limit: int
    stream: Stream
    constraint: Constraint | None
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    unsaid: list[int] = field(default_factory=list)
    finish: str | None = None

    @property
    def key(self) -> Key:
        return self.asked.ids, self.asked.adapter


def gain(row: Row, tokens: list[int]) -> list[int]:
    """Let a row gain `tokens` and whatever its constraint forces after them, up to its end; returns what it
    gained."""
    gained = []
    while tokens and row.finish is None:
        for token in tokens:
            row.ids.append(token)
            gained.append(token)
            if row.constraint:
                row.constraint.accept(token)
            if token in row.asked.stop_ids or (row.asked.until and row.asked.until(row.ids)):
                row.finish = "stop"
            elif len(row.ids) >= row.limit:
                row.finish = "length"
            if row.finish:
                break
        tokens = row.constraint.forced() if row.constraint and row.finish is None else []
    return gained


def taken(row: Row, token: int) -> list[int]:
    """What a row gains for the token it drew: itself, unless its constraint puts others in its place."""
    instead = getattr(row.constraint, "instead", None)
    return instead(token) if instead else [token]


def temperature(row: Row) -> float:
    """The temperature of its next token: a constraint may have one of its own."""
    own = getattr(row.constraint, "temperature", None)
    return row.asked.temperature if own is None else own


def allowed(rows: list[Row], logits: Tensor) -> Tensor:
    """The logits `(B, V)` with -inf where a constraint forbids a token, or `min_tokens` forbids to stop."""
    scores = logits
    for n, row in enumerate(rows):
        mask = row.constraint.mask() if row.constraint else None
        early = len(row.ids) < row.asked.min_tokens and row.asked.stop_ids
        if mask is None and not early:
            continue
        scores = logits.clone() if scores is logits else scores
        if mask is not None:  # it may be shorter than V: rows of the embedding that no token has
            scores[n, : len(mask)].masked_fill_(~mask[: scores.shape[1]].to(scores.device), float("-inf"))
            scores[n, len(mask) :] = float("-inf")
        if early:
            scores[n, sorted(row.asked.stop_ids)] = float("-inf")
        if not bool((scores[n] > float("-inf")).any()):
            raise GPTError("the constraint and min_tokens together allow no token at all")
    return scores
