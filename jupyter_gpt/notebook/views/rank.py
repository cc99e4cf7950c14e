"""Ranked answers as a static page: under each prompt its completions, the best first, and who said so.

While a person ranks, all of it stands behind one click, with the form beneath, and no model is named. All that was
sampled or answered stands inside the marks of sampled text, and folds with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.notebook.views.bundle import MIME, Bundle, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import prose, settings
from jupyter_gpt.notebook.views.table import CODE, RULE

QUIET = "color:#888;font-size:90%"
CELL = "text-align:left;vertical-align:top;white-space:normal;background-color:transparent;padding:5px 14px 5px 6px"
BEST = "background-color:rgba(0,158,115,0.22);border-radius:9px;padding:0 9px;font-weight:600"
FOLDED = "<details><summary>the prompts, and the answers so far</summary>"
PLACE = "border:1px solid rgba(128,128,128,0.45);border-radius:9px;padding:0 8px"


def rank_bundle(ranked, *, blind: bool = False) -> Bundle:
    """The static bundle of a `Ranked` as it stands; `blind` folds it up and does not tell whose completions wait."""
    answers = ranked.answers
    given = [ranked.answer(i, answers) for i in range(len(ranked.questions))]
    text = [headline(ranked), quoted(status_line(ranked, blind))]
    for i, (question, answer) in enumerate(zip(ranked.questions, given, strict=True), start=1):
        text += [f"\n{i}. {question.prompt}", quoted(listed(ranked, question, answer, blind))]
    body = "".join(
        block(ranked, i, question, answer, blind)
        for i, (question, answer) in enumerate(zip(ranked.questions, given, strict=True), start=1)
    )
    html = (
        f"<p><b>{escape(ranked.name)}</b> {escape(headline(ranked).partition(': ')[2])}<br>"
        f'<span style="{QUIET}">{marked(plain(status_line(ranked, blind)))}</span></p>'
        f"{marked(FOLDED if blind else '')}"
        f'<table width="100%" style="border-collapse:collapse;width:100%"><tbody>{body}</tbody></table>'
        f"{marked('</details>' if blind else '')}"
        f"<details><summary>the exact prompts</summary>{marked(prompts_html(ranked))}</details>"
    )
    data = {
        "view": "rank",
        "rankings": ranked.name,
        "models": ranked.models,
        "prompts": list(dict.fromkeys(q.prompt for q in ranked.questions)),
        "sampling": sampling(ranked),
    }
    return Bundle("\n".join(text), html, data, metadata(ranked, answers))


def headline(ranked) -> str:
    """What was asked, in one line that every machine agrees on."""
    count = len(dict.fromkeys(q.prompt for q in ranked.questions))
    line = f"rankings {ranked.name}: {count} prompt{'s' * (count != 1)}"
    if not ranked.models:
        return line
    if not ranked.options:
        return f"{line}, completions of {', '.join(ranked.models)}"
    how = Sampling(**sampling(ranked))
    each = f"{how.samples} completion{'s' * (how.samples != 1)} each of {', '.join(ranked.models)}"
    return f"{line}, {each}, {settings(how)}" + (" and up" if how.samples > 1 else "")


def sampling(ranked) -> dict:
    """The settings that made the completions."""
    given = {name: value for name, value in ranked.options.items() if name in Sampling.__dataclass_fields__}
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    return Sampling(**{name: value for name, value in given.items() if value is not None}).as_dict()


def status_line(ranked, blind: bool = False) -> str:
    """How many prompts are ranked and how many are missing, by whom, and how far they agree."""
    missing = len(ranked.missing)
    same = sum(not question.open for question in ranked.questions)
    parts = [f"{len(ranked.questions) - missing - same} ranked, {missing} missing"]
    if same:
        parts.append(f"{same} with nothing to tell apart")
    if ranked.labellers:
        parts.append("by " + ", ".join(f"{by} {count}" for by, count in ranked.labellers.items()))
    agreement = ranked.agreement
    if agreement is not None and not blind:
        parts.append(
            f"agreement over {agreement.prompts} prompt{'s' * (agreement.prompts != 1)}: Kendall's W "
            f"{agreement.w:.2f} (1 is all of one mind, {agreement.chance:.2f} is chance)"
        )
    elsewhere = len(ranked.rankings) - sum(ranked.labellers.values())
    if elsewhere:
        parts.append(f"{elsewhere} more of other completions are kept there")
    return " · ".join([*parts, *ranked.notes])


def places(answer) -> list[tuple[str, int]]:
    """`1`, `2=`, `2=`, `4`: each completion's place as one says it, the best first, and which it is."""
    found, before = [], 1
    for group in answer.order:
        found += [(f"{before}{'=' * (len(group) > 1)}", place) for place in group]
        before += len(group)
    return found


