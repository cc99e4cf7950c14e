"""Filling templates: what `gpt.template` does. In the kernel in one pass of the engine; at an endpoint as one regex,
for servers that keep one, and checked when it comes back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jupyter_gpt.data.render import Prompt, Question, check_messages, encode, opening_token, render
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import TEMPERATURE, Completion, Sampling
from jupyter_gpt.prompting.generation import ends, sampled
from jupyter_gpt.prompting.template import Template, as_regex, is_template, parse, read_back
from jupyter_gpt.stages.prompt import Prompting, latest, prompt, unsent

FORM = "a template, filled in one pass"
SPARE = 16  # tokens beyond those reckoned, for a hole that ends a little late
NOTHING = ("regex", "json", "choice", "grammar", "stop", "few_shot", "history", "truncate")


def template(
    models: Mapping,
    memory: Prompting,
    asked: str | list[dict],
    *,
    model: str | None = None,
    samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    max_tokens: int = 64,
    seed: int = 0,
    system: str | None = None,
    logprobs: int = 0,
    as_assistant: bool = False,
    dry_run: bool = False,
    variables: Mapping[str, object] | None = None,
    on_token: Callable[[Completion], None] | None = None,
    **other,
) -> Completion:
    """Have one model fill the holes of a template: a text, or messages whose last is the assistant's and has the holes.

    The completion's `text` is the filled template, its `value` a mapping from hole to what fills it, None where it was
    cut off. Raises GPTError for a template that is none, and for options that mean nothing to one.
    """
    wrong = next(
        (
            name
            for name, value in other.items()
            if value is not None and not (isinstance(value, int | tuple) and not value)
        ),
        None,
    )
    if wrong:
        said = "its holes have their own" if wrong in NOTHING[:5] else "it is filled in one pass"
        raise GPTError(f"--{wrong.replace('_', '-')} means nothing to a template: {said}")
    sampling = Sampling(
        samples,
        TEMPERATURE if temperature is None else temperature,
        1.0 if top_p is None else top_p,
        top_k or 0,
        min_p or 0.0,
        max_tokens,
        0,
        (),
        seed,
        logprobs,
    )
    before, holes, notes = parted(asked, system, variables or {})
    chosen = models[model or latest(models, memory)]
    if chosen.kind == "endpoint":
        settings = {
            "model": chosen.name,
            "samples": samples,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "seed": seed,
            "logprobs": logprobs,
            "as_assistant": as_assistant,
            "dry_run": dry_run,
        }
        return at_endpoint(models, memory, chosen, before, holes, max_tokens, settings, notes)
    memory.used[chosen.name] = time.time()
    head = begin(chosen, before, as_assistant)
    done = in_kernel(chosen, head, holes, sampling, notes, dry_run, on_token)
    if not dry_run:
        memory.last = done
    return done


def parted(asked, system: str | None, variables: Mapping) -> tuple[list[dict] | None, Template, tuple[str, ...]]:
    """The turns before the template (None: it is a document), the template, and notes."""
    from jupyter_gpt.stages.prompt import filled_in

    before, text, notes = None, asked, ()
    if not isinstance(asked, str):
        turns = check_messages(asked)
        if turns[-1]["role"] != "assistant" or any(is_template(turn["content"]) for turn in turns[:-1]):
            raise GPTError("in a chat the holes stand in its last turn, which is the assistant's: it fills them")
        before, text = turns[:-1], turns[-1]["content"]
        if not before:
            raise GPTError("a chat has a turn before the one with the template: begin with user:")
        before, notes = filled_in(before, variables)
    if system is not None:
        if before is None:
            raise GPTError("a template without turns is a document, and has no system prompt: write user: … assistant:")
        before = [{"role": "system", "content": system}, *before]
    found, unknown = parse(text, variables)
    names = ", ".join(dict.fromkeys(unknown))
    return before, found, (*notes, *((f"left as written, for there is no such variable: {names}",) if names else ()))


def begin(model, before: list[dict] | None, as_assistant: bool) -> Prompt:
    """What stands before the template's first text."""
    if before is not None:
        return render(model.name, model.tokenizer, Question(before, as_assistant=as_assistant))
    first = opening_token(model.tokenizer)
    ids = () if first is None else (first,)
    return Prompt(ids, model.tokenizer.decode(ids), FORM)


