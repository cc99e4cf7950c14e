"""What an answer stands on: its sentences tinted by support, its sources with the words in them lit up, and the meter
of
the context window. Also hits alone, as `%gpt search` shows them.

Which chunks are near, and what a model says of them, may differ from machine to machine, so all that stands in marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupyter_gpt.notebook.views.bundle import Bundle, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import code, prose, settings, spent
from jupyter_gpt.notebook.views.table import RULE, text_table
from jupyter_gpt.retrieval import cite, keyword

QUIET = "color:#888;font-size:90%"
CELL = "text-align:left;vertical-align:top;white-space:normal;background-color:transparent;padding:4px 14px 8px 4px"
READING = "line-height:1.7;max-width:960px;overflow-wrap:anywhere"
GOOD, BAD, WORDS, QUOTED = (
    "background-color:rgba(0,158,115,0.20)",
    "background-color:rgba(213,94,0,0.25)",
    "background-color:rgba(240,228,66,0.45)",
    "background-color:rgba(0,158,115,0.30)",
)
PARTS = ("#8a8a8a", "#3b82c4", "#5aa0d8", "#e07b39")  # of the meter: the rest, sources by turns, the answer
BAR = 560  # pixels
WORD = re.compile(r"\w+")


def answer_bundle(answer, picture: str = "", words: str = "") -> Bundle:
    """What `%%rag` leaves behind. `picture` is the map's HTML, `words` what it shows in words."""
    head = [f"index {answer.index} · {model_line(answer)}"]
    lines = [*sentence_lines(answer), *meter_lines(answer)]
    notes = list(answer.completion.notes) if answer.completion else []
    text = [quoted(answer.text), quoted("\n".join(lines)), "sources", quoted(sources_text(answer))]
    text = "\n\n".join([*text, *([quoted(words)] if words else []), "\n".join([*head, *notes])])
    left = f"<p style='{QUIET}'>{plain(left_line(answer))}</p>" if answer.left else ""
    html = (
        rewritten_html(answer)
        + f'<div style="{READING}">{marked(sentences_html(answer))}</div>'
        + f'<p style="{QUIET}">{marked("<br>".join(map(plain, sentence_lines(answer))))}</p>'
        + marked(meter_html(answer))
        + marked(hits_html(answer.hits, answer.asked, answer.text) + left)
        + (f"<details><summary>where it is in the index</summary>{marked(picture)}</details>" if picture else "")
        + prompt_html(answer)
        + f'<p style="{QUIET}">{"<br>".join(map(escape, [*head, *notes]))}</p>'
    )
    data = {"view": "rag", "index": answer.index, "question": answer.question}
    return Bundle(text, html, data, answer.as_dict())


def model_line(answer) -> str:
    done = answer.completion
    if done is None:
        return "nothing near the question was found, so no model was asked"
    return f"{done.model} · {settings(done.sampling)} · {spent(done)}"


def rewritten_html(answer) -> str:
    """A follow-up question as it was searched and put."""
    if answer.rewriting is None:
        return ""
    exact = marked(code(answer.rewriting.prompt, answer.rewriting))
    prompt = f"<details><summary>how it was rewritten</summary>{exact}</details>"
    return f'<p style="{QUIET}">understood as: {marked(plain(answer.asked))}</p>{prompt}'


def prompt_html(answer) -> str:
    if answer.completion is None:
        return ""
    return f"<details><summary>the exact prompt</summary>{marked(prompt_code(answer.completion))}</details>"


def prompt_code(completion) -> str:
    shown = plain(completion.prompt).replace("  ", "&nbsp; ").replace("\n", "<br>")
    return f'<div style="font-family:monospace;font-size:13px;line-height:1.5;max-width:960px">{shown}</div>'


def sentence_lines(answer) -> list[str]:
    """What was checked, in words."""
    if not answer.known:
        best = f"the nearest chunk has cosine {answer.best:.2f}" if answer.left or answer.hits else "nothing was found"
        return [f"{best}; near begins at {answer.near:.2f}, which questions about other things reach by chance"]
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


def sentences_html(answer) -> str:
    """The answer, each sentence tinted by whether a source supports it, and by which."""
    if not answer.checks:
        return f"<b>{plain(answer.text)}</b>" if not answer.known else newlines(answer.text)
    out = []
    for check in answer.checks:
        shown = newlines(check.text)
        if check.verdict == cite.NOTHING:
            out.append(shown)
        elif not check.by:
            out.append(f'<span style="{BAD}">{shown}</span> <span style="{QUIET}">⚠ in no source</span>')
        else:
            silent = check.verdict == cite.ELSEWHERE or not check.cited
            by = f' <span style="{QUIET}">{"✓ " if silent else "✓"}{listed(check.by[:2]) if silent else ""}</span>'
            out.append(f'<span style="{GOOD}">{shown}</span>{by}')
    return " ".join(out)


def newlines(text: str) -> str:
    return plain(text).replace("  ", "&nbsp; ").replace("\n", "<br>")


def sources_text(answer) -> str:
    """The sources as a table, and what did not fit."""
    lines = [hits_text(answer.hits)] if answer.hits else ["none"]
    return "\n".join([*lines, *([left_line(answer)] if answer.left else [])])


