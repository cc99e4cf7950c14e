"""Sizes as people write and read them: `175B` and `1.4T` to numbers and back, and bytes."""

from __future__ import annotations

import re

from jupyter_gpt.errors import GPTError


def parse_size(text: str | float, what: str = "size") -> float:
    """`175B`, `1.4T`, `124M`, `300e9`, `1_000`: a positive number. Raises GPTError for anything else."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        value = float(text)
    else:
        match = re.fullmatch(
            r"([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)\s*([kmbgt]?)",
            str(text).strip().lower().replace("_", "").replace(",", ""),
        )
        if not match:
            raise GPTError(f"{what} {str(text)!r} is not a size: write 175B, 1.4T, 124M or 300e9")
        value = float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}[match[2]]
    if not 0 < value < 1e40:
        raise GPTError(f"{what} {str(text)!r} has to be more than nothing, and finite")
    return value


def short(number: float) -> str:
    """`175B`, `65.2B`, `1.4T`, `512`: three significant digits and a letter."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.3g}{letter}" if scaled < 999.5 else f"{scaled:,.0f}{letter}"
    return f"{number:.3g}"


def amount(size: float) -> str:
    """`538 MB`, `1.2 GB`: bytes as people read them, in powers of ten as disks and model pages count."""
    if size < 999.5e6:
        return f"{size / 1e6:,.0f} MB" if size >= 999.5e3 else f"{size / 1e3:,.0f} kB"
    return f"{size / 1e9:,.1f} GB"
