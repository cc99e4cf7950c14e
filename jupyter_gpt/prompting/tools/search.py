"""The index of `%gpt index` as a tool: a model looks up what stands in your documents."""

from __future__ import annotations

from jupyter_gpt.prompting.tools.tool import Tool, cut, tool

HITS = 3
LONGEST = 600  # characters of a passage


def search(index) -> Tool:
    """A tool over anything with `search(query, k=)` whose hits have `.text`, `.source` and `.page`."""

    def look_up(query: str) -> str:
        """Searches the documents and answers the passages that fit best, each with its source."""
        hits = index.search(query, k=HITS)
        return "\n".join(passage(n, hit) for n, hit in enumerate(hits, start=1)) or "nothing was found"

    return tool(look_up, name="search")


def passage(number: int, hit) -> str:
    """`[1] manual.pdf, page 3: text`."""
    page = getattr(hit, "page", None)
    where = f"{hit.source}, page {page}" if page is not None else str(hit.source)
    return f"[{number}] {where}: {cut(' '.join(hit.text.split()), LONGEST)}"
