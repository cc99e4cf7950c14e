"""What models wrote to the same prompts, side by side: a column a model, differing words tinted.

While a person votes blind, the texts wait behind a click, so that the table does not tell who wrote what;
nothing is missing from the output all the same. Votes, tints and hiding stand inside the marks of sampled
text, and fold with it.
"""

from __future__ import annotations

from jupyter_gpt.notebook.views.bundle import MIME, Bundle, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import code, settings
from jupyter_gpt.notebook.views.differences import Stretch, differences, mostly
from jupyter_gpt.notebook.views.table import RULE
from jupyter_gpt.stages.compare import TIE

TINT = "background-color:rgba(224,140,50,{});border-radius:3px"
CHOSEN = "background-color:rgba(0,158,115,0.22);border-radius:9px;padding:0 8px"
BEST = "✓ best"
QUIET = "color:#888;font-size:90%"
LEFT = "text-align:left;vertical-align:top;white-space:normal;background-color:transparent"


def compare_bundle(comparison, *, blind: bool = False) -> Bundle:
    """The static bundle of a `Comparison` as it stands; `blind` keeps who wrote what behind a click."""
    votes, rows = comparison.votes, comparison.rows
    sampling = rows[0].completions[0].sampling
    several = sampling.samples > 1
    title = f"{len(rows)} row{'s' * (len(rows) != 1)}, {settings(sampling)}" + (" and up" if several else "")
    text = [f"compare {', '.join(comparison.models)}: {title}", f"votes: {quoted(tally_line(comparison))}"]
    for i, (row, vote) in enumerate(zip(rows, votes, strict=True), start=1):
        text.append(f"\n{i}. {row.prompt}" + (f" (seed {row.seed})" if several else ""))
        wide = max(map(len, (*comparison.models, "vote")))
        texts = zip(comparison.models, row.texts, strict=True)
        indent = "\n" + " " * (wide + 5)
        text += [f"  {name:<{wide}}  {quoted(written.replace(chr(10), indent))}" for name, written in texts]
        text.append(f"  {'vote':<{wide}}  {quoted(vote_word(row, vote))}")
    html = (
        f"<p><b>{escape(', '.join(comparison.models))}</b> {title}<br>"
        f'<span style="{QUIET}">votes: {marked(escape(tally_line(comparison, blind)))} · tinted: '
        f"words that no other text has</span></p>"
        f"{html_rows(comparison, votes, several, blind)}"
        f"<details><summary>the exact prompts</summary>{prompts_html(comparison)}</details>"
    )
    data = {
        "view": "compare",
        "models": comparison.models,
        "prompts": list(dict.fromkeys(row.prompt for row in rows)),
        "sampling": sampling.as_dict(),
        "rankings": comparison.rankings.name,
    }
    metadata = {
        "rows": [
            {"prompt": r.prompt, "seed": r.seed, "sent": [c.prompt for c in r.completions], "texts": r.texts, "vote": v}
            for r, v in zip(rows, votes, strict=True)
        ],
        "tally": comparison.tally,
    }
    return Bundle("\n".join(text), html, data, metadata)


def tally_line(comparison, blind: bool = False) -> str:
    """How many votes there are and how many are missing; unless `blind`, for whom they are."""
    given, missing = sum(comparison.tally.values()), len(comparison.missing)
    each = ", ".join(f"{name} {count}" for name, count in comparison.tally.items())
    return f"{given} given, {missing} missing" + ("" if blind else f"; {each}")


def prompts_html(comparison) -> str:
    """What was sent to each model, special tokens included, once for all samples of a prompt."""
    out, sent = [], set()
    for row in comparison.rows:
        for name, completion in zip(comparison.models, row.completions, strict=True):
            if (name, completion.prompt) not in sent:
                sent.add((name, completion.prompt))
                form = f' <span style="{QUIET}">{escape(completion.form)}</span>'
                head = f'<p style="margin:12px 0 2px"><b>{escape(name)}</b>{form}</p>'
                out.append(head + code(completion.prompt, completion))
    return "".join(out)


def vote_word(row, vote: str | None) -> str:
    """A row's vote in a word or two."""
    return vote or ("the same text" if row.same else "none yet")


