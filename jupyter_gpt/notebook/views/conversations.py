"""What is finetuned on: the table of the sources, and the first conversations as the model reads them.

Every conversation is spelled with its special tokens; the tokens that are trained on stand on green (between ⟦ and ⟧ in
the text): what is not on green the model reads, and is not asked to say.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from jupyter_gpt.data.token_text import token_text, visible
from jupyter_gpt.report.parts import Inline, Paragraph, Part, Span, Table, Varies, number
from jupyter_gpt.report.report import Report

HEADER = ("source", "format", "conversations", "cut", "refused", "held out", "tokens", "trained on", "share")
SIDES = "llrrrrrrr"
MEASURED = ("conversations", "cut", "refused", "held_out", "tokens", "trained")  # depend on the tokenizer
SHOWN = 3  # conversations drawn
LONGEST = 600  # tokens of each
GREEN = "rgba(46,160,67,0.30)"
BRACKETS = "⟦⟧"


def conversations_report(name: str, conversations, tokenizer, *, varies: bool = False, shown: int = SHOWN) -> Report:
    """The conversations of a run `name` before it trains.

    conversations: a `data.conversation_dataset.Conversations`. varies: the tokenizer, and so counts and cuts, may
    differ from machine to machine.
    """
    counts = conversations.counts
    notes = [Paragraph(f"{count.source}: {note}") for count in counts for note in count.notes]
    trained, special = Span("trained on", tint=GREEN, brackets=BRACKETS), Span("special tokens", "bold quiet")
    legend = Paragraph([trained, "; the rest is read only; ", special, " as the model reads them"])
    drawn = [part for one in chosen(conversations.first, shown) for part in block(one, tokenizer, varies)]
    rows = [asdict(count) | {"notes": list(count.notes)} for count in counts]
    steady = [{key: value for key, value in row.items() if not varies or key not in MEASURED} for row in rows]
    return Report(
        f"{name}: {len(counts)} source{'s' * (len(counts) != 1)} of conversations",
        [Table(HEADER, [line(count, varies) for count in counts], SIDES), *notes, legend, *drawn],
        {"view": "conversations", "name": name, "varies": varies, "rows": steady},
        {"rows": rows} if varies else {},
    )


def chosen(first: list[dict], shown: int) -> list[dict]:
    """The first conversation of each source, then the second of each, as many as are shown."""
    seen: dict[str, int] = {}
    turn = []
    for one in first:
        seen[one["source"]] = seen.get(one["source"], 0) + 1
        turn.append((seen[one["source"]], one))
    return [one for _, one in sorted(turn, key=lambda pair: pair[0])][:shown]


def line(count, varies: bool) -> list[Inline]:
    """A source's row of the table."""
    *numbers, trained = (number(getattr(count, key), 0, varies) for key in MEASURED)
    share = number(100 * count.trained / count.tokens if count.tokens else 0.0, 0, varies)
    return [count.source, count.form, *numbers, [trained, " (", share, "%)"], f"{count.share:.1%}"]


def block(one: dict, tokenizer, varies: bool) -> tuple[Part, Part]:
    """A conversation: the line above it, and its tokens."""
    ids, trained = one["ids"][:LONGEST], one["trained"][:LONGEST]
    taught = number(sum(one["trained"][1:]), 0, varies)
    head = [f"{one['where']}: ", number(len(one["ids"]), 0, varies), " tokens, ", taught, " trained on"]
    if one["length"] > len(one["ids"]):
        head += [", cut from ", number(one["length"], 0, varies)]
    drawn: list[Inline] = []
    for learns, run in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        said = spelled([token for token, _ in run], tokenizer)
        drawn.append(Span(said, tint=GREEN, brackets=BRACKETS) if learns else said)
    if left := len(one["ids"]) - len(ids):
        drawn.append(f" … and {left:,} more tokens")
    return Paragraph(head, "quiet"), Paragraph(Varies(drawn) if varies else drawn, "code")


def spelled(ids: list[int], tokenizer) -> list[Inline]:
    """Tokens as text, special tokens set apart, line breaks shown and made."""
    special = tokenizer.added_tokens_decoder
    found: list[Inline] = []
    for is_special, run in groupby(ids, key=lambda token: token in special and special[token].special):
        run = list(run)
        words = tokenizer.decode(run, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "\ufffd" in words:  # a character cut in two: its bytes
            words = "".join(token_text(tokenizer, token) for token in run)
        shown = "".join(" " if c == " " else "⏎\n" if c == "\n" else visible(c) for c in words)
        found.append(Span(shown, "bold quiet") if is_special else shown)
    return found