def whose(ranked, question, place: int, blind: bool = False) -> str:
    """Whose a completion is, unless that shall not be known, and how often it was sampled, where that says anything."""
    each = question.completions[place]
    words = [each["model"]] if len(ranked.models) > 1 and not blind else []
    words += [f"sampled {each['times']} times"] if each.get("times", 1) > 1 else []
    return ", ".join(words)


def listed(ranked, question, answer, blind: bool = False) -> str:
    """The completions of one prompt as text."""
    order = places(answer) if answer else [("–", place) for place in question.shown]
    lines = []
    for name, place in order:
        note = whose(ranked, question, place, blind and not answer)
        written = question.texts[place].strip().replace("\n", "\n       ") or "nothing"
        lines.append(f"   {name:<3} {written}" + (f" ({note})" if note else ""))
    tail = f"\n   {answer.by}: {answer.reason}" if answer and answer.reason else ""
    return "\n".join(lines) + ("" if answer or not question.open else "\n   not ranked yet") + tail


def block(ranked, number: int, question, answer, blind: bool) -> str:
    """Rows of the table: a prompt, and beneath it its completions, in order once they have one."""
    head = (
        f'<tr style="background-color:transparent"><td colspan="2" style="{CELL};padding-top:14px">'
        f'<span style="color:#888">{number}</span>&nbsp; <b>{escape(question.prompt)}</b></td></tr>'
    )
    rows = "".join(
        row(name, question.texts[place], whose(ranked, question, place, blind and not answer), bool(answer))
        for name, place in (places(answer) if answer else [("–", place) for place in question.shown])
    )
    if answer and answer.reason:
        said = f"{plain(answer.by)}: {plain(answer.reason)}"
        rows += f'<tr style="background-color:transparent"><td></td><td style="{CELL};{QUIET}">{said}</td></tr>'
    inner = f'<table width="100%" style="border-collapse:collapse;width:100%"><tbody>{rows}</tbody></table>'
    cell = f'<td colspan="2" style="{CELL};padding:0 0 8px 18px;line-height:1.5">{marked(inner)}</td>'
    return f'{head}<tr style="background-color:transparent">{cell}</tr>'


def row(name: str, text: str, note: str, ranked: bool) -> str:
    """One completion, its place before it."""
    badge = BEST if name.startswith("1") else PLACE
    where = f'<span style="{badge}">{name}</span>' if ranked else f'<span style="{QUIET}">{name}</span>'
    said = prose(text.strip()).replace("«", "&laquo;").replace("»", "&raquo;")
    shown = said or f'<span style="{QUIET}">nothing: it ended at once</span>'
    tail = f' <span style="{QUIET}">{plain(note)}</span>' if note else ""
    return (
        f'<tr style="background-color:transparent"><td width="44" style="{CELL};white-space:nowrap">{where}</td>'
        f'<td style="{CELL};border-bottom:{RULE};overflow-wrap:anywhere">{shown}{tail}</td></tr>'
    )


