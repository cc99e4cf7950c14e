"""Constrained decoding with llguidance: an answer keeps to a rule token by token.

Before each token is sampled, llguidance's parser marks the tokens of the vocabulary that keep the text on its way to
the rule; where only one continuation is possible its tokens are forced (only those that the tokenizer would choose too,
so that the model reads what it is used to). An answer may end only where the rule is satisfied, so each one that ends
by itself is valid. JSON is written without white space: a weak model that may write any writes it for ever.

A tokenizer is converted once, and a rule is compiled once for all samples of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.rules import Rule, reason, rule

if TYPE_CHECKING:
    from torch import Tensor

CONVERTED: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (its length, its LLTokenizer, its alphabet)
PROBE = "Ab 1,\n"  # a text that any tokenizer can be tried on


def constrained(
    tokenizer,
    *,
    regex: object = None,
    json: object = None,
    choice: object = None,
    grammar: object = None,
    ends: Iterable[int] = (),
) -> Callable[[], RuleConstraint]:
    """The constraint of a `Request`, from exactly one of `regex`, `json`, `choice` and `grammar` as `rule` takes them.

    `ends` are the request's `stop_ids` (default: the tokenizer's end-of-text token). Raises GPTError for what cannot be
    enforced with this tokenizer.
    """
    made = rule(regex, json, choice, grammar)
    if made is None:
        raise GPTError("expected a constraint: one of regex, json, choice and grammar")
    return constraint_of(tokenizer, made, ends)


def constraint_of(
    tokenizer, rule: Rule, ends: Iterable[int] = (), before: Iterable[int] = (), stop: tuple[str, ...] = ()
) -> Callable[[], RuleConstraint]:
    """The same for a Rule whose answer follows the ids `before`; it may also end in one of the texts `stop`.

    After a word, the answer may begin with a space (`lead_of`), which is no part of it.
    """
    converted = converted_of(tokenizer)
    grammar = rule.grammar(lead_of(tokenizer, rule, before), stop, CONVERTED[tokenizer][2])
    matcher = matcher_of(tokenizer, grammar, rule.words)
    last = frozenset(ends) or frozenset({converted.eos_token})

    def sample() -> RuleConstraint:
        return RuleConstraint(matcher.deep_copy(), converted, last, tokenizer.unk_token_id)

    first = sample()
    first.forced()
    if first.broken:
        raise GPTError(f"{rule.words} cannot be enforced here: the tokenizer has no tokens that spell it")
    return sample


def lead_of(tokenizer, rule: Rule, before: Iterable[int]) -> str:
    """The space that may come between the prompt and the answer: " " after a word, else "".

    Most tokenizers join a word with the space before it, and a model that may not write that space is kept from its
    most probable words. A rule whose texts may begin with a space themselves needs none.
    """
    before = list(before)
    if not before or before[-1] in tokenizer.all_special_ids or before[-1] in special(tokenizer):
        return ""
    text = tokenizer.decode(before[-4:], clean_up_tokenization_spaces=False)
    return "" if not text or text[-1].isspace() or rule.begins_with(" ") else " "


class RuleConstraint:
    """The engine's `Constraint` for one sample, by a matcher of llguidance.

    `broken` is why the sample had to end before the rule was satisfied: no token continues it (the tokenizer lacks a
    character), or the rule is too complex. None while all is well.
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
        import torch

        if self.allowed is None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
            self.allowed = torch.from_numpy(np.unpackbits(bits, count=self.size, bitorder="little").view(np.bool_))
            self.allowed[self.ends] = self.allowed[self.end] = False
            if self.matcher.is_accepting():
                self.allowed[self.ends] = True
        return self.allowed

    def forced(self) -> list[int]:
        """The only possible tokens; at the end of the rule, the one that ends the sample."""
        if self.over or self.broken or self.matcher.is_stopped():
            if self.matcher.is_error():
                self.broken = reason(self.matcher.get_error())
            return [self.last]
        return self.forced_by_rule()

    def forced_by_rule(self) -> list[int]:
        """The only possible tokens of a rule that is not at its end; the ending one if nothing continues it."""
        tokens = self.matcher.compute_ff_tokens()
        if self.unknown in tokens:
            self.broken = "no token spells what has to come"
            return [self.last]
        if tokens:
            return tokens
        mask = self.mask()
        if bool(mask[self.ends].any()):  # if nothing but the end may come, end it
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
    size, made, _ = CONVERTED.get(tokenizer, (None, None, ""))
    if size != len(tokenizer):
        made, alphabet = convert(tokenizer)
        CONVERTED[tokenizer] = (len(tokenizer), made, alphabet)
    return made


def convert(tokenizer) -> tuple[object, str]:
    """An LLTokenizer, and the characters that the tokenizer has if it lacks some."""
    from llguidance import LLTokenizer, TokenizerWrapper

    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
    if end is None or not getattr(tokenizer, "is_fast", False):
        why = "it has no end-of-text token" if end is None else "it is not a fast tokenizer"
        raise GPTError(f"this model's tokenizer cannot be constrained: {why}")
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    try:
        return LLTokenizer(backend.to_str(), n_vocab=len(tokenizer), eos_token=end), ""
    except ValueError:  # llguidance supports byte-level decoders; plain texts are passed token by token
        plain = PlainTokenizer(tokenizer, backend, end)
        texts = (text for i, text in enumerate(plain.tokens) if i not in plain.special_token_ids)
        return LLTokenizer(TokenizerWrapper(plain)), "".join(sorted(set(b"".join(texts).decode())))


class PlainTokenizer:
    """A tokenizer whose tokens are plain texts, such as characters, with the interface that llguidance expects."""

    def __init__(self, tokenizer, backend, end: int):
        self.backend, self.eos_token_id, self.bos_token_id = backend, end, None
        self.tokens = [(backend.id_to_token(i) or "").encode() for i in range(len(tokenizer))]
        self.special_token_ids = sorted(special(tokenizer))
        ids = self(PROBE)
        known = [i for i in ids if i != tokenizer.unk_token_id]
        if b"".join(self.tokens[i] for i in known) != backend.decode(known).encode():
            raise GPTError("this model's tokenizer cannot be constrained: its tokens are no plain texts")

    def __call__(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids


def special(tokenizer) -> set[int]:
    """The special tokens, which have no text."""
    return {i for i, added in tokenizer.added_tokens_decoder.items() if added.special}


def settle(samples: Sequence[Completion], rule: Rule, stopped: Sequence[bool]) -> None:
    """Set `valid` and `value` of the finished `samples` of one prompt, with a note on invalid ones.

    An answer that ended by itself is valid; one that was cut off (by --max-tokens, by a stop text inside it, by hand,
    or because no token could continue it) may not be. `stopped`: whether a stop text, or its server, ended a sample.
    """
    invalid = []
    for sample, by_text in zip(samples, stopped, strict=True):
        problem = rule.problem(sample.text)
        sample.valid = problem is None
        if problem is None:
            sample.value = rule.value(sample.text)
            continue
        how = "stopped by hand" if sample.interrupted else "cut off"
        if sample.finish_reason == "stop":
            ended = "cut off by a stop text" if by_text else "cut off, as no token can follow"
            how = "not kept" if sample.remote else ended
            sample.finish_reason = "stop" if by_text else "length"
        invalid.append(f"{how}: not valid ({problem})")
        if len(samples) == 1 or sample is not samples[0]:
            sample.notes = (*sample.notes, invalid[-1])
    if invalid and len(samples) > 1:  # the first sample represents all of them
        samples[0].notes += (f"{len(invalid)} of {len(samples)} not valid, the first of them {invalid[0]}",)
