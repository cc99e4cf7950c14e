"""What is finetuned on: the table of the sources, and the first conversations as the model reads them.

Every conversation is spelled with its special tokens; the tokens that are trained on stand on green (between ⟦ and ⟧ in
the text): what is not on green the model reads, and is not asked to say.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from jupyter_gpt.notebook.views.bundle import Bundle, about, marked, plain, quoted
from jupyter_gpt.notebook.views.table import CODE, html_table, text_table
from jupyter_gpt.notebook.views.tokens import token_text, visible

HEADER = ("source", "format", "conversations", "cut", "refused", "held out", "tokens", "trained on", "share")
SIDES = "llrrrrrrr"
MEASURED = ("conversations", "cut", "refused", "held_out", "tokens", "trained")  # depend on the tokenizer
SHOWN = 3  # conversations drawn
LONGEST = 600  # tokens of each
GREEN = "background-color:rgba(46,160,67,0.30)"
SPECIAL = "color:#888;font-weight:bold"
OPEN, CLOSE = "⟦", "⟧"


def conversations_bundle(name: str, conversations, tokenizer, *, varies: bool = False, shown: int = SHOWN) -> Bundle:
    """The conversations of a run `name` before it trains.

    conversations: a `data.conversation_tokens.Conversations`. varies: the tokenizer may differ from machine to machine,
    and with it counts and cuts, which are then marked.
    """
    counts, first = conversations.counts, chosen(conversations.first, shown)
    rows = [line(count, varies) for count in counts]
    notes = [f"{count.source}: {note}" for count in counts for note in count.notes]
    title = f"{name}: {len(counts)} source{'s' * (len(counts) != 1)} of conversations"
    legend = f"{OPEN} {CLOSE} what is trained on"
    blocks = [block(one, tokenizer, varies) for one in first]
    text = "\n".join(
        [title, "", text_table(HEADER, rows, SIDES), *(["", *notes] if notes else []), "", legend]
        + [f"\n{head}\n{quoted(body) if varies else body}" for head, body, _ in blocks]
    )
    drawn = "".join(
        f'<p style="color:#888;margin:10px 0 2px 0">{plain(head)}</p>{marked(html) if varies else html}'
        for head, _, html in blocks
    )
    html = (
        f"<p><b>{plain(title)}</b></p>{html_table(HEADER, rows, SIDES)}"
        + "".join(f"<p>{plain(note)}</p>" for note in notes)
        + f'<p><span style="{GREEN};padding:1px 6px">trained on</span> <span style="color:#888">the rest is read only; '
        f'<span style="{SPECIAL}">special tokens</span> as the model reads them</span></p>{drawn}'
    )
    table = [asdict(count) | {"notes": list(count.notes)} for count in counts]
    data = {"view": "conversations", "name": name, "varies": varies}
    if not varies:
        return Bundle(text, html, data | {"rows": table})
    steady = [{key: value for key, value in row.items() if key not in MEASURED} for row in table]
    return Bundle(text, html, data | {"rows": steady}, {"rows": table})


def chosen(first: list[dict], shown: int) -> list[dict]:
    """The first conversation of each source, then the second of each, as many as are shown."""
    seen: dict[str, int] = {}
    turn = []
    for one in first:
        seen[one["source"]] = seen.get(one["source"], 0) + 1
        turn.append((seen[one["source"]], one))
    return [one for _, one in sorted(turn, key=lambda pair: pair[0])][:shown]


def line(count, varies: bool) -> list[str]:
    """A source's row of the table."""
    numbers = [
        f"{number:,}" if not varies else about(number, 0) for number in (getattr(count, key) for key in MEASURED)
    ]
    share = count.trained / count.tokens if count.tokens else 0.0
    trained = f"{numbers[5]} ({about(100 * share, 0) if varies else f'{100 * share:.0f}'}%)"
    return [count.source, count.form, *numbers[:5], trained, f"{count.share:.1%}"]


def block(one: dict, tokenizer, varies: bool) -> tuple[str, str, str]:
    """A conversation: the line above it, its text, its HTML."""
    ids, trained = one["ids"][:LONGEST], one["trained"][:LONGEST]
    taught = sum(one["trained"][1:])
    sizes = (len(one["ids"]), taught)
    number, learned = (about(n, 0) if varies else f"{n:,}" for n in sizes)
    head = f"{one['where']}: {number} tokens, {learned} trained on"
    if one["length"] > len(one["ids"]):
        whole = about(one["length"], 0) if varies else f"{one['length']:,}"
        head += f", cut from {whole}"
    text, html = "", ""
    for learns, run in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        said, drawn = spelled([token for token, _ in run], tokenizer)
        text += f"{OPEN}{said}{CLOSE}" if learns else said
        html += f'<span style="{GREEN}">{drawn}</span>' if learns else drawn
    left = len(one["ids"]) - len(ids)
    more = f" … and {left:,} more tokens" if left else ""
    box = f'<div style="{CODE};max-width:960px;overflow-wrap:anywhere;border-left:3px solid #888;padding-left:10px">'
    return head, text + more, f"{box}{html}{more}</div>"


def spelled(ids: list[int], tokenizer) -> tuple[str, str]:
    """Tokens as text and as HTML: special tokens set apart, line breaks shown and made."""
    special = tokenizer.added_tokens_decoder
    text, html = "", ""
    for is_special, run in groupby(ids, key=lambda token: token in special and special[token].special):
        run = list(run)
        words = tokenizer.decode(run, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "\ufffd" in words:  # a character cut in two: its bytes
            words = "".join(token_text(tokenizer, token) for token in run)
        text += words
        drawn = "".join(" " if c == " " else "⏎<br>" if c == "\n" else plain(visible(c)) for c in words)
        html += f'<span style="{SPECIAL}">{drawn}</span>' if is_special else drawn
    return text, html