def prompts_html(ranked) -> str:
    """What was sent to each model, and to a judge with its answers, special tokens included. Holds no marks."""
    out = []
    for i, question in enumerate(ranked.questions):
        out += [code(name, sent) for name, sent in question.sent]
        out += [
            code(f"{ranked.by}, the judge", each["sent"] + "→ " + each["said"]) for each in ranked.judged.get(i, [])
        ]
    return "".join(dict.fromkeys(out)) or "none: nothing was sampled"


def code(who: str, text: str) -> str:
    return (
        f'<p style="margin:12px 0 2px"><b>{plain(who)}</b></p><div style="{CODE};max-width:960px;'
        f'overflow-wrap:anywhere">{plain(text).replace("  ", "&nbsp; ").replace(chr(10), "<br>")}</div>'
    )


def metadata(ranked, answers: Sequence[dict]) -> dict:
    """Everything, as JSON has it: each question with its completions, and what each labeller said of it."""
    agreement = ranked.agreement
    return {
        "questions": [
            {
                "prompt": q.prompt,
                "completions": [dict(each) for each in q.completions],
                "sent": [list(pair) for pair in q.sent],
                "answers": [
                    {"by": r.by, "order": [list(group) for group in r.order], "reason": r.reason, "time": r.time}
                    for r in known.values()
                ],
                "judged": ranked.judged.get(i, []),
            }
            for i, (q, known) in enumerate(zip(ranked.questions, answers, strict=True))
        ],
        "missing": len(ranked.missing),
        "agreement": None
        if agreement is None
        else {"w": agreement.w, "chance": agreement.chance, "prompts": agreement.prompts},
        "notes": list(ranked.notes),
    }


class Page:
    """Where rankings are shown: one line while models write or judge, then the answers, and beside them the form while
    a person is there and answers are missing.

    Nothing here waits for a person; with nobody there the page is published once and that is all. Left by an error, it
    takes its line back.
    """

    def __init__(self):
        from jupyter_gpt.notebook.views.follow import is_live

        self.live, self.handle = is_live(), None

    def __enter__(self) -> Page:
        return self

    def __exit__(self, error, *_) -> None:
        if error is not None and self.handle is not None:
            self.handle.update({}, raw=True)

    def working(self, what: str, done: int, total: int, tokens: int) -> None:
        """Says what is being done, for how many of the prompts it is done, and the tokens of the first now."""
        if not self.live:
            return
        line = f"{what}: {done} of {total} prompts" + (f", token {tokens:,}" if tokens else "") + " …"
        self.put({"text/plain": line, "text/html": f'<p style="color:#888">{escape(line)}</p>'})

    def put(self, data: dict, metadata: dict | None = None) -> None:
        """Shows this in the place of what was shown before."""
        from IPython.display import display

        if self.handle is not None:
            self.handle.update(data, raw=True, metadata=metadata or {})
        else:
            self.handle = display(data, raw=True, metadata=metadata or {}, display_id=self.live)

    def answers(self, ranked, blind: bool = False) -> None:
        bundle = rank_bundle(ranked, blind=blind)
        self.put(bundle.mime(), {MIME: bundle.metadata})

    def form(self, ranked):
        from jupyter_gpt.notebook.views.rank_form import RankForm

        return RankForm(ranked)

    def show(self, ranked, form: bool = True) -> None:
        """The answers, and with `form` the missing ones asked for beside them."""
        asks = form and self.live and bool(ranked.missing)
        self.answers(ranked, blind=asks)
        if not asks:
            return
        from IPython.display import display

        from jupyter_gpt.notebook.views.live import close

        widget = self.form(ranked)
        beside = display(widget.view(), raw=True, display_id=True)

        def changed(done: bool) -> None:
            self.answers(ranked, blind=not done)
            if done and not widget.reloaded:  # else neither found its place, and the form is all there is to see
                beside.update({}, raw=True)
                close(widget)

        widget.changed = changed
