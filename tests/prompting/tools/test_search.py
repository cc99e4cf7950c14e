"""An index as a tool."""

from types import SimpleNamespace

from jupyter_gpt.prompting.tools.act import search
from jupyter_gpt.prompting.tools.call import call


def test_hits_are_told_with_their_sources():
    asked = []
    hits = [
        SimpleNamespace(text="The bolt\n is  left-handed.", source="manual.pdf", page=3, score=0.9),
        SimpleNamespace(text="w" * 5000, source="notes.md", page=None, score=0.5),
    ]

    def find(query, k):
        asked.append((query, k))
        return hits if query else []

    tool = search(SimpleNamespace(search=find))
    assert (tool.name, tool.writes) == ("search", False)
    done = call(tool, tool.arguments("which way?"))
    assert asked == [("which way?", 3)]
    first, second = done.text.splitlines()
    assert first == "[1] manual.pdf, page 3: The bolt is left-handed."
    assert second.startswith("[2] notes.md: www")
    assert len(second) < 700
    assert call(tool, {"query": ""}).text == "nothing was found"
