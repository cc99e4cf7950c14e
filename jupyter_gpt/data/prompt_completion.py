"""Prompts with their completions as token ids, and batches of them: what reward models, DPO, PPO and GRPO read.

A prompt is rendered exactly as when the model is asked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jupyter_gpt.data.render import Question, encode, end_of_turn, render
from jupyter_gpt.data.tokenizer import delimiter
from jupyter_gpt.errors import GPTError


class Spoken(NamedTuple):
    """A prompt and a completion, in ids; the completion has the token that ended it, if one did."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.completion


def asked(name: str, tokenizer, text: str) -> tuple[int, ...]:
    """The ids with which the model `name` is asked `text`."""
    return render(name, tokenizer, Question(text)).ids


def ending(tokenizer) -> int:
    """The token that ends a completion: of a chat its end of turn, of a document the delimiter."""
    end = end_of_turn(tokenizer) if getattr(tokenizer, "chat_template", None) else None
    return delimiter(tokenizer) if end is None else end


def spoken(name: str, tokenizer, prompt: str, completion: str, most: int, finished: bool = True) -> tuple[Spoken, bool]:
    """Both in ids, and whether something had to go to stay within `most` tokens.

    A completion that is `finished` is followed by the token that ends it. One that was cut at its token limit is not:
    nothing is to be learned from an end that the model never said. The front of the prompt goes first; of a completion
    that is too long for itself, the end.
    """
    before, after = asked(name, tokenizer, prompt), tuple(encode(tokenizer, completion))
    if finished:
        after = (*after, ending(tokenizer))
    room = most - len(after)
    if room < 1:
        return Spoken(before[-1:], after[: most - 1]), True
    return Spoken(before[-room:], after), len(before) > room


def fits(name: str, prompts: Sequence[tuple[int, ...]], texts: Sequence[str], context: int, max_tokens: int) -> None:
    """Raises GPTError for a prompt that leaves no room in the context for `max_tokens` more."""
    for ids, text in zip(prompts, texts, strict=True):
        if len(ids) + max_tokens > context:
            raise GPTError(
                f"the prompt {text[:40]!r} has {len(ids):,} tokens, and {max_tokens:,} of --max-tokens do not fit "
                f"beside "
                f"it into the context of {name}, {context:,}: shorten it, or lower --max-tokens"
            )


def batches(lengths: Sequence[int], at_once: int) -> list[list[int]]:
    """Places grouped so that rows of like length share a batch of at most `at_once` tokens."""
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= at_once:
            found[-1].append(place)
        else:
            found.append([place])
    return found
