"""Prompting with techniques: those among the options are composed, asked and made a completion.

`prompt_with_techniques` asks one question, `prompt_batch` many at once, their calls batched. The techniques themselves
are in `jupyter_gpt.prompting`, a file each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jupyter_gpt.data.render import check_messages, pairs_of
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.models.models import Models
from jupyter_gpt.prompting.answers import ANY, Form
from jupyter_gpt.prompting.ask import Ask, Asked, Stopped, replaced_templates, run
from jupyter_gpt.prompting.batching import run_batched
from jupyter_gpt.prompting.chain_of_thought import chain_of_thought, direct
from jupyter_gpt.prompting.expert import expert
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.react import react
from jupyter_gpt.prompting.reflection import reflect
from jupyter_gpt.prompting.self_consistency import best_of, vote
from jupyter_gpt.prompting.task_list import task_list
from jupyter_gpt.prompting.tools.act import toolset_for
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.prompting.tree_of_thoughts import tree_of_thoughts
from jupyter_gpt.stages.prompt import Prompting, filled_in, latest, prompt
from jupyter_gpt.stages.prompt_options import CONSTRAINTS, Agent, Asking, PromptOptions

OF_EACH_CALL = Asking.model_fields.keys() - {"model", "samples", "variables", "dry_run", "on_token"}


def prompt_with_techniques(
    models: Models,
    memory: Prompting,
    asked: Asked,
    options: PromptOptions | Agent,
    *,
    indexes: Mapping | None = None,
    send: Callable | None = None,
    call_user: Callable | None = None,
    form: Form = ANY,
) -> Completion:
    """Ask one model one question with the techniques among the options.

    The completion has the `answer`, the `trace`, and as its `samples` all solutions that were sampled; its `usage` is
    the sum over all calls. With tools the model thinks and acts in turn (`react`); with `tasks` it is an agent
    (`gpt.agent`). `send` and `call_user` are those of `prompting.ask.Ask`, where many questions are batched; `form` is
    the kind of answer, if known.

    Raises GPTError for combinations that make no sense.
    """
    if not isinstance(asked, str):
        check_messages(asked)
    chosen = models[options.model or latest(models, memory)]
    chat = bool(chosen.has_chat or options.as_assistant)
    technique = technique_options(models, chosen, options, {} if indexes is None else indexes, form)
    check_options(technique, chat)
    if options.max_cost is not None:
        check_price(chosen)
    text, notes = filled_in(asked, options.variables or {})
    settings = {name: value for name, value in options.chosen.items() if name in OF_EACH_CALL}
    if technique.toolset:
        settings.pop("few_shot", None)  # worked runs, which the technique lays out itself
    ask = Ask(
        send or sender(models, memory, chosen.name, unsent=options.dry_run),
        settings,
        options,
        chat=chat,
        templates=replaced_templates(),
        changed=options.on_trace,
        call_user=call_user,
        root=Node("technique", title(technique), model=chosen.name),
    )
    answer = run(ask, compose(technique), text, technique)
    done = completion(ask, answer, technique, notes)
    memory.used[chosen.name] = time.time()
    if not options.dry_run:
        memory.last = done
        remember(memory, chosen.name, text, done, chat)
    return done


def prompt_batch(
    models: Models, memory: Prompting, asked: Sequence[Asked], options: PromptOptions, indexes: Mapping | None = None
) -> list[Completion]:
    """The same techniques for many questions, their calls batched; the completions in order.

    Raises the error of the first question that had one; after an interrupt those that were answered are returned.
    """
    name = models[options.model or latest(models, memory)].name
    options = options.replace(model=name)

    def work(question: Asked) -> Callable:
        return lambda send, call_user: prompt_with_techniques(
            models, memory_of_chats(memory), question, options, indexes=indexes, send=send, call_user=call_user
        )

    tasks = run_batched([work(question) for question in asked], sender(models, memory, name))
    done = sorted(tasks, key=lambda task: task.number)
    for task in done:
        if task.error is not None:
            raise task.error
    completions: list[Completion] = [task.result for task in done]
    memory.last = completions[-1] if completions else memory.last
    return completions


def technique_options(models: Models, model, options: PromptOptions | Agent, indexes: Mapping, form: Form) -> Options:
    """The options as techniques read them: names of tools and models resolved to what they name."""
    given = {name: value for name, value in options.as_dict().items() if value is not None}
    constraint = {name: given[name] for name in CONSTRAINTS if name in given}
    if "choice" in constraint and form == ANY:
        from jupyter_gpt.inference.rules import of_choice

        form = Form("choice", tuple((each, each) for each in of_choice(constraint["choice"]).what))
    toolset = None
    if given.get("react") or options.tools or given.get("tasks"):
        toolset = toolset_for(
            model, options.tools or (), indexes, options.approve, options.allow or (), options.steps, options.person
        )
    for name in ("steps", "approve", "allow"):
        if given.get(name) and not toolset:
            raise GPTError(f"--{name} belongs to --react: add --react and --tools")
    made: dict = {"toolset": toolset, "constraint": constraint, "form": form}
    if isinstance(best := given.get("best_of"), str):
        made["best_of"] = reward_of(models, best)
    if options.few_shot is not None:
        made["few_shot"] = pairs_of(options.few_shot)
    return Options.of(**{name: value for name, value in given.items() if name in Options.model_fields} | made)


def compose(options: Options) -> Callable[[Ask, Asked, Options], Node]:
    """The technique for these options, by function composition from the inside out:

    a solver     direct | chain of thought | tree of thoughts | react      (perhaps as an expert)
    one answer   the first solution | the vote | the best by a reward
    reviewed     reflection
    """
    solve = (
        react if options.toolset else tree_of_thoughts if options.tree else chain_of_thought if options.cot else direct
    )
    solve = expert(solve) if options.expert else solve

    def solve_and_keep(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
        ask.solutions = solve(ask, question, options, samples)
        return ask.solutions

    def first(ask: Ask, question: Asked, options: Options) -> Node:
        return solve_and_keep(ask, question, options, options.samples)[0]

    if options.tasks:
        technique = task_list
    elif options.vote:
        technique = vote(solve_and_keep)
    else:
        technique = best_of(solve_and_keep) if options.best_of else first
    return reflect(technique, solve) if options.reflect else technique


def check_options(o: Options, chat: bool = True) -> None:
    """Raises GPTError for a combination that makes no sense, saying why. `chat`: whether the model takes messages."""
    wrong = {
        "--vote and --best-of both choose among the samples: leave one out": o.vote and o.best_of,
        f"--{'vote' if o.vote else 'best-of'} chooses among several samples: add --samples 5, say": (
            (o.vote or o.best_of) and o.samples < 2 and not o.tree
        ),
        "--reflect revises one answer: add --vote or --best-of to choose one of the samples": (
            o.reflect and o.samples > 1 and not (o.vote or o.best_of)
        ),
        "--check belongs to --reflect: add --reflect": o.check and not o.reflect,
        "--tree thinks step by step already: leave --cot out": o.tree and o.cot,
        "--tree samples by --breadth and chooses by its scores: leave --samples, --vote and --best-of out": (
            o.tree and (o.samples > 1 or o.vote or o.best_of)
        ),
        "there is no tool to act with: --tools calculator,python,search,$function": (
            o.toolset and not o.toolset.tools and not o.tasks
        ),
        "--react thinks between its actions already: leave --cot out": o.toolset and o.cot,
        "--react and --tree cannot be combined: leave one out": o.toolset and o.tree,
        "an agent answers once: leave --samples, --vote and --best-of out": o.tasks and (o.samples > 1 or o.best_of),
        "an agent plans and acts: leave --cot and --tree out": o.tasks and (o.cot or o.tree),
        "a base model cannot review its answer: --as-assistant asks it as a chat, or --check $function reviews it": (
            o.reflect and not chat and not o.check
        ),
        "a base model cannot judge its steps: --value $function does, or --as-assistant asks it as a chat": (
            o.tree and not chat and o.value is None
        ),
    }
    for name in ("breadth", "depth", "search", "value"):
        changed = getattr(o, name) != Options.model_fields[name].default
        wrong[f"--{name} belongs to --tree: add --tree"] = changed and not o.tree
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise GPTError(message)


def sender(models: Models, memory: Prompting, name: str, unsent: bool = False) -> Callable:
    """The `send` of an Ask. With `unsent` only the first prompts are laid out, and nothing is sent."""

    def send(prompts, *, show=None, deadline=None, **settings) -> list[Completion]:
        aside = memory_of_chats(memory)  # the calls of a technique are no part of the chat
        options = PromptOptions.of(model=name, dry_run=unsent, **settings)
        done = prompt(models, aside, prompts, options, on_all=show, deadline=deadline)
        if unsent:
            if show:
                show(done)
            raise Stopped("the prompts after this one depend on its answer")
        return done

    return send


def memory_of_chats(memory: Prompting) -> Prompting:
    """A copy that can be changed."""
    return Prompting(history=dict(memory.history))


def check_price(model) -> None:
    """Raises GPTError if --max-cost cannot be kept."""
    from jupyter_gpt.inference.remote import cost

    if model.kind != "endpoint":
        raise GPTError(f"{model.name} is a model of this kernel and has no price: use --max-calls or --max-seconds")
    if cost(model.base_url, model.model, 1, 1) is None:
        raise GPTError(f"the price of {model.model} is not known, so --max-cost cannot be applied: use --max-calls")


def reward_of(models: Models, name: str) -> Callable[[str, str], float]:
    """A reward model as a function. Raises GPTError for any other model."""
    model = models[name]
    score = getattr(model, "score", None)
    if score is None or not getattr(model, "labels", None):
        raise GPTError(f"--best-of expects a reward model or a $function, and {name} ({model.kind}) is neither")
    return score


def title(options: Options) -> str:
    """The techniques in a few words."""
    words = [
        "tree of thoughts" if options.tree else "chain of thought" if options.cot else "",
        "agent" if options.tasks else "react" if options.toolset else "",
        "expert" if options.expert else "",
        f"{options.samples} samples" if options.samples > 1 else "",
        "vote" if options.vote else "best of" if options.best_of else "",
        "reflection" if options.reflect else "",
    ]
    return ", ".join(filter(None, words)) or "the question as it is"


def completion(ask: Ask, answer: Node, options: Options, notes: tuple[str, ...]) -> Completion:
    """A technique's result as a completion: the first prompt that was sent, the answer, and the whole trace."""
    root, totals = ask.root, ask.root.totals()
    calls = [node.completion for node in root.walk() if node.calls and node.completion is not None]
    last = answer.completion or (calls[0] if calls else Completion("", model=root.model))
    first = calls[0] if calls else last
    solutions = [solution(node, c, options) for node in ask.solutions if (c := node.completion) is not None]
    node_notes = [root.note, answer.note, *(node.note for node in root.walk() if node.kind == "vote")]
    return replace(
        last,
        text=final_text(answer, options),
        answer=answer.answer,
        usage=Usage(
            totals.tokens_in,
            totals.tokens_out,
            ask.seconds,
            totals.cost,
            sum(call.usage.drafted for call in calls),
            sum(call.usage.accepted for call in calls),
            sum(call.usage.cached_tokens for call in calls),
        ),
        trace=root.as_dict(),
        samples=solutions if len(solutions) > 1 else [],
        prompt=first.prompt,
        prompt_tokens=first.prompt_tokens,
        form=first.form,
        messages=first.messages,
        sampling=first.sampling,
        model=root.model,
        remote=first.remote,
        history=first.history,
        notes=tuple(dict.fromkeys(filter(None, (*notes, *last.notes, *node_notes)))),
        interrupted=any(sample.interrupted for call in calls for sample in call.samples),
        **validity(answer, options),
    )


