"""A completion token by token: how likely each was, what else could have stood there, and the work each took.

The talk's point, measured: a person slows down where it gets hard; a transformer spends the same work on every token,
and on what it has in its context, its working memory.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple, TypeGuard

from jupyter_gpt.data.token_text import token_text, visible
from jupyter_gpt.errors import GPTError
from jupyter_gpt.report import charts
from jupyter_gpt.report.charts import BarChart, Bars
from jupyter_gpt.report.parts import Bar, Chart, Folded, Inline, Paragraph, Part, Span, Table, Varies
from jupyter_gpt.report.report import Report

SHOWN = 1000  # tokens shown; of a longer completion the number of the others is given
LISTED = 300  # tokens in the table
# likely to unlikely: blue to vermilion, told apart by every kind of colour vision (Okabe and Ito, 2008)
SCALE = ((0, 114, 178, 0.16), (230, 159, 0, 0.34), (213, 94, 0, 0.62))
UNLIKELY = math.log(100)  # nats at which the scale ends: a token of 1%
LEGEND = (1.0, 0.5, 0.1, 0.01)


class Spoken(NamedTuple):
    """One sampled token: its text, its id (None if an endpoint does not report it), its probability, the alternatives
    as (text, probability), and the seconds of its step."""

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
    nats = completion.logprobs
    tops: list = completion.top or [()] * len(completion.tokens)
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
    """A token's text; the `▁` by which sentencepiece writes a space is one, which decoding alone would drop."""
    piece = tokenizer.convert_ids_to_tokens(token)
    return piece.replace("▁", " ") if piece and piece.startswith("▁") else token_text(tokenizer, token)


def token_report(completion, tokenizer=None, context: int | None = None) -> Report:
    """The report of a completion's tokens.

    `tokenizer` turns ids into text (an endpoint's tokens are texts already); `context` is how many tokens the model can
    attend to, for the meter. Raises GPTError for a completion without tokens.
    """
    found = spoken(completion, tokenizer)
    name = completion.model or "completion"
    likely = Varies(middle([token.probability for token in found]), 2)
    parts: list[Part] = [legend(), Paragraph(Varies(flow(found)), "visual")]
    if line := work_line(found, len(completion.samples)):
        alt = "above: the surprisal of each token; below: the time it took"
        parts += [Chart(work_chart(found), alt), Paragraph(line)]
    meter = context_meter(completion.prompt_tokens, len(found), context)
    parts.append(Paragraph([*room_line(completion, len(found), context), *([" ", Varies(meter)] if meter else [])]))
    parts.append(Folded("each token and its alternatives", [Varies(listing(found))], text=True))
    metadata = {
        "tokens": [[t.text, t.id, round(t.probability, 6), t.seconds, t.others] for t in found],
        "prompt_tokens": completion.prompt_tokens,
    }
    data = {"view": "completion tokens", "model": name, "context": context}
    return Report([f"{name}: ", Varies(len(found)), " tokens, median probability ", likely], parts, data, metadata)


def room_line(completion, sampled: int, context: int | None) -> list[Inline]:
    """How full the context is, in words."""
    used: list[Inline] = [
        "context: ",
        Varies(completion.prompt_tokens),
        " prompt tokens, ",
        Varies(sampled),
        " sampled",
    ]
    if not known(context):
        return used
    return [*used, ", ", Varies(max(0, context - completion.prompt_tokens - sampled)), f" of {context:,} left"]


def known(context: int | None) -> TypeGuard[int]:
    """Whether that is the length of a context: some models name none."""
    return context is not None and 0 < context < 1 << 30


def context_meter(prompt: int, sampled: int, context: int | None) -> Bar | None:
    """How much of the context the prompt and the completion take; None where its length is not known."""
    if not known(context):
        return None
    first = min(1.0, prompt / context)
    second = min(1.0 - first, sampled / context)
    segments = [(first, "rgba(0,114,178,0.75)", "prompt"), (second, "rgba(230,159,0,0.85)", "completion")]
    return Bar(segments, 300, 40)


def flow(found: list[Spoken]) -> list[Inline]:
    """The completion as coloured tokens, one after the other; more about each where the pointer rests."""
    out: list[Inline] = []
    for token in found[:SHOWN]:
        text = token.text if token.text.strip(" ") else visible(token.text)  # spaces alone would not be seen
        shown = "".join("⏎\n" if c == "\n" else c if c == " " else visible(c) for c in text)
        others = "".join(f"\n{share(p)}  {visible(other)}" for other, p in token.others)
        tooltip = f"{visible(token.text)}  {share(token.probability)}" + (f"\nmost likely:{others}" if others else "")
        out.append(Span(shown, tint=tint(token.probability), tooltip=tooltip))
    return [*out, f" … and {len(found) - SHOWN:,} more tokens"] if len(found) > SHOWN else out


HEAD, SIDES = ("", "token", "id", "probability", "most likely", "ms"), "rlrrlr"