def left_line(answer) -> str:
    """Which of the hits are not in the prompt, and why."""
    if not answer.known:
        return f"{len(answer.left)} chunks found, none near enough to be put to a model"
    names = ", ".join(hit.where for hit in answer.left)
    return f"did not fit into the context: {len(answer.left)} of {len(answer.left) + len(answer.hits)} chunks ({names})"


def hits_text(hits: Sequence) -> str:
    rows = [(f"[{n}]", f"{hit.score:.3f}", hit.where, short(hit.text)) for n, hit in enumerate(hits, start=1)]
    return text_table(("", "score", "source", "text"), rows, "lrll")


def short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def hits_html(hits: Sequence, question: str, answer: str = "") -> str:
    """Sources as a table: number, score, where, and the text with the question's words and the answer's quotations
    lit.
    """
    rows = "".join(
        f'<tr style="background-color:transparent"><td style="{CELL}">[{n}]</td><td style="{CELL}">{scores(hit)}</td>'
        f'<td style="{CELL}">{where(hit)}</td>'
        f'<td style="{CELL};border-bottom:{RULE}">{lit(hit.text, question, answer)}</td></tr>'
        for n, hit in enumerate(hits, start=1)
    )
    return f'<table style="border-collapse:collapse;{READING}">{rows}</table>' if hits else ""


def scores(hit) -> str:
    """What it was ranked by, and beneath it the cosine and BM25 where that is something else."""
    lines = [f"{hit.score:.3f}"]
    if abs(hit.score - hit.cosine) > 1e-6:
        lines.append(f'<span style="{QUIET}">cosine {hit.cosine:.2f}</span>')
    if hit.keyword is not None:
        lines.append(f'<span style="{QUIET}">words {hit.keyword:.1f}</span>')
    return "<br>".join(lines)


def where(hit) -> str:
    more = [plain(hit.heading)] if hit.heading else []
    more += [f"also in {plain(', '.join(hit.sources[1:4]))}"] if len(hit.sources) > 1 else []
    return "<br>".join([plain(hit.where), *(f'<span style="{QUIET}">{line}</span>' for line in more)])


def lit(text: str, question: str, answer: str = "") -> str:
    """The text as HTML: stretches the answer quotes in green, words of the question in yellow."""
    wanted = set(keyword.content_words(question))
    runs = cite.quoted_runs(answer, text) if answer else []
    words = [w.span() for w in WORD.finditer(text) if wanted & set(keyword.words(w[0]))]
    out, at = [], 0
    spans = sorted(
        [(*span, QUOTED) for span in runs]
        + [(*span, WORDS) for span in words if not any(a <= span[0] < b for a, b in runs)]
    )
    for start, end, style in spans:
        out += [newlines(text[at:start]), f'<span style="{style}">{newlines(text[start:end])}</span>']
        at = end
    return "".join([*out, newlines(text[at:])])


def meter_lines(answer) -> list[str]:
    """The context window in words."""
    meter = answer.meter
    if meter is None:
        return []
    if meter.context is None:
        return [f"how much of the endpoint's context this fills is not known here; {len(answer.hits)} chunks went in"]
    return [
        f"context of {meter.context:,} tokens: {sum(meter.sources):,} in {len(meter.sources)} sources, "
        f"{meter.rest:,} of "
        f"instructions and question, {meter.answer:,} kept for the answer, {meter.free:,} free"
    ]


def meter_html(answer) -> str:
    """The same as a bar."""
    meter, lines = answer.meter, meter_lines(answer)
    if meter is None or meter.context is None:
        return "".join(f'<p style="{QUIET}">{plain(line)}</p>' for line in lines)
    parts = [
        (meter.rest, PARTS[0]),
        *((n, PARTS[1 + i % 2]) for i, n in enumerate(meter.sources)),
        (meter.answer, PARTS[3]),
    ]
    blocks = "".join(
        f'<div style="display:inline-block;height:10px;width:{max(1, round(BAR * n / meter.context))}px;'
        f'background-color:{c}"></div>'
        for n, c in parts
    )
    frame = f"display:inline-block;width:{BAR + 6}px;border:{RULE};line-height:10px;white-space:nowrap;overflow:hidden"
    return f'<div style="{frame}">{blocks}</div><p style="{QUIET}">{plain(lines[0])}</p>'


def hits_bundle(name: str, question: str, hits: Sequence, how: str, picture: str = "", words: str = "") -> Bundle:
    """What `%gpt search` leaves behind."""
    title = f"index {name}: {question}"
    found = hits_text(hits) if hits else "nothing was found"
    text = "\n\n".join([title, quoted(found), *([quoted(words)] if words else []), how])
    html = (
        f"<p><b>{escape(name)}</b> {prose(question)}</p>{marked(hits_html(hits, question) or plain(found))}"
        + (f"<details><summary>where it is in the index</summary>{marked(picture)}</details>" if picture else "")
        + f'<p style="{QUIET}">{escape(how)}</p>'
    )
    return Bundle(
        text, html, {"view": "search", "index": name, "question": question}, {"hits": [hit.as_dict() for hit in hits]}
    )
