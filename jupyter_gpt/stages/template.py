"""Templates: `gpt.template` has a model fill the holes of a text. In the kernel in one pass of the engine; at an
endpoint as one regex, for servers that enforce one, and checked when it comes back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_gpt.data.render import Prompt, Question, check_messages, encode, left_as_written, opening_token, render
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Sampling
from jupyter_gpt.prompting.generation import sample, stop_ids
from jupyter_gpt.prompting.template import (
    Template,
    TemplateConstraint,
    as_regex,
    is_template,
    parse,
    read_back,
    segments_of,
)
from jupyter_gpt.stages.prompt import filled_in, latest, prompt, unsent
from jupyter_gpt.stages.prompt_options import CONSTRAINTS, PromptOptions
from jupyter_gpt.stages.prompt_options import Template as Options

FORM = "a template, filled in one pass"
SPARE = 16  # tokens more than computed, for a hole that ends a little late
PER_HOLE = (*CONSTRAINTS, "stop")  # options that the holes have instead
ACCEPTED = Sampling.model_fields.keys() - {"stop", "min_tokens", "lookup"}
ACCEPTED |= {"text", "model", "system", "as_assistant", "dry_run", "variables", "on_token"}


def template(session, options: Options) -> Completion:
    """Have a model fill the holes of a template: a text, or messages, the last of them the assistant's and with the
    holes.

    The completion's `text` is the filled template, its `value` maps holes to their text, None if it was cut off. Raises
    GPTError for a text without holes, and for options that a template does not have.
    """
    for name, value in options.chosen.items():
        if name not in ACCEPTED and value is not None and value is not False and value != ():
            why = "its holes have their own" if name in PER_HOLE else "it is filled in one pass"
            raise GPTError(f"--{name.replace('_', '-')} cannot be used with a template: {why}")
    models, memory = session.models, session.prompting
    before, holes, notes = split(options.text, options.system, options.variables or {})
    chosen = models[options.model or latest(models, memory)]
    if chosen.kind == "endpoint":
        return at_endpoint(models, memory, chosen, before, holes, options, notes)
    memory.used[chosen.name] = time.time()
    if before is not None:
        head = render(chosen.name, chosen.tokenizer, Question(before, as_assistant=options.as_assistant))
    else:
        tokenizer: Any = chosen.tokenizer
        first = opening_token(tokenizer)
        ids = () if first is None else (first,)
        head = Prompt(ids, tokenizer.decode(ids), FORM)
    sampling = Sampling.of(**{name: getattr(options, name) for name in Sampling.model_fields})
    done = in_kernel(chosen, head, holes, sampling, notes, options.dry_run, options.on_token)
    if not options.dry_run:
        memory.last = done
    return done


def split(asked, system: str | None, variables: Mapping) -> tuple[list[dict] | None, Template, tuple[str, ...]]:
    """The messages before the template (None for a document), the template, and notes."""
    before, text, notes = None, asked, ()
    if not isinstance(text, str):
        messages = check_messages(text)
        if messages[-1]["role"] != "assistant" or any(is_template(message["content"]) for message in messages[:-1]):
            raise GPTError("in a chat the holes must be in the last turn, the assistant's")
        text = messages[-1]["content"]
        if len(messages) == 1:
            raise GPTError("a chat needs a turn before the one with the template: begin with user:")
        filled, notes = filled_in(messages[:-1], variables)
        before = [message for message in filled if isinstance(message, dict)]
    if system is not None:
        if before is None:
            raise GPTError("a template without turns is a document, and has no system prompt: write user: … assistant:")
        before = [{"role": "system", "content": system}, *before]
    holes, unknown = parse(text, variables)
    return before, holes, (*notes, *left_as_written(unknown))


def in_kernel(
    model,
    head: Prompt,
    template: Template,
    sampling: Sampling,
    notes: Sequence[str],
    dry_run: bool,
    on_token,
) -> Completion:
    """Fill a template with a model of this kernel."""
    from jupyter_gpt.nn.modules import context_of

    tokenizer, ends = model.tokenizer, stop_ids(model)
    lead = int(head.trim)  # the space with which the answer to such a prompt begins
    template = replace(template, texts=(" " * lead + template.texts[0], *template.texts[1:]))
    segments = segments_of(tokenizer, template)
    first = list(segments[0].matcher.deep_copy().compute_ff_tokens())  # of the first text; they are part of the prompt
    ids = (*head.ids, *first) or (next(iter(ends)),)
    fixed, text = (tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (first, ids))
    ready = Prompt(ids, text, FORM, head.messages, notes=tuple(notes))
    room = context_of(model.module) - len(ids)
    if room < 1:
        raise GPTError(f"the template begins with {len(ids):,} tokens, more than the context of {model.name} holds")
    if dry_run:
        return unsent(ready, sampling, model.name, False)
    longest = sum((hole.max_tokens or sampling.max_tokens) + SPARE for hole in template.holes)
    longest += sum(len(encode(tokenizer, text)) for text in template.texts)
    settings = sampling.replace(max_tokens=min(longest, room))
    constraints: list[TemplateConstraint] = []

    def constraint() -> TemplateConstraint:
        constraints.append(TemplateConstraint(tokenizer, segments, ends, first, sampling.max_tokens))
        return constraints[-1]

    def filled(completions: list[Completion], whole: bool = False) -> Completion:
        pairs = zip(completions[0].samples, constraints, strict=True)
        samples = [filled_sample(one, constraint, whole) for one, constraint in pairs]
        samples[0].samples = samples
        return samples[0]

    def filled_sample(one: Completion, constraint: TemplateConstraint, whole: bool) -> Completion:
        """The sample as the filled template; a copy, since what came so far is shown more than once."""
        values, text = constraint.values, (fixed + one.text)[lead:]
        if constraint.done and segments[-1].hidden:
            text = text.removesuffix(segments[-1].end)
        changes = {"text": text, "sampling": sampling, "samples": [], "holes": spans(template, values, lead)}
        if whole and constraint.done:
            changes |= {
                "valid": True,
                "value": {hole.name: value_of(hole, values[hole.name]) for hole in template.holes},
            }
        elif whole:
            note = f"cut off: not valid (the hole {list(values)[-1]} is not filled)"
            changes |= {"valid": False, "finish_reason": "length", "notes": (*one.notes, note)}
        return replace(one, **changes)

    show = (lambda completions: on_token(filled(completions))) if on_token else None
    return filled(sample(model, [ready], settings, show, constraint=constraint), whole=True)


def value_of(hole, text: str) -> object:
    """The value of a filled hole: parsed JSON, or its text."""
    return hole.rule.value(text) if hole.rule is not None else text


def spans(template: Template, values: Mapping[str, str], lead: int) -> list[tuple[str, int, int]]:
    """Where the holes filled so far are in the text: name, first character, end."""
    found, at = [], len(template.texts[0]) - lead
    for hole, after in zip(template.holes, template.texts[1:], strict=True):
        if hole.name not in values:
            break
        end = at + len(values[hole.name])
        found.append((hole.name, at, end))
        at = end + len(after)
    return found


def at_endpoint(
    models, memory, endpoint, before, template: Template, options: Options, notes: Sequence[str]
) -> Completion:
    """Fill a template at an endpoint, as one regex."""
    first, max_tokens = template.texts[0], options.max_tokens
    if endpoint.has_chat and before is None:
        raise GPTError(f"{endpoint.name} is a chat endpoint: write user: … and then assistant: the template")
    if before is not None and not (endpoint.has_chat or options.as_assistant):
        raise GPTError(f"{endpoint.name} is a base model and has no turns: write the template as a document")
    sent = first.rstrip(" ") if before is None else ""
    if before is None and not sent:
        raise GPTError("a template for an endpoint without a chat begins with some text")
    regex = re.escape(first[len(sent) :]) + as_regex(template, max_tokens)
    longest = sum(hole.max_tokens or max_tokens for hole in template.holes) + sum(map(len, template.texts))
    settings = {name: getattr(options, name) for name in ACCEPTED - {"text", "system", "variables", "on_token"}}
    settings |= {"model": endpoint.name, "regex": regex, "max_tokens": longest}
    [done] = prompt(models, memory, [sent if before is None else before], PromptOptions.of(**settings))
    for one in done.samples:
        one.text = sent + one.text
        values = read_back(template, one.text[len(first) :]) if one.valid else None
        one.value, one.valid = values, None if options.dry_run else values is not None
        one.holes = spans(template, values or {}, 0)
        one.form, one.notes = "a template, as one regex", (*notes, *one.notes)
    return done
