"""An agent with a task list: plan, do the next task, look at the list again; until nothing is left (AutoGPT, BabyAGI).

The model writes its own list for a goal. The task at its top is worked off with the tools (ReAct), its result is
remembered, and the model looks at what is left: adds, takes out, reorders. A task that is a goal of its own is
given to `delegate`, which works off a list of its own one level deeper. What was done is never done again, the
number of tasks in all is limited, and so is the depth: a list cannot grow for ever.

Examples are of two kinds: a goal with its list shows how to plan and how to keep the list, a task with a worked run
(`tools/worked.py`) how to act. Each is laid out as the agent's own prompt for it: with runs, a task is asked alone, as
theirs are, and goal and memory stand in the system prompt.

Such agents impress and go astray: each step is right with some probability, and a goal needs all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jupyter_gpt.prompting import answers
from jupyter_gpt.prompting.ask import Ask, Asked, Enough, filled, go_on, text_of
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.react import react
from jupyter_gpt.prompting.tools.act import Acting, listed
from jupyter_gpt.prompting.tools.tool import Tool, cut, tool
from jupyter_gpt.prompting.tools.turns import read_turn
from jupyter_gpt.prompting.tools.worked import worked
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "plan": """Goal: {question}

{tools}List the tasks that lead to the goal, in order, one a line, numbered. At most {most}, and no more than \
needed.""",
    "task": """You work towards this goal: {goal}

{memory}Your task now, and nothing else: {question}""",
    "aside": "You work towards this goal: {goal}\n\n{memory}",
    "revise": """Goal: {question}

{memory}Tasks left:
{left}

Which tasks are left now, in order? Add what turned out to be needed, take out what is not. One a line, numbered; or
write "none" if the goal is reached.""",
    "repair": 'That is no list of tasks. Write one task a line, numbered; or the word "none".',
    "answer": """Goal: {question}

