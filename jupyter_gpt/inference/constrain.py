"""Constrained sampling: an answer held to a rule token by token, by llguidance.

Before each token is drawn, llguidance's parser marks those of the vocabulary that keep the text on its way to the
rule; where the rule leaves one continuation, its tokens are forced and not drawn (only those that the tokenizer would
choose too, so that the model reads what it is used to). An answer may end where the rule is satisfied and nowhere
else, so each one that ends by itself is valid. JSON is written without white space: a weak model that may write any
writes it for ever.

A tokenizer is converted once, and a rule is compiled once for all samples of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.rules import Rule, reason, rule

CONVERTED: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (its length then, its LLTokenizer, its alphabet)
PROBE = "Ab 1,\n"  # a text that any tokenizer can be tried on


def constrained(
    tokenizer,
    *,
    regex: object = None,
    json: object = None,
    choice: object = None,
    grammar: object = None,
    ends: Iterable[int] = (),
) -> Callable[[], Held]:
    """What a `Request` takes as its constraint: exactly one of `regex`, `json`, `choice` and `grammar`, as `rule`
    takes them.

    `ends` are the request's `stop_ids` (default: the tokenizer's own end). Raises GPTError for what cannot be
    enforced with this tokenizer.
    """
    asked = rule(regex, json, choice, grammar)
    if asked is None:
        raise GPTError("a constraint is a regex, a JSON schema, some choices or a grammar: give one")
    return held(tokenizer, asked, ends)


def held(
    tokenizer, asked: Rule, ends: Iterable[int] = (), before: Iterable[int] = (), stop: tuple[str, ...] = ()
) -> Callable[[], Held]:
    """The same for a Rule whose answer follows the ids `before`; it may end in one of the texts `stop` too.

    After a word, the answer may begin with a space (`lead_of`), which is no part of it.
    """
    converted = converted_of(tokenizer)
    grammar = asked.grammar(lead_of(tokenizer, asked, before), stop, CONVERTED[tokenizer][2])
    matcher = matcher_of(tokenizer, grammar, asked.words)
    last = frozenset(ends) or frozenset({converted.eos_token})

    def sample() -> Held:
        return Held(matcher.deep_copy(), converted, last, tokenizer.unk_token_id)

    first = sample()
    first.forced()
    if first.broken:
        raise GPTError(f"{asked.words} cannot be enforced here: the tokenizer has no tokens that spell it")
    return sample


def lead_of(tokenizer, asked: Rule, before: Iterable[int]) -> str:
    """The space that may come between the prompt and the answer: " " after a word, "" elsewhere.

    Most tokenizers write a word together with the space before it, and a model that may not write that space is held
    off its likeliest words. A rule whose texts may begin with a space themselves says so, and needs none.
    """
    before = list(before)
    if not before or before[-1] in tokenizer.all_special_ids or before[-1] in special(tokenizer):
        return ""
    text = tokenizer.decode(before[-4:], clean_up_tokenization_spaces=False)
    return "" if not text or text[-1].isspace() or asked.begins_with(" ") else " "


class Held:
    """One sample under a matcher of llguidance: the engine's Constraint.

    `broken` is why it had to end before the rule was satisfied: no token goes on (the tokenizer lacks a character),
    or the rule is too complex. None while all is well.
    """

    def __init__(self, matcher, converted, ends: frozenset[int], unknown: int | None):
        end = converted.eos_token
        self.matcher, self.ends, self.end, self.unknown = matcher, sorted(ends), end, unknown
        self.size = converted.vocab_size
        self.last = end if end in ends else self.ends[0]
        self.broken: str | None = None
        self.over = False
        self.allowed: Tensor | None = None

    def mask(self) -> Tensor:
        """The tokens allowed next, `(V,)` bool of the tokenizer's V."""
        if self.allowed is None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
            self.allowed = torch.from_numpy(np.unpackbits(bits, count=self.size, bitorder="little").view(np.bool_))
            self.allowed[self.ends] = self.allowed[self.end] = False
            if self.matcher.is_accepting():
                self.allowed[self.ends] = True
        return self.allowed

    def forced(self) -> list[int]:
        """The tokens that are certain; at the end of the rule, the one that ends the sample."""
        if self.over or self.broken or self.matcher.is_stopped():
            if self.matcher.is_error():
                self.broken = reason(self.matcher.get_error())
            return [self.last]
        return self.go_on()

    def go_on(self) -> list[int]:
        """The certain tokens of a rule that is not at its end; the ending one where nothing goes on."""
        tokens = self.matcher.compute_ff_tokens()
        if self.unknown in tokens:
            self.broken = "no token spells what has to come"
            return [self.last]
        if tokens:
            return tokens
        mask = self.mask()
        if bool(mask[self.ends].any()):  # where nothing but the end may come, it has come
            return [] if int(mask.sum()) > len(self.ends) else [self.last]
        if bool(mask.any()):
            return []
        self.broken = (
            reason(self.matcher.get_error()) if self.matcher.is_error() else "no token spells what has to come"
        )
        return [self.last]

    def accept(self, id: int) -> None:
        self.allowed = None
        if id in self.ends:
            self.over = True
        elif not self.matcher.consume_token(id):
            self.broken = reason(self.matcher.get_error())


