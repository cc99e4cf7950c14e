"""Tree of thoughts (Yao et al. 2023): propose steps, score what they lead to, keep the promising, backtrack from dead
ends.

A state is the steps so far. From each state that is kept the model proposes `breadth` next steps, all states in one
batch; each new state is scored by `value(prompt, steps)` or by the model itself (sure, likely, impossible, worth 20, 1
and 0 as in the paper's Game of 24; a score of 0 or less is a dead end and never followed). A step that states the
answer ("Answer: …") ends its branch.

bfs   keeps the `breadth` best states of each level, by their own score
beam  the same, by the sum of the scores on the way there
dfs   follows the best step first, backtracks where all steps are dead ends, ends at the first answer

The search ends at `depth` steps; if no branch has stated an answer by then, the best one is asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_gpt.prompting.answers import extract_answer, stated_answer
from jupyter_gpt.prompting.ask import Ask, Asked, follow_up, format_template, text_of, with_text
from jupyter_gpt.prompting.chain_of_thought import cut_off
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "propose": "{question}\n\nWork on this one step at a time.\nSteps so far:\n{steps}\n\nWrite the next step only, in "
    "one line. When the steps are complete, write instead: Answer: and the answer.",
    "judge": "{question}\n\nSteps so far:\n{steps}\n\nCan these steps lead to a right answer? Reply with one word: "
    "sure, likely or impossible.",
    "repair": "Reply with one of these words only: sure, likely, impossible.",
    "conclude": "{question}\n\nSteps:\n{steps}\n\nWhat is the answer? Reply with the answer alone.",
    "propose_document": "{question}\n{steps}",
    "conclude_document": "{question}\n{steps}Answer:",
}
NONE_YET = "(none yet)"
WORTH = {"impossible": 0.0, "likely": 1.0, "sure": 20.0}  # Yao et al. have 0.001 for "impossible", and follow it
JUDGE_TOKENS = 16


@dataclass(eq=False)
class State:
    """Steps so far: the `node` and `score` of the last one, and the `total` of the scores up to it."""

    node: Node
    steps: tuple[str, ...] = ()
    score: float = 0.0
    total: float = 0.0

    @property
    def answer(self) -> str | None:
        """The answer that the last step states, which ends the branch."""
        return stated_answer(self.steps[-1]) if self.steps else None


def tree_of_thoughts(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver of one solution: the best that the search finds. The tree is the trace; states left behind are
    pruned."""
    with ask.inside(Node("tree", f"{options.search}, breadth {options.breadth}, depth {options.depth}")) as root:
        search = depth_first if options.search == "dfs" else level_by_level
        best = search(ask, question, State(root), options)
        if best.answer is None:
            return [conclude(ask, question, best, options)]
    return [solution(best, best.answer)]


def level_by_level(ask: Ask, question: Asked, root: State, options: Options) -> State:
    """Breadth first, or a beam: all states of a level are expanded together."""
    worth = (lambda state: state.total) if options.search == "beam" else (lambda state: state.score)
    frontier, done, best = [root], [], root
    for _ in range(options.depth):
        new = [state for states in expand(ask, question, frontier, options) for state in states]
        alive = sorted((s for s in new if not s.node.pruned), key=worth, reverse=True)  # equals stay in order
        done += [s for s in alive if s.answer is not None]
        going = [s for s in alive if s.answer is None]
        frontier = going[: options.breadth]
        for left in going[options.breadth :]:
            left.node.pruned = True
        best = max([*done, *frontier], key=worth, default=best)
        ask.best = solution(best, best.answer)
        if not frontier:
            break
    chosen = max(done, key=worth, default=best)
    for other in done:
        other.node.pruned = other is not chosen
    return chosen


def depth_first(ask: Ask, question: Asked, root: State, options: Options) -> State:
    """The best step first, backtracking from dead ends; the first answer found, or else the best state seen."""
    stack, best = [root], root
    while stack:
        state = stack.pop()
        if state.answer is not None:
            for left in stack:
                left.node.pruned = True
            return state
        if len(state.steps) == options.depth:
            if stack:
                state.node.pruned, state.node.note = True, "maximum depth without an answer: backtracks"
            continue
        [new] = expand(ask, question, [state], options)
        alive = sorted((s for s in new if not s.node.pruned), key=lambda s: s.score)
        if not alive and state is not root:
            state.node.pruned, state.node.note = True, "all its steps are dead ends: backtracks"
        stack += alive
        best = max([*alive, best], key=lambda s: (s.answer is not None, s.score))
        ask.best = solution(best, best.answer)
    return best