def listing(found: list[Spoken]) -> list[Part]:
    """The tokens as a table, each probability on its colour; columns that hold nothing are left out."""
    rows = [
        (
            str(place),
            visible(t.text),
            "" if t.id is None else str(t.id),
            Span(share(t.probability), tint=tint(t.probability)),
            "  ".join(f"{visible(text)} {share(p)}" for text, p in t.others),
            "" if t.seconds is None else f"{1e3 * t.seconds:.1f}",
        )
        for place, t in enumerate(found[:LISTED], start=1)
    ]
    kept = [i for i in range(len(HEAD)) if any(row[i] for row in rows)]
    table = Table([HEAD[i] for i in kept], [[row[i] for i in kept] for row in rows], "".join(SIDES[i] for i in kept))
    more = [Paragraph(f"… and {len(found) - LISTED:,} more tokens")] if len(found) > LISTED else []
    return [table, *more]


def colour(probability: float) -> tuple[float, float, float, float]:
    """Red, green, blue (0 to 255) and alpha (0 to 1) of a token: even steps in surprisal, -ln p."""
    at = 2 * min(1.0, -math.log(max(probability, 1e-12)) / UNLIKELY)
    low = min(1, int(at))
    part = at - low
    r, g, b, a = (x + (y - x) * part for x, y in zip(SCALE[low], SCALE[low + 1], strict=True))
    return r, g, b, a


def tint(probability: float) -> str:
    r, g, b, a = colour(probability)
    return f"rgba({r:.0f},{g:.0f},{b:.0f},{a:.2f})"


def legend() -> Paragraph:
    """What the colours mean."""
    swatches = [[" ", Span("up to " * (p == LEGEND[-1]) + f"{p:.0%}", tint=tint(p))] for p in LEGEND]
    return Paragraph(["probability of each token:", *swatches], "quiet visual")


def share(probability: float) -> str:
    """A probability in percent, with enough digits to differ from 0 and from 100."""
    percent = 100 * probability
    if percent < 0.01:
        return "<0.01%"
    return f"{percent:.2f}%" if percent < 1 or 99 < percent < 100 else f"{percent:.1f}%"


def spread(found: list) -> tuple[float, float, float] | None:
    """Milliseconds per token: median, 5th and 95th percentile. Without the first token, which reads the prompt too."""
    times = sorted(t.seconds * 1e3 for t in (found[1:] or found) if t.seconds is not None)
    if not times:
        return None
    return middle(times), times[int(0.05 * (len(times) - 1))], times[math.ceil(0.95 * (len(times) - 1))]


def correlation(found: list) -> float | None:
    """Pearson's, of surprisal and seconds over all tokens but the first; None where one of them does not vary."""
    pairs = [(-math.log(max(t.probability, 1e-12)), t.seconds) for t in found[1:]]
    if len(pairs) < 3:
        return None
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except statistics.StatisticsError:
        return None


def work_line(found: list, samples: int) -> Inline:
    """What was measured of the work, in words; empty where nothing was."""
    measured = spread(found)
    if measured is None:
        return ""
    median, low, high = (Varies(value, 1) for value in measured)
    shared = f" (a step serves all {samples} samples)" if samples > 1 else ""
    return [
        *("time per token: median ", median, f" ms{shared}, 90% within ", low, " to ", high),
        *(" ms; correlation with surprisal: ", Varies(correlation(found), 2)),
        ". A person slows down where a text gets hard, a transformer computes the same for every token; the first "
        "token's time includes the prompt.",
    ]


def middle(values: list[float]) -> float:
    """The median; of an even number the upper one."""
    return sorted(values)[len(values) // 2]


def work_chart(found: list) -> BarChart:
    """Two rows of bars over the same tokens: surprisal in nats, which varies, and milliseconds, which do not."""
    drawn = found[:SHOWN]
    surprisal = [-math.log(max(t.probability, 1e-12)) for t in drawn]
    times = [1e3 * (t.seconds or 0) for t in drawn]
    median, _, high = spread(found) or (0.0, 0.0, 0.0)
    top = 1.35 * max(high, median)
    cut = f"{times[0]:.0f} ms, with the prompt" if times[0] > top else ""
    work = [charts.ORANGE, *[charts.BLUE] * (len(times) - 1)]
    panels = [
        Bars("surprisal, nats", surprisal, [hexadecimal(t.probability) for t in drawn]),
        Bars("time per token, ms", times, work, limit=median, top=top, cut=cut),
    ]
    return BarChart([visible(t.text) for t in drawn], panels, "token", True, (7.6, 2.9))


def hexadecimal(probability: float) -> str:
    """The colour of a token, no fainter than a bar may be, as `#rrggbbaa`."""
    *rgb, a = colour(probability)
    return "#" + "".join(f"{round(value):02x}" for value in (*rgb, 255 * max(0.75, a)))