def matcher_of(tokenizer, grammar: str, words: str):
    """A matcher to be copied for each sample. Raises GPTError where the grammar cannot be enforced."""
    from llguidance import LLMatcher

    matcher = LLMatcher(converted_of(tokenizer), grammar, log_level=0)
    if matcher.is_error():
        raise GPTError(f"{words} cannot be enforced: {reason(matcher.get_error())}")
    return matcher


def converted_of(tokenizer):
    """llguidance's form of a tokenizer, made once. Raises GPTError for one whose tokens are not known to be texts."""
    size, found, _ = CONVERTED.get(tokenizer, (None, None, ""))
    if size != len(tokenizer):
        found, alphabet = converted(tokenizer)
        CONVERTED[tokenizer] = (len(tokenizer), found, alphabet)
    return found


def converted(tokenizer) -> tuple[object, str]:
    """An LLTokenizer, and the characters that the tokenizer has where it has not all."""
    from llguidance import LLTokenizer, TokenizerWrapper

    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
    if end is None or not getattr(tokenizer, "is_fast", False):
        what = "it has no end-of-text token" if end is None else "it is none of the fast ones"
        raise GPTError(f"this model's tokenizer cannot be held to a constraint: {what}")
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    try:
        return LLTokenizer(backend.to_str(), n_vocab=len(tokenizer), eos_token=end), ""
    except ValueError:  # llguidance knows the decoders of bytes; one of plain texts it is told token by token
        plain = Plain(tokenizer, backend, end)
        texts = (text for i, text in enumerate(plain.tokens) if i not in plain.special_token_ids)
        return LLTokenizer(TokenizerWrapper(plain)), "".join(sorted(set(b"".join(texts).decode())))


class Plain:
    """A tokenizer whose tokens are plain texts, such as characters, in the words of llguidance."""

    def __init__(self, tokenizer, backend, end: int):
        self.backend, self.eos_token_id, self.bos_token_id = backend, end, None
        self.tokens = [(backend.id_to_token(i) or "").encode() for i in range(len(tokenizer))]
        self.special_token_ids = sorted(special(tokenizer))
        ids = self(PROBE)
        known = [i for i in ids if i != tokenizer.unk_token_id]
        if b"".join(self.tokens[i] for i in known) != backend.decode(known).encode():
            raise GPTError("this model's tokenizer cannot be held to a constraint: its tokens are no plain texts")

    def __call__(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids


def special(tokenizer) -> set[int]:
    """The tokens that stand for no text."""
    return {i for i, added in tokenizer.added_tokens_decoder.items() if added.special}
