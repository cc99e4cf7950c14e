"""Prompting with techniques: what `gpt.prompt` does when it is asked to think, vote, reflect or search.

The techniques are of `jupyter_gpt.prompting` and know no session: here they get a model to ask, the texts that were
replaced, the user's functions, and a completion is made of what they found.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from jupyter_gpt.data.render import check_messages, pairs_of
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.inference.rules import rule
from jupyter_gpt.prompting import options as sensible
from jupyter_gpt.prompting import templates
from jupyter_gpt.prompting.answers import ANY, Form
from jupyter_gpt.prompting.ask import Ask, Asked, Budget, Enough, run
from jupyter_gpt.prompting.batching import together
from jupyter_gpt.prompting.compose import technique_of
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.tool_config import acting
from jupyter_gpt.prompting.tools.tool import Tool
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.stages.prompt import Prompting, filled_in, latest, prompt

BUDGETS = ("max_calls", "max_tokens_total", "max_seconds", "max_cost")
CONSTRAINTS = ("regex", "json", "choice", "grammar")
UNKNOWN_YET = "the prompts after this one depend on its answer"


def with_techniques(
    models: Mapping,
    memory: Prompting,
    asked: Asked,
    *,
    cot: bool = False,
    expert: str | bool = False,
    vote: bool = False,
    best_of: Callable | str | None = None,
    reflect: int = 0,
    check: Callable | None = None,
    tree: bool = False,
    breadth: int = 5,
    depth: int = 3,
    search: str = "bfs",
    value: Callable | None = None,
    react: bool = False,
    tools: str | Callable | Iterable | Tool = (),
    approve: bool | Callable = False,
    allow: str | Iterable[str] = (),
    steps: int | None = None,
    person: Callable | None = None,
    indexes: Mapping | None = None,
    tasks: int = 0,
    levels: int = 2,
    max_calls: int | None = None,
    max_tokens_total: int | None = None,
    max_seconds: float | None = None,
    max_cost: float | None = None,
    on_trace: Callable[[Node], None] | None = None,
    send: Callable | None = None,
    call_user: Callable | None = None,
    form: Form = ANY,
    **plain,
) -> Completion:
    """Ask one model one thing with the techniques of `jupyter_gpt.prompting.options.Options`.

    `plain` are the options of `jupyter_gpt.stages.prompt.prompt`. The completion has the `answer`, the `trace`, and
    as its `samples` all solutions that were drawn; its `usage` is that of all calls together. `on_trace` is called with
    the trace's root whenever it has grown. `tools`, `approve`, `allow`, `steps` and `person` are those of
    `jupyter_gpt.prompting.tool_config.acting`; with tools the model thinks and acts in turn (`react`);
    `tasks` makes it an agent (`gpt.agent`).
    `send` and `call_user` are those of `jupyter_gpt.prompting.ask.Ask`, where many are asked together; `form` says what
    the answer is, where it is known.
    Raises GPTError for combinations that make no sense.
    """
    if not isinstance(asked, str):
        check_messages(asked)
    chosen = models[plain.pop("model", None) or latest(models, memory)]
    chat = bool(chosen.has_chat or plain.get("as_assistant"))
    constraint = {name: plain.pop(name) for name in CONSTRAINTS if plain.get(name) is not None}
    if "choice" in constraint and form == ANY:
        form = Form("choice", tuple((one, one) for one in rule(choice=constraint["choice"]).what))
    options = Options(
        cot=cot,
        expert=expert,
        samples=plain.pop("samples", None) or 1,
        vote=vote,
        reflect=reflect,
        check=check,
        tree=tree,
        breadth=breadth,
        depth=depth,
        search=search,
        value=value,
        acting=acting(chosen, tools, indexes or {}, approve=approve, allow=allow, steps=steps, person=person)
        if react or tools or tasks
        else None,
        tasks=tasks,
        levels=levels,
        best_of=scorer(models, best_of) if isinstance(best_of, str) else best_of,
        few_shot=pairs_of(plain["few_shot"]) if plain.get("few_shot") is not None else (),
        constraint=constraint,
        form=form,
    )
    if options.acting:
        plain.pop("few_shot", None)  # worked runs, which the technique itself lays out
    defaults = Options()
    given = {"breadth": breadth, "depth": depth, "search": search, "value": value}
    said = {name for name, value in given.items() if value != getattr(defaults, name)}
    said |= {name for name, value in {"steps": steps, "approve": approve, "allow": allow}.items() if value}
    sensible.check(options, chat, frozenset(said))
    budget = Budget(max_calls, max_tokens_total, max_seconds, max_cost)
    if budget.max_cost is not None:
        check_price(chosen)
    text, notes = filled_in(asked, plain.pop("variables", None) or {})
    dry_run = plain.pop("dry_run", False)
    plain.pop("on_token", None)
    send = send or sender(models, memory, chosen.name, unsent=dry_run)
    ask = Ask(
        send,
        plain,
        budget,
        chat=chat,
        templates=templates.all_of(),
        changed=on_trace,
        call_user=call_user,
        root=Node("technique", named(options), model=chosen.name),
    )
    answer = run(ask, technique_of(options), text, options)
    done = completion(ask, answer, options, notes)
    memory.used[chosen.name] = time.time()
    if not dry_run:
        memory.last = done
        remember(memory, chosen.name, text, done, chat)
    return done


TECHNIQUES = (
    "cot",
    "expert",
    "vote",
    "best_of",
    "reflect",
    "check",
    "tree",
    "breadth",
    "depth",
    "search",
    "value",
    "react",
    "tools",
    "steps",
    "approve",
    "allow",
    "tasks",
)


def wanted(options: Mapping) -> bool:
    """Whether these options of `gpt.prompt` ask for a technique, or for a budget."""
    said = [options.get(name) for name in (*TECHNIQUES, *BUDGETS)]
    return any(value is not None and value is not False and value != () for value in said)  # a budget of 0 is refused


def without(options: Mapping) -> dict:
    """The options of a prompt that wants no technique: `cot=False` says nothing."""
    own = inspect.signature(with_techniques).parameters.values()
    theirs = {parameter.name for parameter in own if parameter.kind is parameter.KEYWORD_ONLY}
    return {name: value for name, value in options.items() if name not in theirs}


def together_with_techniques(
    models: Mapping, memory: Prompting, asked: Sequence[Asked], *, model: str | None = None, **options
) -> list[Completion]:
    """The same technique for many questions, what they ask at one time batched; the completions in their order.

    Raises the error of the first question that had one; after an interrupt those that were answered come back.
    """
    name = models[model or latest(models, memory)].name

    def work(one: Asked) -> Callable:
        return lambda send, call_user: with_techniques(
            models, Prompting(said=dict(memory.said)), one, model=name, send=send, call_user=call_user, **options
        )

    done = sorted(together([work(one) for one in asked], sender(models, memory, name)), key=lambda task: task.number)
    for task in done:
        if task.error is not None:
            raise task.error
    found = [task.result for task in done]
    memory.last = found[-1] if found else memory.last
    return found


def sender(models: Mapping, memory: Prompting, name: str, unsent: bool = False) -> Callable:
    """How an Ask has its prompts answered. With `unsent` only the first are laid out, and nothing is sent."""

    def send(prompts, *, show=None, deadline=None, **settings) -> list[Completion]:
        aside = Prompting(said=dict(memory.said))  # what a technique says on its way is no part of the chat
        found = prompt(models, aside, prompts, model=name, on_all=show, deadline=deadline, dry_run=unsent, **settings)
        if unsent:
            show(found)
            raise Enough(UNKNOWN_YET)
        return found

    return send


def check_price(model) -> None:
    """Raises GPTError where --max-cost cannot be kept."""
    from jupyter_gpt.inference.prices import cost

    if model.kind != "endpoint":
        raise GPTError(
            f"{model.name} is a model of this kernel and has no price: --max-calls or --max-seconds bound it"
        )
    if cost(model.base_url, model.model, 1, 1) is None:
        raise GPTError(f"no price is known of {model.model}, so --max-cost cannot be kept: --max-calls bounds it")


def scorer(models: Mapping, name: str) -> Callable[[str, str], float]:
    """A reward model's score as a function. Raises GPTError for any other model."""
    model = models[name]
    if not hasattr(model, "score") or not getattr(model, "labels", None):
        raise GPTError(f"--best-of wants a reward model or a $function, and {name} ({model.kind}) is neither")
    return model.score


