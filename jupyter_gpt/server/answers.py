"""From sampled tokens to the JSON of OpenAI's answers, in one piece or in many.

A stop text may come in pieces, so the end of a text that could begin one is held back until it is known not
to; the log probabilities of its tokens wait with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jupyter_gpt.inference.answer import Detokenizer, decoder
from jupyter_gpt.inference.rules import Rule


@dataclass
class Spoken:
    """A token as it is told: its text, its log probability in nats, its likeliest alternatives."""

    text: str
    logprob: float
    top: list[tuple[str, float]]
    offset: int


@dataclass
class Piece:
    """What an answer gained: some text, the tokens of it, and at the end why it ended."""

    text: str = ""
    tokens: list[Spoken] = field(default_factory=list)
    finish: str | None = None


class Choice:
    """One sample of one prompt as it grows: `request` is the engine's. `finish` is None until it has
    ended. `rule` is what it is held to: one that could not go on says "length"."""

    def __init__(self, tokenizer, prompt, request, stop: Sequence[str], logprobs: bool, rule: Rule | None = None):
        self.tokenizer, self.stop, self.logprobs = tokenizer, (*stop, *prompt.stop), logprobs
        self.rule, self.lead = rule, ""
        if rule:
            from jupyter_gpt.inference.constrain import lead_of

            self.lead = lead_of(tokenizer, rule, prompt.ids)
        self.trim = prompt.trim and not rule  # the space around the answer belongs to the form of the prompt
        self.stop_ids, self.min_tokens = request.stop_ids, request.min_tokens
        self.detokenizer = Detokenizer(decoder(tokenizer), prompt.ids)
        self.floor = 0  # no stop text is looked for before this character
        self.sent = 0  # characters already told
        self.waiting: list[Spoken] = []
        self.count = 0  # tokens sampled, the one that ended it included
        self.finish: str | None = None

    def take(self, token) -> Piece:
        """Take a Token of the engine; returns what may be told now. Nothing more is taken after the end."""
        if self.finish:
            return Piece()
        self.count += 1
        if not (token.finish == "stop" and token.id in self.stop_ids):
            if self.logprobs:
                self.waiting.append(self.spoken(token))
            self.detokenizer.add([token.id])
        if self.count == self.min_tokens:
            self.floor = len(self.detokenizer.text)
        return self.told(token.finish)

    def end(self) -> Piece:
        """The engine has no more for it."""
        return Piece() if self.finish else self.told("length")

    def told(self, finish: str | None) -> Piece:
        """What is safe to tell, up to a stop text if there is one."""
        text = self.detokenizer.end() if finish else self.detokenizer.text
        found = [at for stop in self.stop if (at := text.find(stop, self.floor)) >= 0]
        if self.count < self.min_tokens:
            found = []
        if found:
            finish = "stop"
        safe = min(found) if found else len(text) - (0 if finish else held_back(text, self.stop))
        if self.trim:
            safe = len(text[:safe].rstrip())
            self.sent = max(self.sent, min(safe, len(text) - len(text.lstrip())))
        if self.lead and text.startswith(self.lead):
            self.sent = max(self.sent, min(safe, len(self.lead)))
        if self.rule and finish == "stop" and not found and self.rule.problem(text[:safe].removeprefix(self.lead)):
            finish = "length"
        self.finish = finish
        piece = Piece(text[self.sent : max(self.sent, safe)], [], finish)
        self.sent = max(self.sent, safe)
        piece.tokens = [t for t in self.waiting if t.offset < self.sent or (finish and not found)]
        self.waiting = self.waiting[len(piece.tokens) :]
        return piece

    def spoken(self, token) -> Spoken:
        top = [(self.text_of(id), logprob) for id, logprob in token.top]
        return Spoken(self.text_of(token.id), token.logprob, top, len(self.detokenizer.text))

    def text_of(self, id: int) -> str:
        return self.tokenizer.decode([id], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop text."""
    longest = 0
    for stop in stops:
        longest = max([longest, *(n for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n]))])
    return longest


class Writer:
    """The JSON around the choices of one request, in the form of chat or of completions."""

    def __init__(self, ask, prompt_tokens: int, model: str):
        self.ask, self.prompt_tokens = ask, prompt_tokens
        kind = "chatcmpl" if ask.chat else "cmpl"
        self.id, self.created, self.model = f"{kind}-{time.time_ns():x}", int(time.time()), model

    def head(self, chunk: bool) -> dict:
        kind = "chat.completion" + ".chunk" * chunk if self.ask.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def usage(self, choices: Sequence[Choice]) -> dict:
        sampled = sum(choice.count for choice in choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": sampled,
            "total_tokens": self.prompt_tokens + sampled,
        }

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Sequence[Piece]]) -> dict:
        """The answer in one piece; `pieces[i]` are all those of choice i."""
        told = []
        for index, (choice, parts) in enumerate(zip(choices, pieces, strict=True)):
            text, tokens = "".join(p.text for p in parts), [t for p in parts for t in p.tokens]
            one = {"index": index, "finish_reason": choice.finish, "logprobs": self.logprobs(tokens)}
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
            told.append(one | (said if self.ask.chat else {"text": text}))
        return self.head(False) | {"choices": told, "usage": self.usage(choices)}

    def opening(self, index: int) -> dict:
        """The first chunk of a choice in a chat: it says who speaks."""
        return self.chunk(
            {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        )

    def piece(self, index: int, piece: Piece) -> list[dict]:
        """The chunks for a piece: one for its text, in a chat one more for its end. None where nothing is
        told."""
        chunks = []
        end = piece.finish if not self.ask.chat else None
        if piece.text or piece.tokens or end:
            said = {"delta": {"content": piece.text}} if self.ask.chat else {"text": piece.text}
            chunks.append({"index": index, **said, "logprobs": self.logprobs(piece.tokens), "finish_reason": end})
        if self.ask.chat and piece.finish:
            chunks.append({"index": index, "delta": {}, "logprobs": None, "finish_reason": piece.finish})
        return [self.chunk(chunk) for chunk in chunks]

    def chunk(self, choice: dict) -> dict:
        usage = {"usage": None} if self.ask.include_usage else {}
        return self.head(True) | {"choices": [choice]} | usage

    def closing(self, choices: Sequence[Choice]) -> list[dict]:
        """The last chunk, with the usage, where it was asked for."""
        return [self.head(True) | {"choices": [], "usage": self.usage(choices)}] if self.ask.include_usage else []

    def logprobs(self, tokens: Sequence[Spoken]) -> dict | None:
        if not self.ask.logprobs:
            return None
        if self.ask.chat:
            content = [spelled(t.text, t.logprob) | {"top_logprobs": [spelled(*a) for a in t.top]} for t in tokens]
            return {"content": content, "refusal": None}
        return {
            "tokens": [t.text for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [dict(t.top) for t in tokens],
            "text_offset": [t.offset for t in tokens],
        }


def spelled(text: str, logprob: float) -> dict:
    """A token in the form of a chat; a part of a character has no bytes that its text could tell."""
    whole = "\ufffd" not in text
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}
