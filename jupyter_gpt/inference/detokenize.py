"""Text from tokens as they come: never half a character, never a lost space, and exact at the end.

A byte-level token may hold a part of `é` or of an emoji, and a sentencepiece decoder drops a space at the
front of whatever it is given. So a few tokens before the new ones are always decoded with them, and text that
ends in a replacement character waits for the token that completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BEFORE = 8  # old tokens decoded along with the new: two characters at least
LONGEST = 4  # bytes of a character
BROKEN = "\ufffd"  # what a decoder writes for bytes that are no whole character


def decoder(tokenizer) -> Callable[[list[int]], str]:
    """Ids to text, special tokens left out, nothing tidied up."""
    if getattr(tokenizer, "is_fast", False):
        backend = tokenizer.backend_tokenizer
        return lambda ids: backend.decode(ids, skip_special_tokens=True)
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Detokenizer:
    """The text of one sample, as far as it is certain. `prompt` are the ids before it."""

    def __init__(self, decode: Callable[[list[int]], str], prompt: Sequence[int] = ()):
        self.decode, self.text = decode, ""
        self.window = list(prompt[-BEFORE:])  # what is decoded at each look: some old tokens, then the new
        self.known = len(decode(self.window))  # how many characters of it are told already

    def add(self, ids: Sequence[int]) -> str:
        """Takes sampled tokens; returns what they make certain, which `text` then ends with."""
        self.window += ids
        found = self.decode(self.window)
        loose = min(LONGEST - 1, len(found) - len(found.rstrip(BROKEN)))
        new = self._tell(found[: len(found) - loose])
        if not loose:
            self.window = self.window[-BEFORE:]
            self.known = len(self.decode(self.window))
        return new

    def end(self) -> str:
        """No more comes: bytes that still wait are shown as the broken character they are; returns all the
        text.
        """
        self._tell(self.decode(self.window))
        return self.text

    def _tell(self, found: str) -> str:
        new = found[self.known :]
        self.text += new
        self.known += len(new)
        return new