def named(options: Options) -> str:
    """The techniques in a few words."""
    said = [
        "tree of thoughts" if options.tree else "chain of thought" if options.cot else "",
        "agent" if options.tasks else "react" if options.acting else "",
        "expert" if options.expert else "",
        f"{options.samples} samples" if options.samples > 1 else "",
        "vote" if options.vote else "best of" if options.best_of else "",
        "reflection" if options.reflect else "",
    ]
    return ", ".join(filter(None, said)) or "the question as it is"


def completion(ask: Ask, answer: Node, options: Options, notes: tuple[str, ...]) -> Completion:
    """What the technique found, as a completion: the first prompt that was sent, the answer, and the whole trace."""
    root, totals = ask.root, ask.root.totals()
    usage = Usage(totals.tokens_in, totals.tokens_out, ask.seconds, totals.cost)
    calls = [node.completion for node in root.walk() if node.calls and node.completion is not None]
    said = answer.completion or (calls[0] if calls else Completion("", model=root.model))
    first = calls[0] if calls else said
    drawn = [solution(node, options) for node in ask.solutions if node.completion is not None]
    sayings = [root.note, answer.note, *(node.note for node in root.walk() if node.kind == "vote")]
    done = replace(
        said,
        text=final(answer, options),
        answer=answer.answer,
        usage=usage,
        trace=root.as_dict(),
        samples=drawn if len(drawn) > 1 else [],
        prompt=first.prompt,
        prompt_tokens=first.prompt_tokens,
        form=first.form,
        messages=first.messages,
        sampling=first.sampling,
        model=root.model,
        remote=first.remote,
        history=first.history,
        notes=tuple(dict.fromkeys(filter(None, (*notes, *said.notes, *sayings)))),
        interrupted=any(sample.interrupted for call in calls for sample in call.samples),
        **kept(answer, options),
    )
    return done