def html_rows(comparison, votes: list, several: bool, blind: bool) -> str:
    """One table: for each row its prompt across all columns, beneath it what each model wrote."""
    width = 100 // len(comparison.models)
    head = "".join(
        f'<th width="{width}%" style="{LEFT};padding:4px 14px 4px 6px;border-bottom:{RULE}">{escape(name)}</th>'
        for name in comparison.models
    )
    body = []
    for i, (row, vote) in enumerate(zip(comparison.rows, votes, strict=True), start=1):
        prompt = escape(row.prompt) + (f' <span style="{QUIET}">seed {row.seed}</span>' if several else "")
        body.append(
            f'<tr style="background-color:transparent"><td colspan="{len(comparison.models)}" '
            f'style="{LEFT};padding:14px 14px 2px 6px">'
            f'<span style="color:#888">{i}</span>&nbsp; <b>{prompt}</b></td></tr>'
        )
        hidden = "" if not blind or row.same else "voted" if vote else "hidden while you vote"
        cells = zip(comparison.models, row.completions, differences(row.texts), strict=True)
        body.append(
            '<tr style="background-color:transparent">'
            + "".join(
                f'<td width="{width}%" style="{LEFT};padding:2px 14px 12px 6px;line-height:1.5">'
                + cell(completion, pieces, note_of(row, vote, name), hidden)
                + "</td>"
                for name, completion, pieces in cells
            )
            + "</tr>"
        )
    return (
        f'<table width="100%" style="border-collapse:collapse;width:100%"><thead>'
        f'<tr style="background-color:transparent">{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def cell(completion, pieces: list[Stretch], note: str, hidden: str) -> str:
    """One completion as HTML, marked from edge to edge; `hidden` is what stands before the click."""
    strength = 0.09 if mostly(pieces) else 0.24
    written = "".join(tinted(text, strength) if differs else lines(text) for text, differs in pieces)
    shown = written or f'<span style="{QUIET}">nothing: it ended at once</span>'
    if completion.finish_reason == "length":
        shown += f' <span style="{QUIET}" title="cut off at its longest">…</span>'
    if hidden:
        shown = f'<details><summary tabindex="-1" style="{QUIET}">{hidden}</summary>{shown}</details>'
    elif note:
        shown = f'<span style="{CHOSEN if note == BEST else QUIET}">{note}</span> {shown}'
    return marked(shown)


def note_of(row, vote: str | None, name: str) -> str:
    """What stands before a completion once votes may be seen: the mark of the best, a tie."""
    return "the same text:" if row.same else BEST if vote == name else "tie:" if vote == TIE else ""


def tinted(text: str, strength: float) -> str:
    """A stretch that differs: tinted, line by line, so that a tint never runs across an empty line."""
    style = TINT.format(strength)
    return "<br>".join(f'<span style="{style}">{plain(line)}</span>' if line else "" for line in text.split("\n"))


def lines(text: str) -> str:
    return plain(text).replace("\n", "<br>")


class Table:
    """Where a comparison is shown: one line while the models write, then its table, and beside it the form
    while a person is there and votes are missing.

    Nothing here waits for a person; with nobody there the table is published once and that is all. Left by an
    error, it takes its line back.
    """

    def __init__(self):
        from jupyter_gpt.notebook.views.follow import is_live

        self.live, self.handle = is_live(), None

    def __enter__(self) -> Table:
        return self

    def __exit__(self, error, *_) -> None:
        if error is not None and self.handle is not None:
            self.handle.update({}, raw=True)

    def writing(self, model: str, done: int, tokens: int) -> None:
        """Says who writes now, how far it is with its first completion, and how many models have written."""
        if not self.live:
            return
        before = f" ({done} model{'s' * (done != 1)} done)" if done else ""
        line = f"{model} writes{before} …" + (f" token {tokens:,}" if tokens else "")
        self.put({"text/plain": line, "text/html": f'<p style="color:#888">{escape(line)}</p>'})

    def put(self, data: dict, metadata: dict | None = None) -> None:
        """Shows this in the place of what was shown before."""
        from IPython.display import display

        if self.handle is not None:
            self.handle.update(data, raw=True, metadata=metadata or {})
        else:
            self.handle = display(data, raw=True, metadata=metadata or {}, display_id=self.live)

    def table(self, comparison, blind: bool = False) -> None:
        bundle = compare_bundle(comparison, blind=blind)
        self.put(bundle.mime(), {MIME: bundle.metadata})

    def show(self, comparison, form: bool = True) -> None:
        """The table, and with `form` the votes that are missing asked for beside it."""
        asks = form and self.live and bool(comparison.missing)
        self.table(comparison, blind=asks)
        if not asks:
            return
        from IPython.display import display

        from jupyter_gpt.notebook.views.live import close
        from jupyter_gpt.notebook.views.votes import VoteForm

        widget = VoteForm(comparison)
        beside = display(widget.view(), raw=True, display_id=True)

        def changed(done: bool) -> None:
            self.table(comparison, blind=not done)
            if done and not widget.reloaded:  # else neither found its place, and the form is all there is to see
                beside.update({}, raw=True)
                close(widget)

        widget.changed = changed
