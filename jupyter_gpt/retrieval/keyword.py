"""Keyword search: BM25 (Robertson & Zaragoza 2009) by `bm25s`, over the same texts as the embeddings.

Words are runs of letters and digits, in lower case and without accents; in scripts that do not part words, each
character is one. English endings are taken off so that `days` meets `day`.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from jupyter_gpt.retrieval.dense import checksum

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0e7f"
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
USUAL = (
    "a an and are as at be been but by can could did do does for from had has have he her him his how i if in into is "
    "it its me my not of on or our she so such that the their them then there these they this to was we were what "
    "when where which who whom whose why will with would you your"
)
COMMON = frozenset(USUAL.split())  # say nothing about a text's subject; of a query of nothing else, all count


def words(text: str) -> list[str]:
    """The words of a text as they are compared, in order."""
    flat = unicodedata.normalize("NFKD", text.casefold())
    return [stem(word) for word in WORD.findall("".join(c for c in flat if not unicodedata.combining(c)))]


def stem(word: str) -> str:
    """The word without an English plural: Harman's S-stemmer (1991), and `foxes`, `churches` too."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss", "eies", "aies")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses", "zzes")):
        return word[:-2]
    return word[:-1]


def root(word: str) -> str:
    """A word without its English ending, so that `discovered` matches `discovers`: coarser than `stem`."""
    short_form = " ".join(words(word)) or word
    while (short := re.sub(r"(?:ing|ed|er|or|e|s)$", "", short_form)) != short_form and len(short) > 2:
        short_form = short[:-1] if len(short) > 3 and short[-1] == short[-2] and short[-1] not in "ls" else short
    return short_form


def content_words(text: str) -> list[str]:
    """The words of a text without stop words (`COMMON`), or all words if there are only stop words."""
    all_words = words(text)
    return [word for word in all_words if word not in COMMON] or all_words


class Keywords:
    """BM25 over rows, ready to be searched."""

    def __init__(self, retriever, rows):
        self.retriever, self.rows = retriever, rows

    def search(self, query: str, k: int, allowed) -> tuple[list[int], list[float]]:
        """Rows and BM25 scores of the `k` best among `allowed` `(rows,)` bool; only those with a word of `query`."""
        import numpy as np

        known = self.retriever.vocab_dict if len(self.rows) else ()
        terms = [word for word in dict.fromkeys(content_words(query)) if word in known]
        if not terms:
            return [], []
        scores = self.retriever.get_scores(terms)
        scores = np.where(allowed[self.rows], scores, 0.0)
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > 0]
        return self.rows[best].tolist(), scores[best].tolist()


def build(texts: Iterable[str], rows: Sequence[int], folder: Path, stamp: int) -> Keywords:
    """Index `texts`, those of `rows`, and save that in `folder` if it can be written."""
    import bm25s
    import numpy as np

    vocabulary: dict[str, int] = {"": 0}  # of a text without words: bm25s needs one at least
    ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] or [0] for text in texts]
    retriever = bm25s.BM25()
    if not ids:
        return Keywords(retriever, np.zeros(0, dtype=np.int64))
    retriever.index(bm25s.tokenization.Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
    rows = np.asarray(rows, dtype=np.int64)
    temporary = folder.with_name(f".{folder.name}")
    with suppress(OSError):  # a folder that may only be read: it is made again next time
        shutil.rmtree(temporary, ignore_errors=True)
        retriever.save(temporary, show_progress=False)
        np.save(temporary / "rows.npy", rows, allow_pickle=False)
        (temporary / "about.json").write_text(json.dumps({"stamp": stamp, "checksums": checksums(temporary)}))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    return Keywords(retriever, rows)


def checksums(folder: Path) -> dict[str, int]:
    """The checksum of each file but `about.json`."""
    return {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.name != "about.json"}


def load(folder: Path, stamp: int) -> Keywords | None:
    """What `build` kept for this state of the index; None when it is not there, or is of another one."""
    import bm25s
    import numpy as np

    try:
        about = json.loads((folder / "about.json").read_text())
        if about["stamp"] != stamp or about["checksums"] != checksums(folder):
            return None
        rows = np.load(folder / "rows.npy", allow_pickle=False)
        return Keywords(bm25s.BM25.load(folder, mmap=True, show_progress=False), rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not there, or damaged: it is rebuilt
        return None
