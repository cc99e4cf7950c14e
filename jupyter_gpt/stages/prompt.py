"""Prompting: what `gpt.prompt` does, from a text and a model's name to a completion.

The session remembers for each model what was said with it last, so that a chat, or a document, can go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_gpt.data.render import Prompt, Question, check_messages, fill, pairs_of, plain_document
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import TEMPERATURE, Completion, Sampling, Usage
from jupyter_gpt.inference.rules import rule
from jupyter_gpt.prompting.generation import at_endpoint, in_kernel

NONE_YET = "no model yet: %%pretrain NAME trains one, %gpt pull smollm2-135m-instruct fetches one"


@dataclass
class Prompting:
    """What the session remembers of prompting. `said`: per model its chat (messages) or its document (text)
    so far.
    """

    last: Completion | None = None
    used: dict[str, float] = field(default_factory=dict)
    said: dict[str, list[dict] | str] = field(default_factory=dict)


def prompt(
    models: Mapping,
    memory: Prompting,
    asked: Sequence[str | list[dict]],
    *,
    model: str | None = None,
    samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    max_tokens: int = 256,
    min_tokens: int = 0,
    stop: str | Sequence[str] | None = None,
    seed: int = 0,
    system: str | None = None,
    history: bool = False,
    logprobs: int = 0,
    as_assistant: bool = False,
    few_shot: object = None,
    regex: object = None,
    json: object = None,
    choice: object = None,
    grammar: object = None,
    tools: Sequence[dict] = (),
    calculator: bool = False,
    lookup: bool = False,
    truncate: bool = False,
    dry_run: bool = False,
    variables: Mapping[str, object] | None = None,
    on_token: Callable[[Completion], None] | None = None,
    on_all: Callable[[list[Completion]], None] | None = None,
    deadline: float | None = None,
) -> list[Completion]:
    """Ask one model all of `asked` together; the completions in their order.

    `calculator` works out the calls that a model writes into its text (`<<3*4=`), and puts the results there. `tools`,
    as servers and chat templates take them, may be called: a completion then has `calls`. `lookup` guesses a greedy
    answer
    from its prompt, which an answer that quotes is decoded sooner by (`inference.lookup`). `on_token` is shown
    the first completion so far, `on_all` all of them; at `deadline` (time.monotonic) they are ended and kept.
    """
    if not asked:
        return []
    sampling = Sampling(
        samples,
        TEMPERATURE if temperature is None else temperature,
        1.0 if top_p is None else top_p,
        top_k or 0,
        min_p or 0.0,
        max_tokens,
        min_tokens,
        (stop,) if isinstance(stop, str) else tuple(stop or ()),
        seed,
        logprobs,
        lookup,
    )
    held = rule(regex, json, choice, grammar)
    chosen = models[model or latest(models, memory)]
    if getattr(chosen, "labels", None):
        raise GPTError(f"{chosen.name} ({chosen.kind}) answers with numbers, not with words: choose another model")
    memory.used[chosen.name] = time.time()
    shots = pairs_of(few_shot) if few_shot is not None else ()
    earlier = gone_before(chosen, memory, as_assistant) if history else None
    filled = [filled_in(text, variables or {}) for text in asked]
    questions = [Question(text, system, earlier, shots, as_assistant, tuple(tools)) for text, _ in filled]
    more = {"constraint": inline(chosen, held)} if calculator else {}
    ask = at_endpoint if chosen.kind == "endpoint" else in_kernel
    prompts, answer = ask(chosen, questions, sampling, truncate, held, **more)
    kept = (f"held to {held.words}",) if held else ()
    prompts = [replace(p, notes=(*kept, *notes, *p.notes)) for p, (_, notes) in zip(prompts, filled, strict=True)]
    if dry_run:
        return [unsent(one, sampling, chosen.name, bool(earlier)) for one in prompts]
    show = on_all or ((lambda found: on_token(found[0])) if on_token else None)
    done = answer(prompts, show, deadline)
    for sample in (sample for completion in done for sample in completion.samples):
        sample.history = bool(earlier)
    memory.last = done[-1]
    if len(done) == 1:
        memory.said[chosen.name] = said_now(chosen.name, questions[0], done[0])
    return done


def inline(model, held) -> Callable:
    """The calculator inside the text. Raises GPTError where nothing can be put into a text."""
    from jupyter_gpt.prompting.tools.inline import inline_calculator

    if model.kind == "endpoint":
        raise GPTError(
            f"--calculator writes into the text, which the server of {model.name} does not allow: --tools does"
        )
    if held:
        raise GPTError("--calculator writes into the text, and a constraint does too: leave one out")
    return inline_calculator(model.tokenizer)


def latest(models: Mapping, memory: Prompting) -> str:
    """The model that was made or used last. Raises GPTError when there is none, saying how to get one."""

    def when(name: str) -> float:
        folder = getattr(models.about(name), "folder", None)
        made = folder.stat().st_mtime if folder is not None and folder.exists() else 0.0
        return max(made, memory.used.get(name, 0.0))

    speaking = [name for name in models if not getattr(models.about(name), "labels", None)]
    if not speaking:
        raise GPTError(NONE_YET)
    return max(speaking, key=when)


def filled_in(asked: str | list[dict], variables: Mapping) -> tuple[str | list[dict], tuple[str, ...]]:
    """The text or the turns with their holes filled, and a note on names that are no variable."""
    if not variables:
        return asked, ()
    if isinstance(asked, str):
        text, unknown = fill(asked, variables)
    else:
        done = [fill(message["content"], variables) for message in check_messages(asked)]
        text = [{**message, "content": content} for message, (content, _) in zip(asked, done, strict=True)]
        unknown = [name for _, names in done for name in names]
    names = ", ".join(dict.fromkeys(unknown))
    return text, (f"left as written, for there is no such variable: {names}",) if names else ()


def gone_before(model, memory: Prompting, as_assistant: bool) -> list[dict] | str | None:
    """What was said with this model last. Raises GPTError when that was a document and this is a chat, or
    otherwise.
    """
    said = memory.said.get(model.name)
    chat = as_assistant or model.has_chat
    if isinstance(said, str) and chat:
        raise GPTError(f"{model.name} was last given a document, which no chat goes on from: leave --history out")
    if isinstance(said, list) and not chat:
        raise GPTError(f"{model.name} was last asked as an assistant: add --as-assistant to go on with that chat")
    return said


def said_now(name: str, question: Question, done: Completion) -> list[dict] | str:
    """The chat, or the document, with the answer (that of the first sample) at its end."""
    if done.messages is None:
        return plain_document(name, question)[0] + done.text
    if done.messages[-1]["role"] == "assistant":  # the answer went on from words that were put in its mouth
        begun = done.messages[-1]["content"]
        return [*done.messages[:-1], {"role": "assistant", "content": begun + done.text}]
    return [*done.messages, {"role": "assistant", "content": done.text}]


def unsent(prompt: Prompt, sampling: Sampling, name: str, history: bool) -> Completion:
    """A dry run: the exact prompt, and no answer."""
    usage = Usage(len(prompt.ids), 0, 0.0)
    return Completion(
        "",
        prompt=prompt.text,
        prompt_tokens=len(prompt.ids),
        usage=usage,
        model=name,
        form=prompt.form,
        messages=prompt.messages,
        sampling=sampling,
        notes=prompt.notes,
        history=history,
    )
