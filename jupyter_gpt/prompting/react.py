"""ReAct: reason and act in turn until there is an answer (Yao et al. 2022).

A model that only reasons makes facts up, one that only acts loses the thread: here each thought ends in an action, a
tool runs it, and the model reads the result before its next thought. Calls go through the model's own protocol if it
has one, else they are written in the text (`tools/protocols.py`); either way each is checked, approved if it has to be,
and contained (`tools/act.py`).

A turn that is neither call nor answer is asked for once more, then used as it is, with a note. The same call
twice in a row is not run again; a call that keeps giving the same result ends the run. When the turns are used up the
model is asked for an answer from what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jupyter_gpt.data.render import without_special_tokens
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.tool_calls import NoToolCalls
from jupyter_gpt.prompting.answers import clean, extract_answer
from jupyter_gpt.prompting.ask import Ask, Asked, format_template
from jupyter_gpt.prompting.chain_of_thought import extract_answers
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.tools.act import act
from jupyter_gpt.prompting.tools.approval import Toolset
from jupyter_gpt.prompting.tools.protocols import (
    ExampleRun,
    NativeCalls,
    Turn,
    Unreadable,
    WrittenCalls,
    example_run,
    read_turn,
)
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
STRIKES = 2  # repeats after which the run ends


def react(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver: `samples` independent runs, one after the other, each with its answer."""
    examples = [example_run(asked, text) for asked, text in options.few_shot]
    answers = []
    for number in range(1, samples + 1):
        label = "thinks and acts" if samples == 1 else f"thinks and acts, {number} of {samples}"
        with ask.inside(Node("react", label)) as here:
            answer = run(ask, question, options.toolset, examples)
            if options.constraint:
                answer.answer = None
                extract_answers(ask, question, [answer], options)
            here.text, here.answer = answer.text, answer.answer
            answers.append(answer)
    return answers


def run(ask: Ask, question: Asked, toolset: Toolset, examples: Sequence[ExampleRun] = ()) -> Node:
    """One run: the node of its answer, with the model's last completion."""
    texts = ask.templates("react", TEMPLATES)
    if toolset.native:
        try:
            return loop(ask, question, toolset, NativeCalls(ask, toolset, texts, examples), texts)
        except NoToolCalls as refused:
            ask.here.note = f"{refused}: they are written in the text instead"
    return loop(ask, question, toolset, WrittenCalls(ask, toolset, texts, examples), texts)


def loop(ask: Ask, question: Asked, toolset: Toolset, protocol, texts) -> Node:
    """Turns and results, until there is an answer."""
    asked, last_call, strikes = protocol.first(question), None, 0
    for number in range(1, toolset.steps + 1):
        with ask.inside(Node("step", f"step {number}")):
            completion, turn, asked = take_turn(ask, protocol, asked, texts)
            if turn.answer is not None:
                return answer_node(ask, turn.answer, completion)
            ask.best = Node("thought", text=turn.thought, completion=completion)
            results = []
            for call in turn.calls:
                repeated = last_call is not None and last_call[0] == (call.name, call.arguments)
                if repeated:
                    text = last_call[1]
                    ask.add(Node("tool", call.name, text=text, note="the same call again: not run"))
                else:
                    text = without_special_tokens(act(ask, toolset, call.name, call.arguments).text, toolset.special)
                    repeated = ask.is_repeated(f"{call.name} {call.arguments} {text}")
                    last_call = ((call.name, call.arguments), text)
                strikes += repeated
                results.append(format_template(texts["repeat"], result=text) if repeated else text)
            asked = protocol.after(asked, completion, turn, results)
        if strikes >= STRIKES:
            ask.here.note = "the same call again and again: it was asked for its answer"
            break
    else:
        ask.here.note = f"after {toolset.steps} steps it was asked for its answer"
    return last_answer(ask, asked, protocol.closing, texts)


def take_turn(ask: Ask, protocol, asked: Asked, texts) -> tuple[Completion, Turn, Asked]:
    """One turn of the model, asked for again once if it cannot be read; with the prompt that it answered."""
    [node] = ask.nodes([asked], label="thinks", **protocol.settings)
    try:
        turn = protocol.read(node.completion)
    except Unreadable as wrong:
        node.note = "; ".join(filter(None, (node.note, f"not in the form: {wrong}")))
        asked = protocol.reply(asked, node.completion, format_template(texts[protocol.repair], why=wrong))
        [node] = ask.nodes([asked], label="asked again", **protocol.settings)
        try:
            turn = protocol.read(node.completion)
        except Unreadable as still:
            node.note = f"still not in the form ({still}): its words are taken as they are"
            turn = Turn("", answer=node.text.strip())
    return node.completion, turn, asked


def last_answer(ask: Ask, asked: Asked, settings: dict, texts) -> Node:
    """The answer when the model may not act any more."""
    if not ask.chat:
        asked = f"{asked.removesuffix('Thought:')}Final Answer:"
    elif asked[-1]["role"] == "tool":
        asked = [*asked, {"role": "user", "content": texts["last"]}]
    else:  # at the end of the last message, so that the roles still alternate
        asked = [*asked[:-1], {**asked[-1], "content": f"{asked[-1]['content']}\n\n{texts['last']}"}]
    [node] = ask.nodes([asked], label="gives its answer", **settings)
    text = node.text.strip()
    with suppress(Unreadable):  # an answer in plain words is what was asked for
        text = read_turn(text).answer or text
    return answer_node(ask, text, node.completion)


def answer_node(ask: Ask, text: str, completion: Completion) -> Node:
    """The node of an answer."""
    answer = extract_answer(text, alone=True) or clean(text)
    return ask.add(Node("answer", "final answer", text=text, answer=answer, completion=completion))
