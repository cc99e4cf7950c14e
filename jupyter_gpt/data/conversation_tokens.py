"""Conversations tokenized: ids, which of them are trained on, and what was cut or left out on the way.

folder/tokens.npy    (N,)   int32: all conversations end to end
folder/trained.npy   (N,)   bool: the tokens that are trained on (the assistant's, or all)
folder/offsets.npy   (C+1,) int64: where each conversation begins
folder/source.npy    (C,)   int32, an index into `names`
folder/held_out.npy  (C,)   bool: for validation only
folder/conversations.json   counts of each source; written last: where it is, all is whole
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpt.errors import GPTError, reading

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
ARRAYS = ("tokens", "trained", "offsets", "source", "held_out")


@dataclass(frozen=True)
class Counts:
    """One source in the table: how its conversations were read and what became of them.

    form: how they are written (`messages`, `alpaca`, …). conversations: used, held-out ones included. cut: of these,
    shortened to the context. refused: left out, for being over-long or having nothing to learn. tokens, trained: of the
    conversations used for training. held_out: conversations kept for validation. endless: more can be made. notes: one
    line each, for the reader.
    """

    source: str
    form: str
    weight: float
    share: float
    conversations: int
    cut: int
    refused: int
    tokens: int
    trained: int
    held_out: int
    endless: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Conversations:
    """Tokenized conversations of several sources, none without a token that is trained on.

    first: the first conversations of each source for the eye, as `notebook/views/conversations.py` draws them: dicts of
    `source`, `where`, `ids`, `trained` and `length`, its tokens before it was cut.
    """

    tokens: np.ndarray  # (N,) int32
    trained: np.ndarray  # (N,) bool
    offsets: np.ndarray  # (C+1,) int64
    source: np.ndarray  # (C,) index into names
    held_out: np.ndarray  # (C,) bool
    names: list[str]
    weights: list[float]
    pad: int
    counts: list[Counts] = field(default_factory=list)
    first: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of conversation c and which of them are trained on."""
        where = slice(self.offsets[c], self.offsets[c + 1])
        return self.tokens[where], self.trained[where]

    def lengths(self) -> np.ndarray:
        """(C,) tokens of each conversation."""
        import numpy as np

        return np.diff(self.offsets)

    def training(self, source: int) -> np.ndarray:
        """The indices of the conversations of `source` that are trained on."""
        import numpy as np

        return np.flatnonzero((self.source == source) & ~self.held_out)

    def save(self, folder: Path) -> None:
        """Writes everything to `folder`, whole or not at all."""
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conversations.json").unlink(missing_ok=True)
        for name in ARRAYS:
            with (folder / f"{name}.npy.tmp").open("wb") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
            (folder / f"{name}.npy.tmp").replace(folder / f"{name}.npy")
        details = {
            "format": FORMAT,
            "names": self.names,
            "weights": self.weights,
            "pad": self.pad,
            "counts": [asdict(count) for count in self.counts],
            "first": self.first,
        }
        (folder / "conversations.json.tmp").write_text(json.dumps(details, ensure_ascii=False), "utf-8")
        (folder / "conversations.json.tmp").replace(folder / "conversations.json")

    @classmethod
    def open(cls, folder: Path) -> Conversations:
        """What `save` left in `folder`. GPTError when it is not whole."""

        if not (folder / "conversations.json").exists():
            raise GPTError(f"there are no tokenized conversations in {folder}: preparing them did not finish")
        with reading(f"what is in {folder}", "--overwrite makes the run anew"):
            return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Conversations:
        """The same; what it raises for damaged files is anything."""
        import numpy as np

        details = json.loads((folder / "conversations.json").read_text("utf-8"))
        if details.pop("format", None) != FORMAT:
            raise GPTError(f"the conversations in {folder} were written by another version of jupyter_gpt")
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        counts = [Counts(**count | {"notes": tuple(count["notes"])}) for count in details.pop("counts")]
        return cls(**arrays, **details, counts=counts)
