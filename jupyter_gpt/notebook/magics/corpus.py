"""`%%corpus`: a weighted mixture of sources becomes a corpus, and the data slide's table is its picture."""

from __future__ import annotations

from jupyter_gpt.notebook.magics.notebook import bind, show
from jupyter_gpt.notebook.magics.options import Magic, parse


class CorpusMagic(Magic):
    def run(self, ip, line: str, cell: str) -> None:
        """Declares the corpus and displays its table."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt import gpt
        from jupyter_gpt.stages.corpus import corpus_report

        out = given.pop("out", None)
        corpus = gpt.corpus(mixture=cell, variables=ip.user_ns, **given)
        bind(ip, out, corpus)
        show(corpus_report(corpus))


corpus = CorpusMagic("corpus", "CorpusOptions")
