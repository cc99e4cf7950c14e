"""The exact text of tokens: their bytes, and white space and control characters made visible.

Whitespace is shown as `·` (space), `⇥` (tab) and `⏎` (newline). Where one character is split over several byte-level
tokens, each shows its bytes, as `<e2 82>`.
"""

from __future__ import annotations

from typing import NamedTuple

from jupyter_gpt.data.files import utf8
from jupyter_gpt.errors import GPTError

VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\x7f": "␡", "\xa0": "⍽"}


class Piece(NamedTuple):
    """One token: its integer, what to show for it, and the exact bytes of the text it stands for."""

    id: int
    text: str
    bytes: bytes


def pieces(tokenizer, text: str) -> list[Piece]:
    """The tokens of `text` under a fast transformers tokenizer, without special tokens added.

    The bytes come from the tokens' own byte-level spelling where that spells out the text exactly, else from the
    tokenizer's offsets. Raises GPTError for a tokenizer that knows no offsets, and for a lone surrogate.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise GPTError("showing tokens needs a fast tokenizer: this one does not tell where its tokens stand")
    utf8(text, "the text")
    found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    ids, offsets = list(found["input_ids"]), found["offset_mapping"]
    names = tokenizer.convert_ids_to_tokens(ids)
    spelled = _spell(names, ids, set(tokenizer.get_added_vocab().values()))
    if spelled is None or b"".join(spelled) != text.encode():
        spelled = _slice(names, offsets, text)
    return [Piece(i, readable(raw), raw) for i, raw in zip(ids, spelled, strict=True)]


def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: the printable character that stands for each byte in a byte-level token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(hidden)}


def _spell(names: list[str], ids: list[int], added: set[int]) -> list[bytes] | None:
    """The bytes of byte-level tokens, or None when some token is not spelled in that alphabet."""
    alphabet, out = byte_alphabet(), []
    for name, i in zip(names, ids, strict=True):
        if i in added:
            out.append(name.encode())
        elif all(c in alphabet for c in name):
            out.append(bytes(alphabet[c] for c in name))
        else:
            return None
    return out


def _slice(names: list[str], offsets: list[tuple[int, int]], text: str) -> list[bytes]:
    """The bytes between a token's offsets; `<0xE2>` tokens that share one character keep one byte each."""
    out, end = [], 0
    for name, (start, stop) in zip(names, offsets, strict=True):
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            out.append(bytes.fromhex(name[3:5]))
        else:
            out.append(text[max(start, end) : stop].encode())
        end = max(end, stop)
    return out


def token_text(tokenizer, token: int) -> str:
    """One token's text from its integer alone; bytes that are no whole character in hex."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if "\ufffd" not in text:
        return text
    raw = _spell([tokenizer.convert_ids_to_tokens(token)], [token], set())
    return readable(raw[0]) if raw else text


def readable(raw: bytes) -> str:
    """The bytes as text, each run of bytes that is no whole character in hex: `<e2 82>`."""
    out = ""
    while raw:
        try:
            return out + raw.decode()
        except UnicodeDecodeError as error:
            out += raw[: error.start].decode()
            rest = raw[error.start :]
            broken = next((n for n in range(1, len(rest)) if _begins(rest[n:])), len(rest))
            out += f"<{rest[:broken].hex(' ')}>"
            raw = rest[broken:]
    return out


def _begins(raw: bytes) -> bool:
    """Whether a whole character begins here."""
    length = 1 if raw[0] < 0x80 else 2 if raw[0] >> 5 == 6 else 3 if raw[0] >> 4 == 14 else 4
    first = raw[:length]
    return len(first) == length and first.decode(errors="ignore").encode() == first


def visible(text: str) -> str:
    """Whitespace and control characters as signs that can be seen."""
    return "".join(c if c.isprintable() and c != " " else _sign(c) for c in text)


def _sign(c: str) -> str:
    if ord(c) < 32 and c not in VISIBLE:
        return chr(0x2400 + ord(c))  # the control pictures: ␀, ␍, ␛
    return VISIBLE.get(c, f"\\u{ord(c):04x}")
