"""A completion: while it is sampled a display that grows with it, and when it ends one static bundle.

What a model wrote is text, whatever it looks like: every character of it is escaped. Beside the answer stand
how the question was put, the settings and the cost, and behind a click the exact prompt.
"""

from __future__ import annotations

import time

from jupyter_gpt.data.render import DOCUMENT
from jupyter_gpt.notebook.views.bundle import MIME, Bundle, about, escape, quoted
from jupyter_gpt.notebook.views.table import CODE, RULE, html_table, text_table

QUIET = "color:#888;font-size:90%"
READING = "line-height:1.6;max-width:960px;overflow-wrap:anywhere"
CELL = "text-align:left;vertical-align:top;white-space:normal;padding:4px 14px 8px 4px;background-color:transparent"
HOLE = "background-color:#fff3bf;color:#222;border-radius:3px;padding:0 2px"
LEAD = 400  # characters of a document shown before its continuation
AT_ONCE = 8  # samples drawn while they are written
HEAVY = 50_000  # characters of HTML from which on the display is renewed more rarely


def marked(html: str) -> str:
    return f"<!--«-->{html}<!--»-->"


def prose(text: str) -> str:
    """Text as HTML that keeps its lines and its spaces."""
    return escape(text).replace("  ", "&nbsp; ").replace("\n", "<br>")


def sampled(text: str) -> str:
    """What a model wrote, as HTML between the marks of sampled text, which stand in comments: nobody sees
    them.
    """
    shown = prose(text) if text else f'<span style="{QUIET}">nothing</span>'
    return marked(shown.replace("«", "&laquo;").replace("»", "&raquo;"))


def said(sample) -> str:
    """A sample's text as HTML: of a template the holes stand out, and the fixed text is no sampled text."""
    if not sample.holes:
        return sampled(sample.text)
    html, at = "", 0
    for name, start, end in sample.holes:
        html += prose(sample.text[at:start])
        html += f'<span style="{HOLE}" title="{escape(name)}">{sampled(sample.text[start:end])}</span>'
        at = end
    return html + prose(sample.text[at:])


def settings(sampling) -> str:
    """The sampling settings in words: temperature and seed always, the rest where it says something."""
    how = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature:g}"
    words = [
        how,
        *(
            f"{name.replace('_', '-')} {getattr(sampling, name):g}"
            for name, rest in (("top_p", 1), ("top_k", 0), ("min_p", 0), ("min_tokens", 0))
            if getattr(sampling, name) != rest
        ),
    ]
    return ", ".join([*words, f"at most {sampling.max_tokens:,} tokens", f"seed {sampling.seed}"])


def spent(completion) -> str:
    """Tokens in and out, seconds, tokens a second, dollars."""
    usage = completion.usage
    words = f"{about(usage.prompt_tokens, 0)} tokens in, {about(usage.completion_tokens, 0)} out"
    words += f" · {about(usage.seconds, 1)} s, {about(usage.tokens_per_second, 1)} tokens/s"
    return words if usage.cost is None else f"{words} · {about(usage.cost, 6)} $"


def ending(completion) -> str:
    """How the sampling ended, for one sample or for several."""
    if any(sample.interrupted for sample in completion.samples):
        return "stopped by hand"
    reasons = [sample.finish_reason for sample in completion.samples]
    if len(reasons) == 1:
        return "came to its end" if reasons[0] == "stop" else "cut off at its longest"
    return f"{reasons.count('stop')} of {len(reasons)} came to their end"


def mean_logprob(completion) -> float | None:
    """Nats a token, over all that was sampled."""
    found = [p for sample in completion.samples for p in sample.logprobs]
    return sum(found) / len(found) if found else None


def status(completion) -> list[str]:
    """The lines beneath an answer."""
    lines = [
        f"{completion.model} · {completion.form} · {settings(completion.sampling)}",
        f"{spent(completion)} · {quoted(ending(completion))}",
    ]
    if completion.sampling.logprobs:
        lines[1] += f" · {about(mean_logprob(completion))} nats a token"
    return [*lines, *completion.notes]


def answer_text(completion) -> str:
    """The answers as plain text, numbered where there are several."""
    if len(completion.samples) == 1:
        return quoted(completion.text)
    return "\n".join(f"{i}. {quoted(sample.text)}" for i, sample in enumerate(completion.samples, start=1))


def answer_html(completion, mark: str = "", most: int | None = None) -> str:
    """The answers as HTML. A document's end stands before what the model continued it with; `mark` ends what
    grows.
    """
    shown = completion.samples[:most]
    if len(completion.samples) == 1:
        lead = ""
        if completion.form == DOCUMENT:
            cut = "…" if len(completion.prompt) > LEAD else ""
            begun = (sampled if completion.history else prose)(cut + completion.prompt[-LEAD:])
            lead = f'<span style="color:#888">{begun}</span>'
        return f'<div style="{READING}">{lead}{said(completion)}{mark}</div>'
    rows = "".join(
        f'<tr style="background-color:transparent"><td style="{CELL};color:#888">{i}</td>'
        f'<td style="{CELL};border-bottom:{RULE}">{said(sample)}'
        f"{mark if sample.finish_reason is None else ''}</td></tr>"
        for i, sample in enumerate(shown, start=1)
    )
    left = len(completion.samples) - len(shown)
    more = f'<p style="{QUIET}">… and {left:,} more</p>' if left else ""
    return f'<table style="border-collapse:collapse;{READING}">{rows}</table>{more}'


