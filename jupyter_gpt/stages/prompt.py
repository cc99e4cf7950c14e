"""Prompting: what `gpt.prompt` does, from a question and a model's name to a completion.

`prompt` asks one model many questions, as they are. With a technique or a budget `prompt_with_techniques` composes the
techniques of `jupyter_gpt.prompting` and makes a completion of what they found; `prompt_batch` does so for many
questions at once. The session remembers each model's last chat or document, so that it can go on (`--history`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_gpt.data.render import Prompt, Question, check_messages, fill, left_as_written, pairs_of, plain_document
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import TEMPERATURE, Completion, Sampling, Usage
from jupyter_gpt.models.models import Models
from jupyter_gpt.prompting.answers import ANY, Form
from jupyter_gpt.prompting.ask import Ask, Asked, Budget, Options, Stopped, replaced_templates, run
from jupyter_gpt.prompting.batching import run_batched
from jupyter_gpt.prompting.chain_of_thought import chain_of_thought, direct
from jupyter_gpt.prompting.expert import expert
from jupyter_gpt.prompting.generation import at_endpoint, in_kernel
from jupyter_gpt.prompting.react import react
from jupyter_gpt.prompting.reflection import reflect
from jupyter_gpt.prompting.self_consistency import best_of, vote
from jupyter_gpt.prompting.task_list import task_list
from jupyter_gpt.prompting.tools.act import toolset_for
from jupyter_gpt.prompting.tools.tool import Tool
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.prompting.tree_of_thoughts import tree_of_thoughts

NO_MODEL = "no model yet: %%pretrain NAME trains one, %gpt pull smollm2-135m-instruct fetches one"
CONSTRAINTS = ("regex", "json", "choice", "grammar")
SEARCHES = ("bfs", "dfs", "beam")
DEFAULTS = {name: option.default for name, option in Options.__dataclass_fields__.items()}
TECHNIQUES = (
    *("cot", "expert", "vote", "best_of", "reflect", "check", "tree", "breadth", "depth", "search", "value"),
    *("react", "tools", "steps", "approve", "allow", "tasks"),
    *("max_calls", "max_tokens_total", "max_seconds", "max_cost"),
)


@dataclass
class Prompting:
    """What the session remembers of prompting. `history`: per model its chat (messages) or document (text) so far."""

    last: Completion | None = None
    used: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[dict] | str] = field(default_factory=dict)


# questions as they are


def prompt(
    models: Models,
    memory: Prompting,
    asked: Sequence[Asked],
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
    """Ask one model all of `asked` together; the completions in order.

    `calculator` computes the calls that a model writes into its text (`<<3*4=`) and inserts the results. `tools`, in
    OpenAI's format, may be called: a completion then has `calls`. `lookup` decodes a greedy answer that quotes its
    prompt faster (`inference.lookup`). `on_token` is called with the first completion so far, `on_all` with all of
    them; at `deadline` (time.monotonic) they end and are kept.
    """
    if not asked:
        return []
    sampling = Sampling(
        samples=samples,
        temperature=TEMPERATURE if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        top_k=top_k or 0,
        min_p=min_p or 0.0,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        seed=seed,
        logprobs=logprobs,
        lookup=lookup,
    )
    rule = rule_of(regex=regex, json=json, choice=choice, grammar=grammar)
    chosen = models[model or latest(models, memory)]
    if getattr(chosen, "labels", None):
        raise GPTError(f"{chosen.name} ({chosen.kind}) answers with numbers, not with words: choose another model")
    memory.used[chosen.name] = time.time()
    shots = pairs_of(few_shot) if few_shot is not None else ()
    earlier = earlier_chat(chosen, memory, as_assistant) if history else None
    filled = [filled_in(text, variables or {}) for text in asked]
    questions = [Question(text, system, earlier, shots, as_assistant, tuple(tools)) for text, _ in filled]
    more = {"constraint": inline_calculator(chosen, rule)} if calculator else {}
    send = at_endpoint if chosen.kind == "endpoint" else in_kernel
    prompts, answer = send(chosen, questions, sampling, truncate, rule, **more)
    constrained = (rule.note,) if rule else ()
    prompts = [
        replace(p, notes=(*constrained, *notes, *p.notes)) for p, (_, notes) in zip(prompts, filled, strict=True)
    ]
    if dry_run:
        return [unsent(each, sampling, chosen.name, bool(earlier)) for each in prompts]
    show = on_all or ((lambda completions: on_token(completions[0])) if on_token else None)
    done = answer(prompts, show, deadline)
    for sample in (sample for completion in done for sample in completion.samples):
        sample.history = bool(earlier)
    memory.last = done[-1]
    if len(done) == 1:
        memory.history[chosen.name] = continued(chosen.name, questions[0], done[0])
    return done


def rule_of(**constraint: object):
    """The rule of a constraint, None if there is none."""
    if all(value is None or value is False for value in constraint.values()):
        return None
    from jupyter_gpt.inference.rules import rule

    return rule(**constraint)


def choices_of(choice: object) -> tuple[str, ...]:
    """The texts of a choice."""
    from jupyter_gpt.inference.rules import of_choice

    return of_choice(choice).what


def inline_calculator(model, rule) -> Callable:
    """The calculator inside the text. Raises GPTError where nothing can be inserted into a text."""
    from jupyter_gpt.prompting.tools.inline import inline_calculator

    if model.kind == "endpoint":
        raise GPTError(
            f"--calculator writes into the text, which the server of {model.name} does not allow: --tools does"
        )
    if rule:
        raise GPTError("--calculator writes into the text, and a constraint does too: leave one out")
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
    """The text or the messages with their `{holes}` filled, and a note on names that are no variable."""
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
        raise GPTError(f"{model.name} was last given a document, which no chat goes on from: leave --history out")
    if isinstance(earlier, list) and not chat:
        raise GPTError(f"{model.name} was last asked as an assistant: add --as-assistant to go on with that chat")
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


# questions with techniques


def prompt_with_techniques(
    models: Models,
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
    """Ask one model one question with the techniques of `jupyter_gpt.prompting.ask.Options`.

    `plain` are the options of `prompt`. The completion has the `answer`, the `trace`, and as its `samples` all
    solutions that were drawn; its `usage` is the sum over all calls. `on_trace(root)` is called whenever the trace has
    grown. `tools`, `approve`, `allow`, `steps` and `person` are those of `prompting.tools.act.toolset_for`; with tools
    the model thinks and acts in turn (`react`); `tasks` makes it an agent (`gpt.agent`). `send` and `call_user` are
    those of `prompting.ask.Ask`, where many questions are batched; `form` is the kind of answer, if known.

    Raises GPTError for combinations that make no sense.
    """
    if not isinstance(asked, str):
        check_messages(asked)
    chosen = models[plain.pop("model", None) or latest(models, memory)]
    chat = bool(chosen.has_chat or plain.get("as_assistant"))
    constraint = {name: plain.pop(name) for name in CONSTRAINTS if plain.get(name) is not None}
    if "choice" in constraint and form == ANY:
        form = Form("choice", tuple((each, each) for each in choices_of(constraint["choice"])))
    toolset = None
    if react or tools or tasks:
        toolset = toolset_for(chosen, tools, indexes or {}, approve=approve, allow=allow, steps=steps, person=person)
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
        toolset=toolset,
        tasks=tasks,
        levels=levels,
        best_of=reward_of(models, best_of) if isinstance(best_of, str) else best_of,
        few_shot=pairs_of(plain["few_shot"]) if plain.get("few_shot") is not None else (),
        constraint=constraint,
        form=form,
    )
    if toolset:
        plain.pop("few_shot", None)  # worked runs, which the technique lays out itself
    given = {name for name in ("breadth", "depth", "search", "value") if getattr(options, name) != DEFAULTS[name]}
    given |= {name for name, option in {"steps": steps, "approve": approve, "allow": allow}.items() if option}
    check_options(options, chat, given)
    budget = Budget(max_calls, max_tokens_total, max_seconds, max_cost)
    if budget.max_cost is not None:
        check_price(chosen)
    text, notes = filled_in(asked, plain.pop("variables", None) or {})
    dry_run = plain.pop("dry_run", False)
    plain.pop("on_token", None)
    ask = Ask(
        send or sender(models, memory, chosen.name, unsent=dry_run),
        plain,
        budget,
        chat=chat,
        templates=replaced_templates(),
        changed=on_trace,
        call_user=call_user,
        root=Node("technique", title(options), model=chosen.name),
    )
    answer = run(ask, compose(options), text, options)
    done = completion(ask, answer, options, notes)
    memory.used[chosen.name] = time.time()
    if not dry_run:
        memory.last = done
        remember(memory, chosen.name, text, done, chat)
    return done


def prompt_batch(
    models: Models, memory: Prompting, asked: Sequence[Asked], *, model: str | None = None, **options
) -> list[Completion]:
    """The same techniques for many questions, their calls batched; the completions in order.

    Raises the error of the first question that had one; after an interrupt those that were answered come back.
    """
    name = models[model or latest(models, memory)].name

    def work(question: Asked) -> Callable:
        return lambda send, call_user: prompt_with_techniques(
            models, memory_of_chats(memory), question, model=name, send=send, call_user=call_user, **options
        )

    tasks = run_batched([work(question) for question in asked], sender(models, memory, name))
    done = sorted(tasks, key=lambda task: task.number)
    for task in done:
        if task.error is not None:
            raise task.error
    completions: list[Completion] = [task.result for task in done]
    memory.last = completions[-1] if completions else memory.last
    return completions


def uses_technique(options: Mapping) -> bool:
    """Whether these options of `gpt.prompt` ask for a technique, or for a budget (one of 0 is refused later)."""
    values = [options.get(name) for name in TECHNIQUES]
    return any(value is not None and value is not False and value != () for value in values)


def plain_options(options: Mapping) -> dict:
    """The options of `prompt` among those of `gpt.prompt` that use no technique: `cot=False` is left out."""
    parameters = inspect.signature(prompt_with_techniques).parameters.values()
    technique = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    return {name: value for name, value in options.items() if name not in technique}


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


def check_options(options: Options, chat: bool = True, given: Iterable[str] = ()) -> None:
    """Raises GPTError for a combination that makes no sense, saying why. `given`: the options that the user set;
    `chat`: whether the model takes messages."""
    o = options
    wrong = {
        "--vote and --best-of both choose among the samples: leave one out": o.vote and o.best_of,
        f"--{'vote' if o.vote else 'best-of'} chooses among several samples: add --samples 5, say": (
            (o.vote or o.best_of) and o.samples < 2 and not o.tree
        ),
        "--reflect goes on from one answer: add --vote or --best-of, so that the samples become one": (
            o.reflect and o.samples > 1 and not (o.vote or o.best_of)
        ),
        "--check is what --reflect asks: add --reflect": o.check and not o.reflect,
        "--tree thinks step by step already: leave --cot out": o.tree and o.cot,
        "--tree draws by --breadth and chooses by its scores: leave --samples, --vote and --best-of out": (
            o.tree and (o.samples > 1 or o.vote or o.best_of)
        ),
        "there is no tool to act with: --tools calculator,python,search,$function": (
            o.toolset and not o.toolset.tools and not o.tasks
        ),
        "--react thinks between its actions already: leave --cot out": o.toolset and o.cot,
        "--react and --tree are two ways to go about it: leave one out": o.toolset and o.tree,
        "an agent answers once: leave --samples, --vote and --best-of out": o.tasks and (o.samples > 1 or o.best_of),
        "an agent plans and acts: leave --cot and --tree out": o.tasks and (o.cot or o.tree),
        "--tasks is 1 or more": "tasks" in given and o.tasks < 1,
        "--levels is 1 or more": o.levels < 1,
        "--breadth is 1 or more": o.breadth < 1,
        "--depth is 1 or more": o.depth < 1,
        "--reflect is 1 round or more": o.reflect < 0,
        f"--search is {', '.join(SEARCHES[:-1])} or {SEARCHES[-1]}, not {o.search!r}": o.search not in SEARCHES,
        "a base model goes on with documents and cannot look back at its answer: --as-assistant asks it as a chat, "
        "or --check $function judges in its place": o.reflect and not chat and not o.check,
        "a base model cannot judge its steps: --value $function does, or --as-assistant asks it as a chat": (
            o.tree and not chat and o.value is None
        ),
    }
    for name in ("breadth", "depth", "search", "value"):
        wrong[f"--{name} belongs to --tree: add --tree"] = name in given and not o.tree
    for name in ("steps", "approve", "allow"):
        wrong[f"--{name} belongs to --react: add --react and --tools"] = name in given and not o.toolset
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise GPTError(message)
    for name in ("best_of", "check", "value"):
        function = getattr(o, name)
        if function is not None and not callable(function):
            raise GPTError(f"--{name.replace('_', '-')} wants a function, not a {type(function).__name__}")


def sender(models: Models, memory: Prompting, name: str, unsent: bool = False) -> Callable:
    """The `send` of an Ask. With `unsent` only the first prompts are laid out, and nothing is sent."""

    def send(prompts, *, show=None, deadline=None, **settings) -> list[Completion]:
        aside = memory_of_chats(memory)  # what a technique asks on its way is no part of the chat
        done = prompt(models, aside, prompts, model=name, on_all=show, deadline=deadline, dry_run=unsent, **settings)
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
        raise GPTError(
            f"{model.name} is a model of this kernel and has no price: --max-calls or --max-seconds bound it"
        )
    if cost(model.base_url, model.model, 1, 1) is None:
        raise GPTError(f"no price is known of {model.model}, so --max-cost cannot be kept: --max-calls bounds it")


def reward_of(models: Models, name: str) -> Callable[[str, str], float]:
    """A reward model as a function. Raises GPTError for any other model."""
    model = models[name]
    score = getattr(model, "score", None)
    if score is None or not getattr(model, "labels", None):
        raise GPTError(f"--best-of wants a reward model or a $function, and {name} ({model.kind}) is neither")
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
        usage=Usage(totals.tokens_in, totals.tokens_out, ask.seconds, totals.cost),
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
