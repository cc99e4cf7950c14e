"""Tokenized documents on disk: all tokens end to end in one memory-mapped array, and where each document begins.

folder/tokens.npy      (N,)   uint16, or uint32 for a vocabulary above 65,536
folder/offsets.npy     (D+1,) int64: where each document begins; its first token is the delimiter, except in
                       the held-out end of a training document
folder/source.npy      (D,)   uint16, an index into `names`
folder/held_out.npy    (D,)   bool: for validation only
folder/cut_off.npy     (D,)   bool: its text is truncated, so no end of text follows it
folder/documents.json  counts of each source; written last, so where it exists the rest is complete
folder/tokenizer/      as transformers saves it
"""

from __future__ import annotations

import json
import shutil
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, reading

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

ANEW = "--overwrite starts the run again"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Documents:
    """Tokenized documents of several sources. A document begins with the token `eot`, unless it is the held-out end of
    the one before it."""

    tokens: np.ndarray  # (N,) unsigned integers
    offsets: np.ndarray  # (D+1,) int64
    source: np.ndarray  # (D,) index into names
    held_out: np.ndarray  # (D,) bool
    names: list[str]
    weights: list[float]  # sampling proportions, one a name
    eot: int
    cut_off: np.ndarray | None = None  # (D,) bool; None: no document is truncated
    details: dict = field(default_factory=dict)  # documents.json
    folder: Path | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Documents:
        """The documents that `prepare` wrote to `folder`, memory-mapped. GPTError when incomplete or damaged."""
        folder = Path(folder)
        if not (folder / "documents.json").exists():
            raise GPTError(f"there is no tokenized corpus in {folder}: preparing it did not finish")
        with reading(f"the tokenized corpus in {folder}", ANEW):
            return cls._read(folder)

    @classmethod
    def _read(cls, folder: Path) -> Documents:
        import numpy as np

        details = json.loads((folder / "documents.json").read_text("utf-8"))
        if details.get("format") != FORMAT:
            raise GPTError(f"{folder} was written by another version (format {details.get('format')}, not {FORMAT})")
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("tokens", "offsets", "source", "held_out")
        }
        if (folder / "cut_off.npy").exists():  # older folders have none
            arrays["cut_off"] = np.load(folder / "cut_off.npy", mmap_mode="r", allow_pickle=False)
        names = [row["name"] for row in details["sources"]]
        weights = [row["weight"] for row in details["sources"]]
        documents = cls(**arrays, names=names, weights=weights, eot=details["eot"], details=details, folder=folder)
        documents.check()
        return documents

    def check(self) -> None:
        """Raises ValueError where the arrays do not belong together."""
        import numpy as np

        count = len(self.source)
        arrays = [self.source, self.held_out, *([] if self.cut_off is None else [self.cut_off])]
        shapes = self.offsets.shape == (count + 1,) and self.tokens.ndim == 1
        if not shapes or any(array.shape != (count,) for array in arrays):
            raise ValueError("its arrays are of different lengths")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens) or (np.diff(self.offsets) < 1).any():
            raise ValueError("its documents do not lie one after another")
        if count and not 0 <= int(self.source.min()) <= int(self.source.max()) < len(self.names):
            raise ValueError("a document is of no source")
        if self.tokens.dtype.kind != "u" or not isinstance(self.eot, int):
            raise ValueError("its tokens are not integers")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, d: int) -> np.ndarray:
        """The tokens of document d, delimiter included."""
        return self.tokens[self.offsets[d] : self.offsets[d + 1]]

    def lengths(self) -> np.ndarray:
        """(D,) tokens of each document, delimiter included."""
        return self.offsets[1:] - self.offsets[:-1]

    def ended(self) -> np.ndarray:
        """(D,) bool: whether the last token of each document is the last of its text."""
        import numpy as np

        return np.ones(len(self), bool) if self.cut_off is None else ~np.asarray(self.cut_off)

    def training(self, source: int) -> np.ndarray:
        """The indices of the documents of `source` that are trained on."""
        return ((self.source == source) & ~self.held_out).nonzero()[0]

    def held_out_tokens(self) -> int:
        """Tokens for validation."""
        return int(self.lengths()[self.held_out].sum())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that made these tokens."""
        from transformers import AutoTokenizer

        with reading(f"the tokenized corpus in {self.folder}", ANEW):
            tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
            if len(self.tokens) and int(self.tokens.max()) >= len(tokenizer):
                raise ValueError("it has tokens that its tokenizer does not know")
            tokenizer("a")  # its configuration is read when it is called
            return tokenizer


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file under a temporary name, then renames it."""
    import numpy as np

    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    temporary.replace(path)


