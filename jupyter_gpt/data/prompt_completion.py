"""Prompts with their completions as token ids, and batches of them: what reward models, DPO, PPO and GRPO read.

A prompt is rendered exactly as when the model is asked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jupyter_gpt.data.chat import turn_ends
from jupyter_gpt.data.render import Prompt, Question, continued, encode, end_of_turn, render, rendered
from jupyter_gpt.data.tokenizer import delimiter
from jupyter_gpt.errors import GPTError


class PromptCompletion(NamedTuple):
    """Token ids of a prompt and its completion, which includes the token that ended it, if one did."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.completion


Asked = str | list[dict] | Question  # a text, messages, or either with more


def prompt_of(name: str, tokenizer, asked: Asked) -> Prompt:
    """The prompt by which the model `name` is asked it."""
    return render(name, tokenizer, asked if isinstance(asked, Question) else Question(asked))


def prompt_ids(name: str, tokenizer, asked: Asked) -> tuple[int, ...]:
    """The ids of the prompt by which the model `name` is asked it."""
    return prompt_of(name, tokenizer, asked).ids


def end_token_id(tokenizer) -> int:
    """The token that ends a completion: of a chat its end of turn, of a document the delimiter."""
    end = end_of_turn(tokenizer) if getattr(tokenizer, "chat_template", None) else None
    return delimiter(tokenizer) if end is None else end


def spelled_answer(tokenizer, asked: Prompt, answer: str) -> tuple[int, ...] | None:
    """The ids of an answer, its end included, as the chat template spells it after a prompt; None where that puts
    nothing of its own before the words. Qwen 3 has an empty thought there, gpt-oss the channel of the answer."""
    if asked.messages is None or asked.messages[-1]["role"] == "assistant":
        return None
    try:
        text = rendered(tokenizer, [*asked.messages, {"role": "assistant", "content": answer}])
    except GPTError:  # it takes other conversations only
        return None
    begin = len(asked.text)
    words = text.find(answer.strip(), begin)
    if not text.startswith(asked.text) or (words >= 0 and not text[begin:words].strip()):
        return None
    ids = encode(tokenizer, text[: turn_ends(tokenizer, text, len(text.rstrip()))])
    same = tuple(ids[: len(asked.ids)]) == asked.ids and ids[-1] == end_token_id(tokenizer)
    return tuple(ids[len(asked.ids) :]) if same else None


def encode_pair(
    name: str, tokenizer, prompt: Asked, completion: str, most: int, finished: bool = True, sampled: bool = True
) -> tuple[PromptCompletion, bool]:
    """The ids of a prompt and its completion, and whether they were truncated to `most` tokens.

    A `finished` completion is followed by the token that ends it; one stopped at its token limit is not, since the
    model generated no end. One that no model has `sampled`, of a dataset, is spelled as the chat template spells an
    answer. The prompt is truncated at its start, a completion longer than `most` at its end.
    """
    asked = prompt_of(name, tokenizer, prompt)
    before, after = asked.ids, None if sampled or not finished else spelled_answer(tokenizer, asked, completion)
    if after is None:
        after = (*continued(tokenizer, asked, completion), *([end_token_id(tokenizer)] if finished else []))
    room = most - len(after)
    if room < 1:
        return PromptCompletion(before[-1:], after[: most - 1]), True
    return PromptCompletion(before[-room:], after), len(before) > room


def check_prompt_lengths(
    name: str, prompts: Sequence[tuple[int, ...]], texts: Sequence[str], context: int, max_tokens: int
) -> None:
    """Raises GPTError for a prompt that leaves no room in the context for `max_tokens` more."""
    for ids, text in zip(prompts, texts, strict=True):
        if len(ids) + max_tokens > context:
            raise GPTError(
                f"the prompt {text[:40]!r} has {len(ids):,} tokens and --max-tokens is {max_tokens:,}, more than the "
                f"context of {name} ({context:,}): shorten the prompt or lower --max-tokens"
            )


def batches(lengths: Sequence[int], at_once: int) -> list[list[int]]:
    """Indices grouped into batches of similar length, each of at most `at_once` tokens with padding."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= at_once:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