def solution(node: Node, options: Options) -> Completion:
    """One of several solutions."""
    return replace(node.completion, text=final(node, options), answer=node.answer, samples=[], **kept(node, options))


def kept(node: Node, options: Options) -> dict:
    """Whether the answer has the form that it was to have, and what it stands for; nothing where it was to have
    none.
    """
    held = rule(**options.constraint)
    if held is None:
        return {}
    valid = node.answer is not None and held.problem(node.answer) is None
    return {"valid": valid, "value": held.value(node.answer) if valid else None}


def final(node: Node, options: Options) -> str:
    """The text of a solution: where the answer has a form to keep, the answer alone; else all that was said, with the
    answer that was asked for in a second pass at its end."""
    if options.constraint:
        return node.answer or node.text
    extracted = node.answer is not None and any(child.kind == "extract" for child in node.children)
    return f"{node.text.rstrip()}\n\nAnswer: {node.answer}" if extracted else node.text


def remember(memory: Prompting, name: str, asked: Asked, done: Completion, chat: bool) -> None:
    """The chat goes on from the question and its answer, not from what was said on the way."""
    if chat:
        turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        before = memory.said.get(name) if done.history else None
        memory.said[name] = [*(before or []), *turns, {"role": "assistant", "content": done.text}]
    elif isinstance(asked, str):
        memory.said[name] = asked + done.text