class ArrayWriter:
    """A .npy file of one dimension whose length is not known yet; it has its name after `finish`. Call `close` in any
    case."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.temporary, self.dtype, self.count = path, path.with_name(f"{path.name}.tmp"), dtype, 0
        self.file = self.temporary.open("wb")
        self._header()
        self.data = self.file.tell()

    def extend(self, values: list) -> None:
        import numpy as np

        self.file.write(np.array(values, self.dtype).tobytes())
        self.count += len(values)

    def finish(self) -> None:
        self.file.seek(0)
        self._header()
        if self.file.tell() != self.data:
            raise RuntimeError("the npy header changed its length")  # numpy leaves room for the count to grow
        self.file.close()
        self.temporary.replace(self.path)

    def close(self) -> None:
        """Closes the file; without a `finish` before it, removes what was written."""
        self.file.close()
        self.temporary.unlink(missing_ok=True)

    def _header(self) -> None:
        from numpy.lib import format as npy

        spec = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.count,)}
        npy.write_array_header_1_0(self.file, spec)


class Writer:
    """Writes documents one by one; they can be opened only after `finish`. Call `close` in any case."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, eot: int):
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "documents.json").unlink(missing_ok=True)
        self.folder, self.eot = folder, eot
        self.array = ArrayWriter(folder / "tokens.npy", np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32))
        self.starts, self.source, self.held_out, self.cut_off = array("q"), array("H"), array("b"), array("b")
        temporary = folder / "tokenizer.tmp"
        tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
        temporary.replace(folder / "tokenizer")

    @property
    def tokens(self) -> int:
        return self.array.count

    def begin(self, source: int, held_out: bool, delimiter: bool = True) -> int:
        """Begins a document, with the delimiter unless it continues the one before; returns its index.

        It counts as truncated until `end` is called.
        """
        self.starts.append(self.tokens)
        self.source.append(source)
        self.held_out.append(held_out)
        self.cut_off.append(True)
        if delimiter:
            self.extend([self.eot])
        return len(self.starts) - 1

    def end(self) -> None:
        """The document begun last is complete."""
        self.cut_off[-1] = False

    def extend(self, ids: list[int]) -> None:
        """Adds tokens to the document begun last."""
        self.array.extend(ids)

    def length(self, document: int) -> int:
        """The tokens of a document so far, delimiter included."""
        end = self.starts[document + 1] if document + 1 < len(self.starts) else self.tokens
        return end - self.starts[document]

    def finish(self, details: dict) -> Documents:
        """Completes the files under their final names and opens them."""
        import numpy as np

        self.array.finish()
        arrays = {
            "offsets": np.array([*self.starts, self.tokens], np.int64),
            "source": np.array(self.source, np.uint16),
            "held_out": np.array(self.held_out, bool),
            "cut_off": np.array(self.cut_off, bool),
        }
        for name, values in arrays.items():
            write_array(self.folder / f"{name}.npy", values)
        store.write_json(self.folder / "documents.json", {"format": FORMAT, "eot": self.eot, **details})
        return Documents.open(self.folder)

    def close(self) -> None:
        """Closes the file; without a `finish` before it, removes what was written."""
        self.array.close()
