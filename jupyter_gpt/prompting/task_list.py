"""An agent with a task list: plan, do the next task, review the list; until nothing is left (AutoGPT, BabyAGI).

The model writes a task list for a goal. The first task is done with the tools (ReAct), its result is remembered, and
the model reviews what is left: adds, removes, reorders. A task that is a goal of its own goes to `delegate`, which
works on a list of its own one level deeper. A finished task is never done again, and both the number of tasks and the
depth are limited: a list cannot grow for ever.

Few-shot examples are of two kinds: a goal with its list shows how to plan and keep the list, a task with a ReAct run
how to act. Each is laid out as the agent's own prompt for it: with runs, a task is asked alone, as theirs are, and goal
and memory are in the system prompt.

Such agents impress and go astray: each step is right with some probability, and a goal needs all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jupyter_gpt.prompting import answers
from jupyter_gpt.prompting.ask import Ask, Asked, Stopped, follow_up, format_template, text_of
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.react import react
from jupyter_gpt.prompting.tools.act import listed
from jupyter_gpt.prompting.tools.approval import Toolset
from jupyter_gpt.prompting.tools.protocols import example_run, read_turn
from jupyter_gpt.prompting.tools.tool import Tool, cut, tool
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
class Goal:
    """A goal: its list, what is done, and its level (1 is the top)."""

    text: str
    level: int
    left: list[str] = field(default_factory=list)
    done: list[tuple[str, str]] = field(default_factory=list)  # task and result


def task_list(ask: Ask, question: Asked, options: Options) -> Node:
    """The technique: `options.tasks` tasks at most in all, lists nested to `options.levels`."""
    top, spent = Goal(text_of(question), 1), []
    try:
        answer = work_on(ask, top, options, spent, (top.text,))
    except Stopped:
        if top.done:
            ask.best = Node("results", text=results(top.done))
        raise
    finally:
        ask.root.result = {
            "goal": top.text,
            "left": top.left,
            "done": [{"task": task, "result": result} for task, result in top.done],
        }
    return answer


def work_on(ask: Ask, goal: Goal, options: Options, spent: list[str], above: tuple[str, ...]) -> Node:
    """Plan for one goal, do its tasks, and answer it. `spent`: all tasks so far, on every level; `above`: the goals
    that this one serves, itself the last."""
    words, (lists, runs) = ask.templates("agent", TEMPLATES), examples(options.few_shot)
    toolset = with_delegate(ask, goal, options, spent, above)
    offered = format_template(words["tools"], tools=listed(toolset.tools)) if toolset.tools else ""

    def plan(text: str) -> str:
        return format_template(words["plan"], question=text, tools=offered, most=LISTED)

    asked = after_examples(ask, [(plan(text), numbered(tasks)) for text, tasks in lists], plan(goal.text), words)
    goal.left = fresh(ask, goal, tasks_in(ask, asked, "plans", options, words, keep=[goal.text]))
    shown = options.replace(few_shot=tuple(runs))
    while goal.left and len(spent) < options.tasks:
        task = goal.left.pop(0)
        spent.append(task)
        with ask.inside(Node("task", f"task: {task}")) as node:
            answer = do_task(ask, task_prompt(ask, goal, task, words, alone=bool(runs)), shown, toolset)
            node.text, node.answer = answer.text, answer.answer
        goal.done.append((task, answer.text))
        asked = after_examples(ask, revisions(lists, runs, words), revise(goal, words), words)
        named = tasks_in(ask, asked, "looks at its list", options, words, keep=goal.left)
        goal.left = fresh(ask, goal, named, keep=goal.left)
    if goal.left:
        ask.here.note = f"after {len(spent)} tasks it was asked for its answer, {len(goal.left)} were left"
    asked = format_template(words["answer"], question=goal.text, memory=memory(goal, words)) + ending(ask, words)
    [node] = ask.nodes([asked], label="gives its answer", **options.constraint)
    node.answer = answers.extract_answer(node.text, options.form, alone=True) or answers.clean(node.text)
    return node


def task_prompt(ask: Ask, goal: Goal, task: str, words, alone: bool) -> Asked:
    """The prompt for a task; `alone` puts goal and memory into the system prompt of a chat."""
    if alone and ask.chat:
        aside = format_template(words["aside"], goal=goal.text, memory=memory(goal, words)).strip()
        return [{"role": "system", "content": aside}, {"role": "user", "content": task}]
    asked = format_template(words["task"], goal=goal.text, memory=memory(goal, words), question=task)
    return asked + ending(ask, words)


def do_task(ask: Ask, prompt: Asked, options: Options, toolset: Toolset) -> Node:
    """Do a task with tools, or by the model alone."""
    if not toolset.tools:
        return ask.nodes([prompt], label="works on it")[0]
    return react(ask, prompt, options.replace(toolset=toolset, constraint={}))[0]


def with_delegate(ask: Ask, goal: Goal, options: Options, spent: list[str], above: tuple[str, ...]) -> Toolset:
    """The tools of this level: those given, and `delegate` where there is a level below."""
    toolset = options.toolset or Toolset(())
    if goal.level >= options.levels:
        return toolset
    return replace(toolset, tools=(*toolset.tools, delegate(ask, goal, options, spent, above)))


def delegate(ask: Ask, parent: Goal, options: Options, spent: list[str], above: tuple[str, ...]) -> Tool:
    """A tool that works on a goal of its own, one level deeper."""

    def delegated(goal: str) -> str:
        """Works on a part that is a goal of its own, with a task list of its own, and answers its result."""
        if plain(goal) in map(plain, above):
            raise ValueError("that is the goal that is being worked on already")
        if len(spent) >= options.tasks:
            raise ValueError("no tasks are left to work on it")
        return work_on(ask, Goal(goal, parent.level + 1), options, spent, (*above, goal)).text

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
    """How the list of each example shrinks as its tasks are done, with the results of their runs."""
    known, found = {asked: read_turn(example_run(asked, text).turns[-1]).answer for asked, text in runs}, []
    for goal, tasks in lists:
        done = [(task, known.get(task, DONE)) for task in tasks]
        for count in range(1, len(tasks) + 1):
            state = Goal(goal, 1, tasks[count:], done[:count])
            found.append((revise(state, words), numbered(state.left)))
    return found


def revise(goal: Goal, words) -> str:
    """The prompt that asks what is left to do."""
    return format_template(words["revise"], question=goal.text, memory=memory(goal, words), left=numbered(goal.left))


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
    """The list that the model writes, asked once more if it writes none; `keep` stays if it still does not."""
    settings = {"grammar": list_grammar()} if options.toolset and options.toolset.constrained else {}
    [node] = ask.nodes([asked], label=label, **settings)
    found = read(node.text)
    if found is None:
        node.note = "no list of tasks"
        asked = follow_up(ask, asked, node.text, f"\n\n{words['repair']}{ending(ask, words)}")
        [node] = ask.nodes([asked], label="asked again", **settings)
        found = read(node.text)
    if found is None:
        node.note = "no list of tasks again: the previous one is kept"
        return list(keep)
    return found


def read(text: str) -> list[str] | None:
    """The tasks of a text, an empty list if it says there are none, None if it says neither."""
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


def fresh(ask: Ask, goal: Goal, tasks: Sequence[str], keep: Sequence[str] = ()) -> list[str]:
    """The tasks that are not done yet, each once, with a note on those left out. If all of them are done, `keep`
    stays."""
    known, kept, dropped = {plain(task) for task, _ in goal.done}, [], []
    for task in tasks:
        (dropped if plain(task) in known else kept).append(task)
        known.add(plain(task))
    note = f"left out, done or listed already: {'; '.join(dropped)}" if dropped else ""
    if dropped and not kept and keep:
        kept, note = list(keep), f"{note}; the list is kept"
    ask.add(Node("tasks", "the list", text=numbered(kept), note=note))
    return kept


def plain(text: str) -> str:
    """A task without case, punctuation and spaces around its words."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())


def numbered(tasks: Sequence[str]) -> str:
    return "\n".join(f"{n}. {task}" for n, task in enumerate(tasks, start=1)) or "none"


def memory(goal: Goal, words) -> str:
    """What was done, for a prompt; empty before the first result."""
    return format_template(words["memory"], results=results(goal.done)) if goal.done else ""


def results(done: Sequence[tuple[str, str]]) -> str:
    """Tasks with their results; the oldest are left out if not all fit."""
    lines = [
        f"{n}. {task}\n   Result: {cut(' '.join(result.split()), REMEMBERED)}"
        for n, (task, result) in enumerate(done, start=1)
    ]
    while len(lines) > 1 and sum(map(len, lines)) > MEMORY:
        lines.pop(0)
    return "\n".join(lines)


def ending(ask: Ask, words) -> str:
    return "" if ask.chat else words["document"]
