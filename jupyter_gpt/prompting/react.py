"""ReAct: think, act, look; until there is an answer (Yao et al. 2022).

A model that reasons alone makes facts up, one that acts alone loses the thread: here each thought ends in an
action, a tool does it, and its result is read before the next thought. Calls go through the model's own
protocol where it has one, else they are written in the text; either way each is checked, shown if it has to
be, and contained (`tools/act.py`). Few-shot examples are whole runs (`tools/worked.py`); in a chat they follow the
form, which is then the system prompt.

A turn that is neither call nor answer is asked for once more, then taken as it stands, and that is said. The
same call twice in a row is not run again; a call that goes on giving what it gave before ends the acting. When the
turns are used up the model is asked for an answer from what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jupyter_gpt.data.render import without_special_tokens
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.tool_calls import NoToolCalls
from jupyter_gpt.prompting.answers import cleaned, read
from jupyter_gpt.prompting.ask import Ask, Asked, filled
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.tools.act import Acting, act
from jupyter_gpt.prompting.tools.native_calls import NativeCalls
from jupyter_gpt.prompting.tools.turns import Said, Unreadable, read_turn
from jupyter_gpt.prompting.tools.worked import Worked, worked
from jupyter_gpt.prompting.tools.written_calls import WrittenCalls
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "form": """Answer the question. You can use these tools:

{tools}

Write in exactly this form:

Thought: what you know and what to do next, in one line
Action: the tool to use, one of {names}
Action Input: its arguments as JSON

You are then told its result as an Observation, and go on with another Thought. When you know the answer, write:

Thought: I now know the answer
Final Answer: the answer""",
    "ask": "{form}\n\n{examples}Question: {question}",
    "native": "{question}",
    "repair": "That is not in the form asked for: {why}. Write a Thought, then an Action with its Action Input, or "
    "the Final Answer.",
    "repair_native": "That cannot be read: {why}. Call a tool properly, or give the final answer.",
    "repeat": "You made exactly this call before, and this was its result: {result}\nDo something else, or give the "
    "Final Answer.",
    "last": "You cannot act any more. Give your Final Answer now, from what you have seen.",
}
STRIKES = 2  # repeats after which the acting ends


def react(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver: `samples` independent runs, one after the other, each with its answer."""
    from jupyter_gpt.prompting.chain_of_thought import answered

    shots = [worked(asked, text) for asked, text in options.few_shot]
    found = []
    for number in range(1, samples + 1):
        label = "thinks and acts" if samples == 1 else f"thinks and acts, {number} of {samples}"
        with ask.inside(Node("react", label)) as here:
            answer = run(ask, question, options.acting, shots)
            if options.constraint:
                answer.answer = None
                answered(ask, question, [answer], options)
            here.text, here.answer = answer.text, answer.answer
            found.append(answer)
    return found


def run(ask: Ask, question: Asked, acting: Acting, shots: Sequence[Worked] = ()) -> Node:
    """One run: the node of its answer, whose completion is the last that the model gave."""
    words = ask.words("react", TEMPLATES)
    if acting.native:
        try:
            return loop(ask, question, acting, NativeCalls(ask, acting, words, shots), words)
        except NoToolCalls as refused:
            ask.here.note = f"{refused}: they are written in the text instead"
    return loop(ask, question, acting, WrittenCalls(ask, acting, words, shots), words)


def loop(ask: Ask, question: Asked, acting: Acting, protocol, words) -> Node:
    """Turns and results, until there is an answer."""
    asked, before, strikes = protocol.first(question), None, 0
    for number in range(1, acting.steps + 1):
        with ask.inside(Node("step", f"step {number}")):
            completion, said, asked = turn(ask, protocol, asked, words)
            if said.answer is not None:
                return answer_of(ask, said.answer, completion)
            best(ask, said, completion)
            results = []
            for call in said.calls:
                repeated = before is not None and before[0] == (call.name, call.arguments)
                if repeated:
                    text = before[1]
                    ask.add(Node("tool", call.name, text=text, note="the same call again: not run"))
                else:
                    text = without_special_tokens(act(ask, acting, call.name, call.arguments).text, acting.special)
                    repeated = ask.again(f"{call.name} {call.arguments} {text}")
                    before = ((call.name, call.arguments), text)
                strikes += repeated
                results.append(filled(words["repeat"], result=text) if repeated else text)
            asked = protocol.after(asked, completion, said, results)
        if strikes >= STRIKES:
            ask.here.note = "it went round in a circle, so it was asked for its answer"
            break
    else:
        ask.here.note = f"after {acting.steps} steps it was asked for its answer"
    return last(ask, asked, protocol.closing, words)


def turn(ask: Ask, protocol, asked: Asked, words) -> tuple[Completion, Said, Asked]:
    """One turn of the model, repaired once if it has to be; the prompt that it answered comes with it."""
    [node] = ask.nodes([asked], label="thinks", **protocol.settings)
    try:
        said = protocol.read(node.completion)
    except Unreadable as wrong:
        node.note = "; ".join(filter(None, (node.note, f"not in the form: {wrong}")))
        repair = words["repair_native" if isinstance(protocol, NativeCalls) else "repair"]
        asked = protocol.go_on(asked, node.completion, filled(repair, why=wrong))
        [node] = ask.nodes([asked], label="asked once more", **protocol.settings)
        try:
            said = protocol.read(node.completion)
        except Unreadable as still:
            node.note = f"still not in the form ({still}): its words are taken as they are"
            said = Said("", answer=node.text.strip())
    return node.completion, said, asked


def last(ask: Ask, asked: Asked, settings: dict, words) -> Node:
    """The answer that is left when nothing may be done any more."""
    if ask.chat:
        asked = (
            [*asked, {"role": "user", "content": words["last"]}]
            if asked[-1]["role"] == "tool"
            else joined(asked, words["last"])
        )
    else:
        asked = f"{asked.removesuffix('Thought:')}Final Answer:"
    [node] = ask.nodes([asked], label="gives its answer", **settings)
    text = node.text.strip()
    with suppress(Unreadable):  # an answer in plain words is what was asked for
        text = read_turn(text).answer or text
    return answer_of(ask, text, node.completion)


def joined(asked: list[dict], words: str) -> list[dict]:
    """The chat with `words` at the end of its last turn, so that the roles still take turns."""
    return [*asked[:-1], {**asked[-1], "content": f"{asked[-1]['content']}\n\n{words}"}]


def answer_of(ask: Ask, text: str, completion: Completion) -> Node:
    """The node of an answer."""
    return ask.add(
        Node("answer", "final answer", text=text, answer=read(text, alone=True) or cleaned(text), completion=completion)
    )


def best(ask: Ask, said: Said, completion: Completion) -> None:
    """What there is, should the budget end it here: the last thought."""
    ask.best = Node("thought", text=said.thought, completion=completion)
