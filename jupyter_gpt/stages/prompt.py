"""Prompting: what `gpt.prompt` does, from a question and a model's name to a completion.

`prompt` asks one model many questions, as they are; with a technique or a budget `prompt_techniques.py` does it. The
session remembers each model's last chat or document, so that it can be continued (`--history`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_gpt.data.render import Prompt, Question, check_messages, fill, left_as_written, pairs_of, plain_document
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.models.models import Models
from jupyter_gpt.prompting.ask import Asked
from jupyter_gpt.prompting.generation import at_endpoint, in_kernel
from jupyter_gpt.stages.prompt_options import CONSTRAINTS, TECHNIQUES, PromptOptions

NO_MODEL = "no model yet: %%pretrain NAME trains one, %gpt pull smollm2-135m-instruct fetches one"


@dataclass
class Prompting:
    """What the session remembers of prompting. `history`: per model its chat (messages) or document (text) so far."""

    last: Completion | None = None
    used: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[dict] | str] = field(default_factory=dict)


def uses_technique(given: Mapping[str, object]) -> bool:
    """Whether options that were set include a technique or a budget."""
    return any(name in TECHNIQUES and value is not None and value is not False for name, value in given.items())


def prompt(
    models: Models,
    memory: Prompting,
    asked: Sequence[Asked],
    options: PromptOptions,
    *,
    on_all: Callable[[list[Completion]], None] | None = None,
    deadline: float | None = None,
) -> list[Completion]:
    """Ask one model all of `asked` together, without techniques; the completions in order.

    `options.tools`, in OpenAI's format, may be called: a completion then has `calls`. `on_all` is called with the
    completions so far; at `deadline` (time.monotonic) they end and are kept.
    """
    if not asked:
        return []
    sampling = Sampling.of(**{name: getattr(options, name) for name in Sampling.model_fields})
    rule = rule_of(options)
    chosen = models[options.model or latest(models, memory)]
    if getattr(chosen, "labels", None):
        asking = "score(prompt, completion)" if chosen.is_reward_model else "classify(texts)"
        raise GPTError(
            f"{chosen.name} ({chosen.kind}) returns scores and no text: gpt.models[{chosen.name!r}].{asking}"
        )
    memory.used[chosen.name] = time.time()
    shots = pairs_of(options.few_shot) if options.few_shot is not None else ()
    earlier = earlier_chat(chosen, memory, options.as_assistant) if options.history else None
    filled = [filled_in(text, options.variables or {}) for text in asked]
    tools = tuple(options.tools or ())
    questions = [Question(text, options.system, earlier, shots, options.as_assistant, tools) for text, _ in filled]
    more: dict = {"constraint": inline_calculator(chosen, rule)} if options.calculator else {}
    send = at_endpoint if chosen.kind == "endpoint" else in_kernel
    prompts, answer = send(chosen, questions, sampling, options.truncate, rule, **more)
    constrained = (rule.note,) if rule else ()
    prompts = [
        replace(p, notes=(*constrained, *notes, *p.notes)) for p, (_, notes) in zip(prompts, filled, strict=True)
    ]
    if options.dry_run:
        return [unsent(each, sampling, chosen.name, bool(earlier)) for each in prompts]
    on_token = options.on_token
    show = on_all or ((lambda completions: on_token(completions[0])) if on_token else None)
    done = answer(prompts, show, deadline)
    for sample in (sample for completion in done for sample in completion.samples):
        sample.history = bool(earlier)
    memory.last = done[-1]
    if len(done) == 1:
        memory.history[chosen.name] = continued(chosen.name, questions[0], done[0])
    return done


def rule_of(options: PromptOptions):
    """The rule of the constraint among the options, None if there is none."""
    constraint = {name: getattr(options, name) for name in CONSTRAINTS}
    if all(value is None or value is False for value in constraint.values()):
        return None
    from jupyter_gpt.inference.rules import rule

    return rule(**constraint)


def inline_calculator(model, rule) -> Callable:
    """The calculator inside the text. Raises GPTError where nothing can be inserted into a text."""
    from jupyter_gpt.prompting.tools.calculator import inline_calculator

    if model.kind == "endpoint":
        raise GPTError(
            f"--calculator inserts results into the text, which the endpoint {model.name} cannot do: use --tools"
        )
    if rule:
        raise GPTError("--calculator and a constraint cannot be combined: leave one out")
    return inline_calculator(model.tokenizer)


def latest(models: Models, memory: Prompting) -> str:
    """The model that was made or used last. Raises GPTError if there is none, saying how to get one."""

    def when(name: str) -> float:
        folder = getattr(models.about(name), "folder", None)
        made = folder.stat().st_mtime if folder is not None and folder.exists() else 0.0
        return max(made, memory.used.get(name, 0.0))

    language_models = [name for name in models if not getattr(models.about(name), "labels", None)]
    if not language_models:
        raise GPTError(NO_MODEL)
    return max(language_models, key=when)


def filled_in(asked: Asked, variables: Mapping) -> tuple[Asked, tuple[str, ...]]:
    """The text or the messages with their `{holes}` filled, and a note on each name that is not a variable."""
    if not variables:
        return asked, ()
    if isinstance(asked, str):
        text, unknown = fill(asked, variables)
        return text, left_as_written(unknown)
    filled = [fill(message["content"], variables) for message in check_messages(asked)]
    messages = [{**message, "content": text} for message, (text, _) in zip(asked, filled, strict=True)]
    return messages, left_as_written(name for _, names in filled for name in names)


def earlier_chat(model, memory: Prompting, as_assistant: bool) -> list[dict] | str | None:
    """The last chat or document with this model. Raises GPTError if that was the one and this is the other."""
    earlier = memory.history.get(model.name)
    chat = as_assistant or model.has_chat
    if isinstance(earlier, str) and chat:
        raise GPTError(f"{model.name} was last given a document, which a chat cannot continue: leave --history out")
    if isinstance(earlier, list) and not chat:
        raise GPTError(f"{model.name} was last asked as an assistant: add --as-assistant to continue that chat")
    return earlier


def continued(name: str, question: Question, done: Completion) -> list[dict] | str:
    """The chat, or the document, with the answer (that of the first sample) at its end."""
    if done.messages is None:
        return plain_document(name, question)[0] + done.text
    if done.messages[-1]["role"] == "assistant":  # the answer continued the assistant's message
        prefix = done.messages[-1]["content"]
        return [*done.messages[:-1], {"role": "assistant", "content": prefix + done.text}]
    return [*done.messages, {"role": "assistant", "content": done.text}]


def unsent(prompt: Prompt, sampling: Sampling, name: str, history: bool) -> Completion:
    """A dry run: the exact prompt, and no answer."""
    return Completion(
        "",
        prompt=prompt.text,
        prompt_tokens=len(prompt.ids),
        usage=Usage(len(prompt.ids), 0, 0.0),
        model=name,
        form=prompt.form,
        messages=prompt.messages,
        sampling=sampling,
        notes=prompt.notes,
        history=history,
    )
