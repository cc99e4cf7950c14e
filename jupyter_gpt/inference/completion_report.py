"""A completion as a report: the answer, the settings and the usage, and behind a click the exact prompt."""

from __future__ import annotations

from jupyter_gpt.data.render import DOCUMENT
from jupyter_gpt.report.parts import (
    Figures,
    Folded,
    Inline,
    Markdown,
    Paragraph,
    Part,
    Span,
    Table,
    Varies,
    joined,
    quiet,
)
from jupyter_gpt.report.report import Report

HOLE = "rgba(240,190,30,0.35)"
LEAD = 400  # characters of a document shown before its continuation


def said(sample, chat: bool = False, cursor: str = "") -> Inline:
    """What a model wrote: the answer of a `chat` as Markdown, unless a constraint gave it its form; of a template what
    fills the holes is tinted. `cursor` ends what grows.
    """
    if not sample.holes:
        if chat and sample.text and sample.valid is None:
            return Varies(Markdown(sample.text, cursor))
        return [Varies(sample.text or quiet("(empty)")), cursor]
    found, at = [], 0
    for name, start, end in sample.holes:
        found += [sample.text[at:start], Span(Varies(sample.text[start:end]), tint=HOLE, tooltip=name)]
        at = end
    return [*found, sample.text[at:], cursor]


def is_chat(completion) -> bool:
    """Whether an assistant answered, whose texts are Markdown; a base model continues whatever there is."""
    return bool(completion.messages) and not completion.form.startswith("base model")


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
    words += [f"at most {sampling.max_tokens:,} tokens", f"seed {sampling.seed}"]
    return ", ".join(words)


def spent(completion) -> list[Inline]:
    """Tokens in and out, seconds, tokens per second, dollars."""
    usage = completion.usage
    found = [Varies(usage.prompt_tokens), " tokens in, ", Varies(usage.completion_tokens), " out · "]
    found += [Varies(usage.seconds, 1), " s, ", Varies(usage.tokens_per_second, 1), " tokens/s"]
    return found if usage.cost is None else [*found, " · ", Varies(usage.cost, 6), " $"]


def acceptance(completion) -> list[Inline]:
    """How much of what speculative decoding drafted was accepted."""
    usage = completion.usage
    share = 100 * usage.accepted / usage.drafted if usage.drafted else 0.0
    return [Varies(usage.accepted), " of ", Varies(usage.drafted), " accepted (", Varies(share, 0), "%)"]


def ending(completion) -> str:
    """How the sampling ended, for one sample or for several."""
    if any(sample.interrupted for sample in completion.samples):
        return "interrupted"
    reasons = [sample.finish_reason for sample in completion.samples]
    finished, cut = reasons.count("stop"), f"stopped at --max-tokens {completion.sampling.max_tokens}"
    if len(reasons) == 1:
        return "finished" if finished else cut
    return f"{finished} of {len(reasons)} finished" + f", {len(reasons) - finished} {cut}" * (finished < len(reasons))


def mean_logprob(completion) -> float | None:
    """Nats per token, over all that was sampled."""
    found = [p for sample in completion.samples for p in sample.logprobs]
    return sum(found) / len(found) if found else None


def asked(completion) -> str:
    """Model, form and settings."""
    return f"{completion.model} · {completion.form} · {settings(completion.sampling)}"


def status(completion) -> Paragraph:
    """The lines beneath an answer."""
    took = [*spent(completion), " · ", Varies(ending(completion))]
    if completion.sampling.logprobs:
        took += [" · log-probability ", Varies(mean_logprob(completion)), " nats per token"]
    return Paragraph(joined("\n", [asked(completion), took, *completion.notes]), "quiet")


def answer(completion, mark: str = "", most: int | None = None, lead: bool = True) -> list[Part]:
    """The answers. With `lead` a document's end stands before what the model continued it with; `mark` ends what
    grows, and of very many samples only the first `most` are shown.
    """
    shown, chat = completion.samples[:most], is_chat(completion)
    if len(completion.samples) == 1:
        before: Inline = ""
        if lead and completion.form == DOCUMENT:
            before = "…" * (len(completion.prompt) > LEAD) + completion.prompt[-LEAD:]
            before = quiet(Varies(before) if completion.history else before)
        return [Paragraph([before, said(completion, chat, mark)], "block")]
    rows = [
        (quiet(f"{i}."), said(sample, chat, mark if sample.finish_reason is None else ""))
        for i, sample in enumerate(shown, start=1)
    ]
    left = len(completion.samples) - len(shown)
    return [Table((), rows, "ll", wrap=True), *([Paragraph(f"… and {left:,} more", "quiet")] if left else [])]


def exact(prompt: str, completion) -> Paragraph:
    """A prompt in monospace; it varies where it holds what was sampled earlier."""
    return Paragraph(Varies(prompt) if completion.history else prompt, "code")


def completion_report(completion, tokenizer=None) -> Report:
    """What `%%prompt` leaves behind. `tokenizer` spells the tokens where their alternatives were asked for (those of an
    endpoint are texts already).
    """
    parts = [*answer(completion), status(completion)]
    if completion.sampling.logprobs and completion.tokens:
        from jupyter_gpt.inference.token_report import listing, spoken

        parts.append(Folded("each token and its alternatives", [Varies(listing(spoken(completion, tokenizer)))]))
    parts.append(Folded("exact prompt", [exact(completion.prompt, completion)]))
    return Report("", parts, data("completion", completion), completion.as_dict())


def data(view: str, completion) -> dict:
    """What every machine agrees on."""
    return {"view": view, "model": completion.model, "form": completion.form, "sampling": completion.sampling.as_dict()}


def prompt_report(completion) -> Report:
    """A dry run: the exact prompt, and that it was not sent."""
    count = [Varies(completion.prompt_tokens), " tokens"] if completion.prompt_tokens else "counted by the server"
    lines = [asked(completion), ["exact prompt, ", count, "; nothing was sent"], *completion.notes]
    parts = [Paragraph(joined("\n", lines), "quiet"), exact(completion.prompt, completion)]
    return Report("", parts, data("prompt", completion), completion.as_dict())


def last_report(completion) -> Report:
    """`%gpt show last`: exactly what went in, what came out, and what it took."""
    usage = completion.usage
    price = "unpriced" if usage.cost is None else [Varies(usage.cost, 6), " $"]
    rows = [
        ("model", completion.model),
        ("form", completion.form),
        ("sampling", settings(completion.sampling)),
        ("tokens in", Varies(usage.prompt_tokens)),
        *([("cached tokens", [Varies(usage.cached_tokens), " of them"])] if usage.cached_tokens else []),
        ("tokens out", Varies(usage.completion_tokens)),
        ("seconds", Varies(usage.seconds, 2)),
        ("tokens/s", Varies(usage.tokens_per_second, 1)),
        ("log-probability", [Varies(mean_logprob(completion)), " nats per token"]),
        ("finish", Varies(ending(completion))),
        *([("cost", price)] if completion.remote else [("drafted tokens", acceptance(completion))]),
        *(("note", note) for note in completion.notes),
    ]
    prompt = [Paragraph("exact prompt, special tokens included", "quiet"), exact(completion.prompt, completion)]
    parts = [*prompt, Paragraph("answer", "quiet"), *answer(completion, lead=False), Figures(rows)]
    return Report("", parts, data("completion", completion), completion.as_dict())