def in_kernel(
    model, head: Prompt, holes: Template, sampling: Sampling, notes: Sequence[str], dry_run: bool, on_token
) -> Completion:
    """Fill it with a model of this kernel."""
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.prompting.filling import Filling, stretches

    lead = int(head.trim)  # the space with which the answer of such a prompt begins
    holes = replace(holes, texts=(" " * lead + holes.texts[0], *holes.texts[1:]))
    parts, stops = stretches(model.tokenizer, holes), ends(model)
    begun = list(parts[0].matcher.deep_copy().compute_ff_tokens())
    ids = (*head.ids, *begun) or (next(iter(stops)),)
    fixed = model.tokenizer.decode(begun, clean_up_tokenization_spaces=False)
    ready = Prompt(
        ids, model.tokenizer.decode(ids, clean_up_tokenization_spaces=False), FORM, head.messages, notes=tuple(notes)
    )
    room = context_of(model.module) - len(ids)
    longest = sum(hole.max_tokens or sampling.max_tokens for hole in holes.holes) + len(holes.holes) * SPARE
    longest += sum(len(encode(model.tokenizer, text)) for text in holes.texts)
    if room < 1:
        raise GPTError(f"the template begins with {len(ids):,} tokens, more than the context of {model.name} holds")
    settings = replace(sampling, max_tokens=min(longest, room))
    if dry_run:
        return unsent(ready, sampling, model.name, False)
    made: list[Filling] = []

    def constraint() -> Filling:
        made.append(Filling(model.tokenizer, parts, stops, begun, sampling.max_tokens))
        return made[-1]

    def shown(found: list[Completion], whole: bool = False) -> Completion:
        drawn = [one(sample, filling, whole) for sample, filling in zip(found[0].samples, made, strict=True)]
        drawn[0].samples = drawn
        return drawn[0]

    def one(sample: Completion, filling: Filling, whole: bool) -> Completion:
        """The sample as the filled template; a new one, since what came so far is shown more than once."""
        values, done, text = filling.values, filling.done, (fixed + sample.text)[lead:]
        if done and parts[-1].hidden:
            text = text.removesuffix(parts[-1].end)
        more = {"text": text, "sampling": sampling, "samples": [], "holes": spans(holes, values, lead)}
        if whole and done:
            more |= {"valid": True, "value": {hole.name: valued(hole, values[hole.name]) for hole in holes.holes}}
        elif whole:
            note = f"cut off: not valid (the hole {list(values)[-1]} is not filled)"
            more |= {"valid": False, "finish_reason": "length", "notes": (*sample.notes, note)}
        return replace(sample, **more)

    tell = (lambda found: on_token(shown(found))) if on_token else None
    return shown(sampled(model, [ready], settings, tell, constraint=constraint), whole=True)


def valued(hole, text: str) -> object:
    return hole.rule.value(text) if hole.rule is not None else text


def spans(holes: Template, values: Mapping[str, str], lead: int) -> list[tuple[str, int, int]]:
    """Where in the text the holes stand that are filled so far: name, first character, end."""
    found, at = [], len(holes.texts[0]) - lead
    for hole, after in zip(holes.holes, holes.texts[1:], strict=True):
        if hole.name not in values:
            break
        end = at + len(values[hole.name])
        found.append((hole.name, at, end))
        at = end + len(after)
    return found


def at_endpoint(
    models, memory, endpoint, before, holes: Template, max_tokens: int, settings: dict, notes: Sequence[str]
) -> Completion:
    """Fill it at an endpoint: the template is one regex there."""
    first = holes.texts[0]
    if endpoint.has_chat:
        if before is None:
            raise GPTError(
                f"{endpoint.name} is an endpoint that is asked in turns: write user: … and then assistant: the template"
            )
        asked, sent = before, ""
    elif before is not None and not settings["as_assistant"]:
        raise GPTError(f"{endpoint.name} is a base model and has no turns: write the template as a document")
    else:
        asked, sent = (before, "") if before is not None else (first.rstrip(" "), first.rstrip(" "))
        if not asked:
            raise GPTError("a template for an endpoint without a chat begins with some text")
    regex = re.escape(first[len(sent) :]) + as_regex(holes, max_tokens)
    longest = sum(hole.max_tokens or max_tokens for hole in holes.holes) + sum(map(len, holes.texts))
    done = prompt(models, memory, [asked], regex=regex, max_tokens=longest, **settings)[0]
    for sample in done.samples:
        sample.text = sent + sample.text
        values = read_back(holes, sample.text[len(first) :]) if sample.valid else None
        sample.value, sample.valid = values, None if settings["dry_run"] else values is not None
        sample.holes = spans(holes, values or {}, 0)
        sample.form, sample.notes = "a template, as one regex", (*notes, *sample.notes)
    return done