def completion_bundle(completion, tokenizer=None) -> Bundle:
    """What `%%prompt` leaves behind. `tokenizer` spells the tokens where their alternatives were asked for
    (those of an endpoint are texts already).
    """
    lines = status(completion)
    small = "<br>".join(map(escape, lines))
    html = f'{answer_html(completion)}<p style="{QUIET}">{small}</p>'
    if completion.sampling.logprobs and completion.tokens:
        from jupyter_gpt.notebook.views.token_view import spoken, table

        found = marked(table(spoken(completion, tokenizer)))
        html += f"<details><summary>each token and its alternatives</summary>{found}</details>"
    html += f"<details><summary>the exact prompt</summary>{code(completion.prompt, completion)}</details>"
    text = "\n\n".join([answer_text(completion), "\n".join(lines)])
    return Bundle(text, html, data("completion", completion), completion.as_dict())


def code(text: str, completion) -> str:
    """A prompt in monospace; where it holds what was sampled earlier, it is marked as that."""
    shown = sampled(text) if completion.history else prose(text)
    return f'<div style="{CODE};max-width:960px;overflow-wrap:anywhere">{shown}</div>'


def told(prompt: str, completion) -> str:
    """The prompt, in the marks of sampled text where an earlier answer is in it."""
    return quoted(prompt) if completion.history else prompt


def data(view: str, completion) -> dict:
    """What every machine agrees on."""
    return {
        "view": view,
        "model": completion.model,
        "form": completion.form,
        "sampling": completion.sampling.as_dict(),
    }


def prompt_bundle(completion) -> Bundle:
    """A dry run: the exact prompt, and that it was not sent."""
    count = f"{about(completion.prompt_tokens, 0)} tokens" if completion.prompt_tokens else "counted by the server"
    lines = [
        f"{completion.model} · {completion.form} · {settings(completion.sampling)}",
        f"the exact prompt, {count}; nothing was sent",
        *completion.notes,
    ]
    html = f'<p style="{QUIET}">{"<br>".join(map(escape, lines))}</p>{code(completion.prompt, completion)}'
    text = "\n".join(lines) + "\n\n" + told(completion.prompt, completion)
    return Bundle(text, html, data("prompt", completion), completion.as_dict())


def last_bundle(completion) -> Bundle:
    """`%gpt show last`: exactly what went in, what came out, and what it took."""
    usage = completion.usage
    price = "unpriced" if usage.cost is None else f"{about(usage.cost, 6)} $"
    rows = [
        ("model", completion.model),
        ("asked as", completion.form),
        ("sampling", settings(completion.sampling)),
        ("tokens in", about(usage.prompt_tokens, 0)),
        ("tokens out", about(usage.completion_tokens, 0)),
        ("seconds", about(usage.seconds, 2)),
        ("tokens/s", about(usage.tokens_per_second, 1)),
        ("log-probability", f"{about(mean_logprob(completion))} nats a token"),
        ("ended", quoted(ending(completion))),
        *([("cost", price)] if completion.remote else []),
        *(("note", note) for note in completion.notes),
    ]
    prompt = told(completion.prompt, completion)
    text = f"prompt\n{prompt}\n\nanswer\n{answer_text(completion)}\n\n{text_table(('what', ''), rows, 'll')}"
    html = (
        f'<p style="{QUIET}">the exact prompt, special tokens included</p>'
        f"{code(completion.prompt, completion)}"
        f'<p style="{QUIET}">the answer</p>{answers_only(completion)}{html_table(("what", ""), rows, "ll")}'
    )
    return Bundle(text, html, data("completion", completion), completion.as_dict())


def answers_only(completion) -> str:
    """The answers without the document before them: the prompt is shown above."""
    if len(completion.samples) > 1:
        return answer_html(completion)
    return f'<div style="{READING}">{said(completion)}</div>'


class Writing:
    """The display of an answer while it is written. `show` it as it grows, then `end`; with nobody there to
    watch, only the end is published. Left by an error, it keeps what had come, or takes its display back if
    that is nothing.
    """

    def __init__(self):
        from jupyter_gpt.notebook.views.follow import is_live

        self.live, self.handle, self.shown, self.next = is_live(), None, None, 0.0

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, error, *_) -> None:
        if error is None or self.handle is None:
            return
        if self.shown is not None and any(sample.tokens for sample in self.shown.samples):
            self.end(completion_bundle(self.shown))
        else:
            self.handle.update({}, raw=True)

    def show(self, completion) -> None:
        """The answer so far."""
        self.shown = completion
        now = time.monotonic()
        if not self.live or now < self.next:
            return
        out = completion.usage.completion_tokens
        line = f"{completion.model} writes … {out:,} tokens, {completion.usage.tokens_per_second:.1f} tokens/s"
        html = f'{answer_html(completion, " ▌", AT_ONCE)}<p style="{QUIET}">{escape(line)} · ■ stops it</p>'
        text = f"{quoted(completion.text)}\n\n{line}"
        self._put({"text/plain": text, "text/html": html}, {})
        self.next = now + (1.0 if len(html) > HEAVY else 0.0)

    def end(self, bundle: Bundle) -> None:
        """The bundle, in the place of what was shown."""
        self._put(bundle.mime(), {MIME: bundle.metadata})

    def _put(self, mime: dict, metadata: dict) -> None:
        from IPython.display import display

        if self.handle is not None:
            self.handle.update(mime, raw=True, metadata=metadata)
        elif self.live:
            self.handle = display(mime, raw=True, metadata=metadata, display_id=True)
        else:
            display(mime, raw=True, metadata=metadata)
