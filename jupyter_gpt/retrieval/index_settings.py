"""What an index shall be made of and how, from what is asked and what stands there: what wants --overwrite or --add."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval.chunk import TOKENS
from jupyter_gpt.retrieval.index import Index


def known(folder: Path, overwrite: bool) -> dict:
    """What is known of an index that is there; nothing of a damaged one that is to be made anew."""
    try:
        about = Index(folder).about
        if about:
            Index(folder).matrix()
        return about
    except GPTError:
        if not overwrite:
            raise
        return {}


def settled(name: str, had: dict, given: list[str], embedder, chunk_tokens, overlap, add: bool, overwrite: bool):
    """The sources the index shall have, and whether it has to be made anew. Raises GPTError for what wants --overwrite.

    `overwrite` is also what made the index before: the same cell, or the same sources and settings, may make it again.
    """
    if not had and not given:
        raise GPTError(f"say what index {name} is made of: files, folders, globs or $variables")
    if chunk_tokens is not None and chunk_tokens < 8:
        raise GPTError(f"--chunk-tokens is at least 8, not {chunk_tokens}")
    if overlap is not None and not 0 <= overlap < (chunk_tokens or had.get("chunk_tokens", TOKENS)):
        raise GPTError(
            f"--overlap is a share of a chunk below 1, or a number of tokens below --chunk-tokens, not {overlap:g}"
        )
    old = had.get("sources", [])
    asked = {"embedder": embedder, "chunk_tokens": chunk_tokens, "overlap": overlap}
    other = [key for key, value in asked.items() if had and value is not None and value != had[key]]
    if other and not overwrite:
        key = other[0]
        what = f"{had[key]} tokens a chunk" if key == "chunk_tokens" else f"{key} {had[key]}"
        raise GPTError(
            f"index {name} was made with {what}, not {asked[key]}: leave --{key.replace('_', '-')} out, or say "
            "--overwrite to make it anew"
        )
    left = [source for source in old if source not in given] if given else []
    if left and not add and not overwrite:
        raise GPTError(f"index {name} also holds {', '.join(left[:3])}: --add keeps that, --overwrite lets it go")
    given = [*old, *(s for s in given if s not in old)] if add or not given else given
    return given, bool(other) or (overwrite and not had)
