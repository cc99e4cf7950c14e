"""A completion token by token: how likely each was, what else could have stood there, and the work each took.

The talk's point, measured: a person slows down where it gets hard; a transformer spends the same work on
every token, and on what it has in its context, its working memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, marked, plain, quoted
from jupyter_gpt.notebook.views.likelihood import css, legend, share
from jupyter_gpt.notebook.views.table import RULE, text_table
from jupyter_gpt.notebook.views.tokens import token_text, visible
from jupyter_gpt.notebook.views.work import middle, work_line, work_picture

SHOWN = 1000  # tokens drawn; of a longer completion it is said how many more there are
LISTED = 300  # tokens in the table
FILLED, FREE = "█", "░"


class Spoken(NamedTuple):
    """One sampled token: its text, its id (None where an endpoint tells none), its probability, the
    alternatives as (text, probability), and the seconds of its step."""

    text: str
    id: int | None
    probability: float
    others: list[tuple[str, float]]
    seconds: float | None


def spoken(completion, tokenizer) -> list[Spoken]:
    """The tokens of a completion, readable. Raises GPTError when there are none to show."""
    if not completion.tokens:
        raise GPTError(f"{completion.model or 'the model'} told no tokens of this completion: there are none to show")
    names: dict = {}

    def name(token) -> str:
        if token not in names:
            names[token] = token if isinstance(token, str) else one_token(tokenizer, token)
        return names[token]

    times = completion.seconds_per_token
    times = times if len(times) == len(completion.tokens) else [None] * len(completion.tokens)
    nats, tops = completion.logprobs, completion.top or [()] * len(completion.tokens)
    return [
        Spoken(
            name(token),
            token if isinstance(token, int) else None,
            math.exp(min(0.0, logprob)),
            [(name(other), math.exp(min(0.0, value))) for other, value in top],
            seconds,
        )
        for token, logprob, top, seconds in zip(completion.tokens, nats, tops, times, strict=True)
    ]


def one_token(tokenizer, token: int) -> str:
    """A token's text; the `▁` by which sentencepiece writes a space is one, which decoding alone would
    drop."""
    piece = tokenizer.convert_ids_to_tokens(token)
    return piece.replace("▁", " ") if piece and piece.startswith("▁") else token_text(tokenizer, token)


def token_bundle(completion, tokenizer=None, context: int | None = None) -> Bundle:
    """The static bundle of a completion's tokens.

    `tokenizer` turns ids into text (an endpoint's tokens are texts already); `context` is how many tokens the
    model can attend to, for the meter. Raises GPTError for a completion without tokens.
    """
    found = spoken(completion, tokenizer)
    name = completion.model or "completion"
    likely = about(middle([token.probability for token in found]), 2)
    head = f"{about(len(found), 0)} tokens, median probability {likely}"
    work, filled = work_line(found, len(completion.samples)), room_line(completion, len(found), context)
    meter = context_meter(completion.prompt_tokens, len(found), context)

    text = [f"{name}: {head}", *([work] if work else [])]
    text += [f"{filled} {quoted(bar_text(meter))}"] if meter else [filled]
    text.append(quoted("\n" + listing(found) + "\n"))

    html = [f"<p><b>{escape(name)}</b> {head}</p>", legend(), marked(flow(found))]
    if work:
        html.append(image(work_picture(found), "above: how surprising each token was; beneath: the work it took", 680))
        html.append(f'<p style="max-width:680px">{escape(work)}</p>')
    html.append(f"<p>{escape(filled)}{bar_html(meter) if meter else ''}</p>")
    html.append(f"<details><summary>every token with its alternatives</summary>{marked(table(found))}</details>")
    metadata = {
        "tokens": [[t.text, t.id, round(t.probability, 6), t.seconds, t.others] for t in found],
        "prompt_tokens": completion.prompt_tokens,
    }
    data = {"view": "completion tokens", "model": name, "context": context}
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def room_line(completion, sampled: int, context: int | None) -> str:
    """How full the context is, in words."""
    used = f"context: {about(completion.prompt_tokens, 0)} tokens of the prompt, {about(sampled, 0)} sampled"
    if not known(context):
        return used
    return f"{used}, {about(max(0, context - completion.prompt_tokens - sampled), 0)} of {context:,} left"


def known(context: int | None) -> bool:
    """Whether that is the length of a context: some models name none."""
    return context is not None and 0 < context < 1 << 30


def context_meter(prompt: int, sampled: int, context: int | None) -> tuple[float, float] | None:
    """Shares of the context that the prompt and the completion take; None where its length is not known."""
    if not known(context):
        return None
    first = min(1.0, prompt / context)
    return first, min(1.0 - first, sampled / context)


def bar_text(meter: tuple[float, float], width: int = 40) -> str:
    """The meter as text: the prompt, the completion, what is free."""
    first = round(meter[0] * width)
    second = min(width - first, max(round(sum(meter) * width) - first, meter[1] > 0))
    return "[" + FILLED * first + "▒" * second + FREE * (width - first - second) + "]"


def bar_html(meter: tuple[float, float]) -> str:
    """The meter as HTML: blue the prompt, orange the completion, grey what is free."""
    box = "display:inline-block;height:10px"
    piece = f'<span title="{{}}" style="{box};width:{{:.2f}}%;background-color:rgba({{}})"></span>'
    prompt, sampled = (100 * share for share in meter)
    pieces = (
        piece.format("prompt", prompt, "0,114,178,0.75")
        + piece.format("completion", sampled, "230,159,0,0.85")
        + piece.format("free", 100 - prompt - sampled, "128,128,128,0.22")
    )
    return marked(f'<br><span style="display:inline-block;width:680px;max-width:100%;font-size:0">{pieces}</span>')


def flow(found: list[Spoken]) -> str:
    """The completion as coloured tokens, one after the other; more about each where the pointer rests."""
    out = []
    for token in found[:SHOWN]:
        before, text = (" ", token.text[1:]) if token.text[:1] == " " and token.text.strip() else ("", token.text)
        text = text if text.strip(" ") else visible(text)  # a token of spaces alone would not be seen
        shown = "".join("⏎<br>" if c == "\n" else c if c == " " else plain(visible(c)) for c in text)
        others = "".join(f"\n{share(p)}  {visible(other)}" for other, p in token.others)
        title = f"{visible(token.text)}  {share(token.probability)}" + (f"\nlikeliest:{others}" if others else "")
        style = f"{css(token.probability)};padding:1px 1px;margin:0 1px"
        out.append(f'{before}<span style="{style}" title="{plain(title)}">{shown}</span>')
    more = f" … and {len(found) - SHOWN:,} more tokens" if len(found) > SHOWN else ""
    return (
        '<div style="max-width:820px;line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere">'
        + "".join(out)
        + f"{more}</div>"
    )


def rows(found: list[Spoken]) -> list[tuple[str, ...]]:
    """The table's rows: place, token, id, probability, alternatives, milliseconds."""
    return [
        (
            str(place),
            visible(t.text),
            "" if t.id is None else str(t.id),
            share(t.probability),
            "  ".join(f"{visible(text)} {share(p)}" for text, p in t.others),
            "" if t.seconds is None else f"{1e3 * t.seconds:.1f}",
        )
        for place, t in enumerate(found[:LISTED], start=1)
    ]


HEAD = ("", "token", "id", "probability", "likeliest", "ms")


def listing(found: list[Spoken]) -> str:
    """The table as text; columns that hold nothing are left out."""
    head, body, sides = without_empty(HEAD, rows(found), "rlrrlr")
    more = f"\n… and {len(found) - LISTED:,} more tokens" if len(found) > LISTED else ""
    return text_table(head, body, sides) + more


def table(found: list[Spoken]) -> str:
    """The table as HTML, each probability on its colour."""
    head, body, sides = without_empty(HEAD, rows(found), "rlrrlr")
    likely = head.index("probability")
    place = {"l": "left", "r": "right"}

    def cell(tag: str, text: str, column: int, extra: str) -> str:
        style = f"text-align:{place[sides[column]]};padding:1px 14px 1px 4px;white-space:nowrap;{extra}"
        return f'<{tag} style="{style}">{plain(text).replace("  ", "&emsp;")}</{tag}>'

    top = "".join(cell("th", text, i, f"border-bottom:{RULE}") for i, text in enumerate(head))
    lines = [
        "<tr>"
        + "".join(cell("td", text, i, css(token.probability) if i == likely else "") for i, text in enumerate(row))
        + "</tr>"
        for token, row in zip(found, body, strict=False)
    ]
    more = f"<p>… and {len(found) - LISTED:,} more tokens</p>" if len(found) > LISTED else ""
    return (
        f'<table style="border-collapse:collapse"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>{more}"
    )


def without_empty(head: tuple, body: list[tuple], sides: str) -> tuple[tuple, list[tuple], str]:
    """The columns in which some row says something."""
    kept = [i for i in range(len(head)) if any(row[i] for row in body)]
    return (
        tuple(head[i] for i in kept),
        [tuple(row[i] for i in kept) for row in body],
        "".join(sides[i] for i in kept),
    )
