"""What an answer rests on: its sentences tinted by support, its sources with the matching words tinted, and the meter
of the context window. Also search results alone, as `%gpt search` shows them.

Which chunks are found, and what a model says of them, may differ from machine to machine, so all of that varies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupyter_gpt.notebook.views.completion import settings, spent
from jupyter_gpt.report.parts import Bar, Folded, Inline, Paragraph, Part, Span, Table, Varies, bold, joined, quiet
from jupyter_gpt.report.report import Report
from jupyter_gpt.retrieval import cite, keyword

GOOD, BAD = "rgba(0,158,115,0.20)", "rgba(213,94,0,0.25)"
WORDS, QUOTED = "rgba(240,228,66,0.45)", "rgba(0,158,115,0.30)"
PARTS = ("#8a8a8a", "#3b82c4", "#5aa0d8", "#e07b39")  # of the meter: the rest, sources by turns, the answer
WORD = re.compile(r"\w+")


def answer_report(answer, index_map: Sequence[Part] = ()) -> Report:
    """What `%%rag` leaves behind. `index_map` are the parts that show where in the index its sources are."""
    parts: list[Part] = []
    if answer.rewriting is not None:
        parts += [
            Paragraph(["understood as: ", Varies(answer.asked)], "quiet"),
            Folded("how it was rewritten", [Paragraph(Varies(answer.rewriting.prompt), "code")]),
        ]
    parts += [
        Paragraph(Varies(sentences(answer)), "block"),
        Varies([*(Paragraph(line, "quiet") for line in checked(answer)), *meter(answer)]),
        Paragraph("sources"),
        Varies([hits_table(answer.hits, answer.asked, answer.text), *left_out(answer)]),
    ]
    if index_map:
        parts.append(Folded("map of the index", [Varies(index_map)], text=True))
    model: Inline = "no chunk is above the relevance threshold, so no model was asked"
    if done := answer.completion:
        parts.append(Folded("exact prompt", [Paragraph(Varies(done.prompt), "code")]))
        model = [f"{done.model} · {settings(done.sampling)} · ", *spent(done)]
    notes = done.notes if done else ()
    parts.append(Paragraph(joined("\n", [[f"index {answer.index} · ", model], *notes]), "quiet"))
    return Report("", parts, {"view": "rag", "index": answer.index, "question": answer.question}, answer.as_dict())


def checked(answer) -> list[str]:
    """What was checked, in words."""
    if not answer.known:
        if not (answer.left or answer.hits):
            return ["nothing was found"]
        return [f"best match: cosine {answer.best:.2f}, below the {answer.near:.2f} relevance threshold"]
    said = [check for check in answer.checks if check.verdict != cite.NOTHING]
    if not said:
        return []
    good = sum(bool(check.by) for check in said)
    line = f"{good} of {len(said)} sentences supported by a source, by their words, numbers and names"
    bad = [f"in no source: {check.text} ({check.reason})" for check in said if not check.by]
    wrong = [
        f"cites {listed(check.cited)}, but {listed(check.by)} says it: {check.text}"
        for check in said
        if check.verdict == cite.ELSEWHERE
    ]
    return [line, *bad, *wrong]


def listed(numbers: Sequence[int]) -> str:
    return "".join(f"[{n}]" for n in numbers)


def sentences(answer) -> Inline:
    """The answer, each sentence tinted by whether a source supports it, and by which."""
    if not answer.checks:
        return answer.text if answer.known else bold(answer.text)
    out: list[Inline] = []
    for check in answer.checks:
        if check.verdict == cite.NOTHING:
            out.append(check.text)
        elif not check.by:
            out.append([Span(check.text, tint=BAD), quiet(" ⚠ in no source")])
        else:
            silent = check.verdict == cite.ELSEWHERE or not check.cited
            out.append([Span(check.text, tint=GOOD), quiet(f" ✓ {listed(check.by[:2])}" if silent else " ✓")])
    return joined(" ", out)


def left_out(answer) -> list[Part]:
    """Which of the hits are not in the prompt, and why."""
    if not answer.left:
        return []
    if not answer.known:
        return [Paragraph(f"{len(answer.left)} chunks found, none above the relevance threshold", "quiet")]
    names, count = ", ".join(hit.where for hit in answer.left), len(answer.left) + len(answer.hits)
    return [Paragraph(f"did not fit into the context: {len(answer.left)} of {count} chunks ({names})", "quiet")]


def hits_table(hits: Sequence, question: str, answer: str = "") -> Part:
    """Sources: number, score, where, and the text with the question's words and the answer's quotations tinted."""
    rows = [(f"[{n}]", scores(hit), where(hit), lit(hit.text, question, answer)) for n, hit in enumerate(hits, start=1)]
    return Table(("", "score", "source", "text"), rows, "llll", wrap=True) if hits else Paragraph("none")


def scores(hit) -> Inline:
    """What it was ranked by, and the cosine and BM25 where that is something else."""
    more = [f"cosine {hit.cosine:.2f}"] if abs(hit.score - hit.cosine) > 1e-6 else []
    more += [f"BM25 {hit.keyword:.1f}"] if hit.keyword is not None else []
    return [f"{hit.score:.3f}", quiet("".join(f", {each}" for each in more))]


def where(hit) -> Inline:
    more = [hit.heading] if hit.heading else []
    more += [f"also in {', '.join(hit.sources[1:4])}"] if len(hit.sources) > 1 else []
    return [hit.where, quiet("".join(f", {each}" for each in more))]


def lit(text: str, question: str, answer: str = "") -> Inline:
    """The text, stretches that the answer quotes in green, words of the question in yellow."""
    wanted = set(keyword.content_words(question))
    runs = cite.quoted_runs(answer, text) if answer else []
    words = [w.span() for w in WORD.finditer(text) if wanted & set(keyword.words(w[0]))]
    spans = [(*span, QUOTED) for span in runs]
    spans += [(*span, WORDS) for span in words if not any(a <= span[0] < b for a, b in runs)]
    out, at = [], 0
    for start, end, tint in sorted(spans):
        out += [text[at:start], Span(text[start:end], tint=tint)]
        at = end
    return [*out, text[at:]]


def meter(answer) -> list[Part]:
    """The context window, as a bar and in words."""
    of = answer.meter
    if of is None:
        return []
    if of.context is None:
        return [Paragraph(f"{len(answer.hits)} chunks went in; the endpoint's context length is not known", "quiet")]
    parts = [(of.rest, PARTS[0], "instructions and question")]
    parts += [(n, PARTS[1 + i % 2], f"source {i + 1}") for i, n in enumerate(of.sources)]
    parts += [(of.answer, PARTS[3], "reserved for the answer")]
    bar = Bar([(n / of.context, colour, name) for n, colour, name in parts], 560, 40)
    line = (
        f"context of {of.context:,} tokens: {sum(of.sources):,} in {len(of.sources)} sources, {of.rest:,} of "
        f"instructions and question, {of.answer:,} reserved for the answer, {of.free:,} free"
    )
    return [Paragraph([bar, "\n", quiet(line)])]


def hits_report(name: str, question: str, hits: Sequence, how: str, index_map: Sequence[Part] = ()) -> Report:
    """What `%gpt search` leaves behind."""
    parts: list[Part] = [Varies([hits_table(hits, question) if hits else Paragraph("nothing was found")])]
    if index_map:
        parts.append(Folded("map of the index", [Varies(index_map)], text=True))
    data = {"view": "search", "index": name, "question": question}
    hits_data = {"hits": [hit.as_dict() for hit in hits]}
    return Report(f"index {name}: {question}", [*parts, Paragraph(how, "quiet")], data, hits_data)