def solution(node: Node, drawn: Completion, options: Options) -> Completion:
    """One of several solutions as a completion."""
    text = final_text(node, options)
    return replace(drawn, text=text, answer=node.answer, samples=[], **validity(node, options))


def validity(node: Node, options: Options) -> dict:
    """`valid` and `value` of an answer under a constraint; nothing without one."""
    if options.rule is None:
        return {}
    if node.answer is None or options.rule.problem(node.answer) is not None:
        return {"valid": False, "value": None}
    return {"valid": True, "value": options.rule.value(node.answer)}


def final_text(node: Node, options: Options) -> str:
    """The text of a solution: under a constraint the answer alone; else all of it, with an answer from a second pass
    appended."""
    if options.constraint:
        return node.answer or node.text
    extracted = node.answer is not None and any(child.kind == "extract" for child in node.children)
    return f"{node.text.rstrip()}\n\nAnswer: {node.answer}" if extracted else node.text


def remember(memory: Prompting, name: str, asked: Asked, done: Completion, chat: bool) -> None:
    """Keep the question and its answer as the chat so far, without what the technique asked on its way."""
    if chat:
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        earlier = memory.history.get(name) if done.history else None
        before = earlier if isinstance(earlier, list) else []
        memory.history[name] = [*before, *messages, {"role": "assistant", "content": done.text}]
    elif isinstance(asked, str):
        memory.history[name] = asked + done.text