def expand(ask: Ask, question: Asked, states: Sequence[State], options: Options) -> list[list[State]]:
    """The scored next states of each of `states`; repeated or empty steps and dead ends are pruned."""
    settings = {} if ask.chat else {"stop": ask.stops("\n"), "few_shot": None}
    calls = ask.nodes(
        [prompt_for(ask, question, state, "propose") for state in states],
        label="proposes",
        kind="propose",
        under=[state.node for state in states],
        samples=options.breadth,
        **settings,
    )
    families = []
    for state, call in zip(states, calls, strict=True):
        seen, family = set(), []
        for node in call.children or [call.add(Node("sample", text=call.text, completion=call.completion))]:
            step = next((line.strip() for line in node.text.splitlines() if line.strip()), "")
            node.kind, node.label = "thought", f"step {len(state.steps) + 1}"
            if not step or step in seen:
                node.pruned, node.note = True, "empty" if not step else "the same step as another"
                continue
            seen.add(step)
            family.append(State(node, (*state.steps, step)))
        families.append(family)
    score(ask, question, [(old, new) for old, family in zip(states, families, strict=True) for new in family], options)
    return families


def score(ask: Ask, question: Asked, pairs: Sequence[tuple[State, State]], options: Options) -> None:
    """Score each new state: by the user's function, or by the model."""
    new = [state for _, state in pairs]
    if options.value is not None:
        values = [float(ask.user(options.value, text_of(question), "\n".join(s.steps))) for s in new]
    else:
        values = judge(ask, question, new)
    for (old, state), value in zip(pairs, values, strict=True):
        state.score, state.total = value, old.total + value
        state.node.score, state.node.answer = value, state.answer
        if value <= 0:
            state.node.pruned = True
            state.node.note = "; ".join(filter(None, (state.node.note, "a dead end")))


def judge(ask: Ask, question: Asked, states: Sequence[State]) -> list[float]:
    """The model's judgement of each state as a number; another word than asked for is asked again once."""
    if not states:
        return []
    settings = {"samples": 1, "temperature": 0.0, "max_tokens": JUDGE_TOKENS}
    asked = [prompt_for(ask, question, state, "judge") for state in states]
    nodes = ask.nodes(asked, label="judges", kind="score", under=[s.node for s in states], **settings)
    values = [judgement(node.text) for node in nodes]
    wrong = [i for i, value in enumerate(values) if value is None]
    if wrong:
        repair = ask.templates("tree", TEMPLATES)["repair"]
        again = [follow_up(ask, asked[i], nodes[i].text or "…", repair) for i in wrong]
        repaired = ask.nodes(
            again, label="judges, asked again", kind="score", under=[states[i].node for i in wrong], **settings
        )
        for i, node in zip(wrong, repaired, strict=True):
            values[i] = judgement(node.text)
            if values[i] is None:
                states[i].node.note = "none of the three words: counted as likely"
    return [WORTH["likely"] if value is None else value for value in values]


def judgement(text: str) -> float | None:
    """The number for the first of the three words in a text; None if it has none of them."""
    word = re.search(r"\b(sure|likely|impossible)\b", text.lower())
    return WORTH[word[1]] if word else None


def prompt_for(ask: Ask, question: Asked, state: State, name: str) -> Asked:
    """The template `name` for a state."""
    texts = ask.templates("tree", TEMPLATES)
    if ask.chat:
        steps = "\n".join(state.steps) or NONE_YET
        return with_text(question, format_template(texts[name], question=text_of(question), steps=steps))
    steps = "".join(f"{step}\n" for step in state.steps)
    return format_template(texts[f"{name}_document"], question=text_of(question), steps=steps)


def conclude(ask: Ask, question: Asked, state: State, options: Options) -> Node:
    """The answer after the last step of a branch that has not stated one."""
    settings = {"samples": 1, "temperature": 0.0, **options.constraint}
    if not ask.chat:
        settings |= {"stop": ask.stops("\n"), "few_shot": None}
    prompt = prompt_for(ask, question, state, "conclude")
    [node] = ask.nodes([prompt], label="concludes", under=state.node, **settings)
    answer = node.text if options.constraint else extract_answer(node.text, options.form, cut=node.cut, alone=True)
    if answer is None and node.cut:
        node.note = cut_off(node)
    return solution(state, answer, node.text)


def solution(state: State, answer: str | None, last: str = "") -> Node:
    """The steps of a branch as one text, with its answer."""
    text = "\n".join([*state.steps, *([last] if last else [])])
    return Node("solution", text=text, answer=answer, score=state.node.score, completion=state.node.completion)