{memory}Now give the final answer to the goal, from these results.""",
    "tools": "These tools can be used:\n{tools}\n\n",
    "memory": "Done so far:\n{results}\n\n",
    "document": "\n\nAnswer:",
}  # `document` is put after each of them for a base model
LISTED = 7  # tasks on one list at most
REMEMBERED = 400  # characters of a result
MEMORY = 4000  # characters of all of them
DONE = "done"  # the result of a task in an example
LINE = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*(?P<task>\S.*?)\s*$", re.MULTILINE)
NONE = re.compile(r"\W*(?:none|nothing|no tasks?)\b", re.IGNORECASE)


@dataclass
class Work:
    """One goal on its way: its list, what is done, and the level it is worked on (1 is the top)."""

    goal: str
    level: int
    left: list[str] = field(default_factory=list)
    done: list[tuple[str, str]] = field(default_factory=list)  # task and result


def task_list(ask: Ask, question: Asked, options: Options) -> Node:
    """The technique: `options.tasks` tasks at most in all, lists nested to `options.levels`."""
    top, spent = Work(text_of(question), 1), []
    try:
        answer = worked_off(ask, top, options, spent, (top.goal,))
    except Enough:
        if top.done:
            ask.best = Node("results", text=results(top.done))
        raise
    finally:
        ask.root.result = {
            "goal": top.goal,
            "left": top.left,
            "done": [{"task": task, "result": result} for task, result in top.done],
        }
    return answer


def worked_off(ask: Ask, work: Work, options: Options, spent: list[str], above: tuple[str, ...]) -> Node:
    """Plans, works off, and answers one goal. `spent`: all tasks done so far, on every level; `above`: the goals
    that this one serves, itself the last.
    """
    words, (lists, runs) = ask.words("agent", TEMPLATES), examples(options.few_shot)
    acting = with_delegate(ask, work, options, spent, above)
    offered = filled(words["tools"], tools=listed(acting.tools)) if acting.tools else ""

    def plan(goal: str) -> str:
        return filled(words["plan"], question=goal, tools=offered, most=LISTED)

    asked = after_examples(ask, [(plan(goal), numbered(tasks)) for goal, tasks in lists], plan(work.goal), words)
    work.left = fresh(ask, work, tasks_in(ask, asked, "plans", options, words, keep=[work.goal]))
    shown = replace(options, few_shot=tuple(runs))
    while work.left and len(spent) < options.tasks:
        task = work.left.pop(0)
        spent.append(task)
        with ask.inside(Node("task", f"task: {task}")) as node:
            found = one_task(ask, task_prompt(ask, work, task, words, alone=bool(runs)), shown, acting)
            node.text, node.answer = found.text, found.answer
        work.done.append((task, found.text))
        asked = after_examples(ask, revisions(lists, runs, words), revise(work, words), words)
        named = tasks_in(ask, asked, "looks at its list", options, words, keep=work.left)
        work.left = fresh(ask, work, named, keep=work.left)
    if work.left:
        ask.here.note = f"after {len(spent)} tasks it was asked for its answer, {len(work.left)} were left"
    asked = filled(words["answer"], question=work.goal, memory=memory(work, words)) + ending(ask, words)
    [node] = ask.nodes([asked], label="gives its answer", **options.constraint)
    node.answer = answers.read(node.text, options.form, alone=True) or answers.cleaned(node.text)
    return node


def task_prompt(ask: Ask, work: Work, task: str, words, alone: bool) -> Asked:
    """What is asked for a task; `alone` puts goal and memory into the system prompt, where there is one."""
    if alone and ask.chat:
        aside = filled(words["aside"], goal=work.goal, memory=memory(work, words)).strip()
        return [{"role": "system", "content": aside}, {"role": "user", "content": task}]
    asked = filled(words["task"], goal=work.goal, memory=memory(work, words), question=task)
    return asked + ending(ask, words)


def one_task(ask: Ask, prompt: Asked, options: Options, acting: Acting) -> Node:
    """A task done with tools, or by the model alone."""
    if not acting.tools:
        return ask.nodes([prompt], label="works on it")[0]
    return react(ask, prompt, replace(options, acting=acting, constraint={}))[0]


def with_delegate(ask: Ask, work: Work, options: Options, spent: list[str], above: tuple[str, ...]) -> Acting:
    """The tools of this level: those given, and `delegate` where there is a level below."""
    acting = options.acting or Acting(())
    if work.level >= options.levels:
        return acting
    return replace(acting, tools=(*acting.tools, delegate(ask, work, options, spent, above)))


def delegate(ask: Ask, work: Work, options: Options, spent: list[str], above: tuple[str, ...]) -> Tool:
    """A tool that works off a goal of its own, one level deeper."""

    def delegated(goal: str) -> str:
        """Works on a part that is a goal of its own, with a task list of its own, and answers its result."""
        if plain(goal) in map(plain, above):
            raise ValueError("that is the goal that is being worked on already")
        if len(spent) >= options.tasks:
            raise ValueError("no tasks are left to work on it")
        return worked_off(ask, Work(goal, work.level + 1), options, spent, (*above, goal)).text

    return replace(tool(delegated, name="delegate"), direct=True)


def examples(few_shot: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """The examples that are goals with their lists (nothing but numbered lines), and those that are tasks with runs."""
    lists, runs = [], []
    for asked, text in few_shot:
        lines = [LINE.fullmatch(line) for line in text.splitlines() if line.strip()]
        if lines and all(lines):
            lists.append((asked, [line["task"] for line in lines]))
        else:
            runs.append((asked, text))
    return lists, runs


def revisions(lists: Sequence[tuple[str, list[str]]], runs: Sequence[tuple[str, str]], words) -> list[tuple[str, str]]:
    """How the list of each example is kept: what is done leaves it. The results are those of the runs of its tasks."""
    known, found = {asked: read_turn(worked(asked, text).turns[-1]).answer for asked, text in runs}, []
    for goal, tasks in lists:
        done = [(task, known.get(task, DONE)) for task in tasks]
        for count in range(1, len(tasks) + 1):
            work = Work(goal, 1, tasks[count:], done[:count])
            found.append((revise(work, words), numbered(work.left)))
    return found


def revise(work: Work, words) -> str:
    """The prompt that asks what is left to do."""
    return filled(words["revise"], question=work.goal, memory=memory(work, words), left=numbered(work.left))


def after_examples(ask: Ask, shots: Sequence[tuple[str, str]], prompt: str, words) -> Asked:
    """The prompt after examples of it and its answer: turns of a chat, or more of the document."""
    end = ending(ask, words)
    if not ask.chat:
        return "".join(f"{asked}{end} {answer}\n\n" for asked, answer in shots) + prompt + end
    if not shots:
        return prompt
    turns = [("user", prompt)]
    for asked, answer in reversed(shots):
        turns[:0] = [("user", asked), ("assistant", answer)]
    return [{"role": role, "content": text} for role, text in turns]


def tasks_in(ask: Ask, asked: Asked, label: str, options: Options, words, keep: Sequence[str]) -> list[str]:
    """The list that the model writes, asked once more if it writes none; in vain, `keep` stays, and that is said."""
    settings = {"grammar": list_grammar()} if options.acting and options.acting.constrained else {}
    [node] = ask.nodes([asked], label=label, **settings)
    found = read(node.text)
    if found is None:
        node.note = "no list of tasks"
        asked = go_on(ask, asked, node.text, f"\n\n{words['repair']}{ending(ask, words)}")
        [node] = ask.nodes([asked], label="asked once more", **settings)
        found = read(node.text)
    if found is None:
        node.note = "still no list of tasks: the one there was stays"
        return list(keep)
    return found


def read(text: str) -> list[str] | None:
    """The tasks of a text, an empty list where it says that there are none, None where it says neither."""
    found = [match["task"] for match in LINE.finditer(text)][:LISTED]
    if len(found) == 1 and NONE.fullmatch(found[0]):
        return []
    return found or ([] if NONE.match(text.strip()) else None)


def list_grammar() -> str:
    """One to `LISTED` numbered lines, or the word none; as Lark."""
    lines = ""
    for number in range(LISTED, 0, -1):
        line = rf"{number}\. [^\s][^\n]{{2,120}}"
        lines = line + (rf"(\n{lines})?" if lines else "")
    return f"start: LIST\nLIST: /none|{lines}/"


def fresh(ask: Ask, work: Work, tasks: Sequence[str], keep: Sequence[str] = ()) -> list[str]:
    """The tasks that are not done yet, each once; what was left out is said. Where they all are done, which says
    nothing
    of what is left, `keep` stays.
    """
    known, kept, dropped = {plain(task) for task, _ in work.done}, [], []
    for task in tasks:
        (dropped if plain(task) in known else kept).append(task)
        known.add(plain(task))
    note = f"left out, for it was done or is there already: {'; '.join(dropped)}" if dropped else ""
    if dropped and not kept and keep:
        kept, note = list(keep), f"{note}; the list there was stays"
    ask.add(Node("tasks", "the list", text=numbered(kept), note=note))
    return kept


def plain(text: str) -> str:
    """A task without case, punctuation and spaces around its words."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


def numbered(tasks: Sequence[str]) -> str:
    return "\n".join(f"{n}. {task}" for n, task in enumerate(tasks, start=1)) or "none"


def memory(work: Work, words) -> str:
    """What was done, for a prompt; nothing before the first result."""
    return filled(words["memory"], results=results(work.done)) if work.done else ""


def results(done: Sequence[tuple[str, str]]) -> str:
    """Tasks with their results, the oldest left out where all do not fit."""
    lines = [
        f"{n}. {task}\n   Result: {cut(' '.join(result.split()), REMEMBERED)}"
        for n, (task, result) in enumerate(done, start=1)
    ]
    while len(lines) > 1 and sum(map(len, lines)) > MEMORY:
        lines.pop(0)
    return "\n".join(lines)


def ending(ask: Ask, words) -> str:
    return "" if ask.chat else words["document"]
