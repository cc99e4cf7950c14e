"""From a question to the exact prompt.

A model with a chat template is asked through it. A base model is not an assistant: it continues documents, so
it gets the text as one, begun as the documents of its training began. Two kinds of document make it answer
all the same: a conversation in which an assistant is about to speak (`as_assistant`; after Askell et al.
2021, appendix A), and questions with their answers, the last one open (`few_shot`; Radford et al. 2019,
section 3.6).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.data.prompt_template import check_messages
from jupyter_gpt.data.tokenizer import CHAT, delimiter
from jupyter_gpt.errors import GPTError

OPENING = "The following is a conversation between a person and a helpful, honest and knowledgeable AI assistant."
EXAMPLES = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What do bees make?", "Bees make honey and wax."),
    ("Write one sentence about the sea.", "The sea lay calm under a pale morning sky."),
)
PERSON, ASSISTANT = "Human:", "Assistant:"
ASK, ANSWER = "Q:", "A:"
DOCUMENT = "base model, continuing the document"
AS_CHAT = "base model, continuing a conversation with an assistant"
MARK = "jupyter-gpt-answer"  # stands for an answer while the template is asked what follows one


@dataclass(frozen=True)
class Question:
    """What a person asks, before it is known how the model wants it.

    asked: a text, or messages.  earlier: what the chat said so far (messages), or the document so far (a
    text). few_shot: pairs of question and answer.  tools: those the model may call, as servers take them.
    """

    asked: str | list[dict]
    system: str | None = None
    earlier: str | list[dict] | None = None
    few_shot: tuple[tuple[str, str], ...] = ()
    as_assistant: bool = False
    tools: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What is sent: `ids`, which spell `text`. `form` says in words how the question was put; `stop` are
    texts that end an answer of this form; `trim` whether the space around the answer belongs to the form.
    """

    ids: tuple[int, ...]
    text: str
    form: str
    messages: list[dict] | None = None
    stop: tuple[str, ...] = ()
    trim: bool = False
    notes: tuple[str, ...] = ()


def pairs_of(few_shot: object) -> tuple[tuple[str, str], ...]:
    """Question-answer pairs from a mapping or from a list of pairs. Raises GPTError for anything else."""
    if hasattr(few_shot, "columns") and hasattr(few_shot, "itertuples"):  # a table of two columns
        few_shot = list(few_shot.itertuples(index=False, name=None))
    items = few_shot.items() if isinstance(few_shot, Mapping) else few_shot
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise GPTError("few_shot wants pairs: [(question, answer), …] or {question: answer, …}")
    found = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in items]
    bad = next((pair for pair in found if len(pair) != 2 or not all(isinstance(t, str) for t in pair)), None)
    if bad is not None or not found:
        raise GPTError("few_shot wants pairs of two texts, one at least: [(question, answer), …]")
    return tuple(found)


def chat_of(question: Question) -> list[dict]:
    """All messages in order: system, examples, what was said before, the question."""
    asked = question.asked
    turns = check_messages(asked) if not isinstance(asked, str) else [{"role": "user", "content": asked}]
    if not turns[-1]["content"]:
        raise GPTError("the prompt is empty: write the question in the cell, under the magic")
    earlier = question.earlier if isinstance(question.earlier, list) else []
    system = [m for m in turns if m["role"] == "system"]
    if system and question.system is not None:
        raise GPTError("there are two system prompts, one among the turns and one beside them: leave one out")
    if question.system is not None:
        system = [{"role": "system", "content": question.system}]
    system = system or [m for m in earlier if m["role"] == "system"]
    earlier = [m for m in earlier if m["role"] != "system"]
    examples = [
        {"role": role, "content": text}
        for pair in question.few_shot
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    if earlier[: len(examples)] == examples:
        examples = []
    return [*system, *examples, *earlier, *(m for m in turns if m["role"] != "system")]


def render(name: str, tokenizer, question: Question, room: int | None = None) -> Prompt:
    """The prompt for the model `name`, as its tokenizer has it. With `room`, cut from the front to so many
    tokens.

    Raises GPTError where the model cannot be asked so.
    """
    if getattr(tokenizer, "chat_template", None):
        prompt = _through_template(name, tokenizer, chat_of(question), room, list(question.tools) or None)
    elif question.as_assistant:
        messages = chat_of(question)
        text = conversation(messages, () if question.few_shot else EXAMPLES)
        prompt = _document(
            tokenizer,
            text,
            room,
            AS_CHAT,
            messages=messages,
            stop=(f"\n{PERSON}",),
            trim=messages[-1]["role"] != "assistant",
        )
    else:
        text, form, stop = plain_document(name, question)
        prompt = _document(tokenizer, text, room, form, stop=stop, trim=bool(question.few_shot))
    if not prompt.ids:
        raise GPTError("the prompt is empty: write the beginning of a document in the cell, under the magic")
    return prompt


def render_remote(name: str, has_chat: bool, question: Question) -> Prompt:
    """The same for a model behind a server, which counts the tokens and lays out the messages itself.

    `text` is then the messages as JSON, and `ids` is empty.
    """
    if has_chat:
        messages = chat_of(question)
        sent = {"tools": question.tools, "messages": messages} if question.tools else messages
        text = json.dumps(sent, ensure_ascii=False, indent=1)
        return Prompt((), text, "messages, laid out by the server", messages)
    if question.as_assistant:
        messages = chat_of(question)
        text = conversation(messages, () if question.few_shot else EXAMPLES)
        return Prompt((), text, AS_CHAT, messages, (f"\n{PERSON}",), messages[-1]["role"] != "assistant")
    text, form, stop = plain_document(name, question)
    return Prompt((), text, form, stop=stop, trim=bool(question.few_shot))


def plain_document(name: str, question: Question) -> tuple[str, str, tuple[str, ...]]:
    """Text, form and stop texts of a document for a base model. Raises GPTError for what only a chat has."""
    how = "it continues documents; --as-assistant asks it as a chat all the same"
    if not isinstance(question.asked, str):
        raise GPTError(f"{name} is a base model and has no turns: {how}")
    if question.system is not None:
        raise GPTError(f"{name} is a base model and has no system prompt: {how}")
    if question.few_shot:
        if not question.asked:
            raise GPTError("the prompt is empty: write the question in the cell, under the magic")
        shots = [f"{ASK} {q}\n{ANSWER} {a}" for q, a in question.few_shot]
        one_line = not any("\n" in answer for _, answer in question.few_shot)
        form = f"base model, continuing {len(shots)} answered question{'s' * (len(shots) != 1)}"
        text = "\n\n".join([*shots, f"{ASK} {question.asked}\n{ANSWER}"])
        return text, form, ("\n",) if one_line else (f"\n{ASK}",)
    before = question.earlier if isinstance(question.earlier, str) else ""
    between = "\n" if before and question.asked else ""
    return before + between + question.asked, DOCUMENT, ()


def conversation(messages: Sequence[dict], examples: Iterable[tuple[str, str]]) -> str:
    """The document of a conversation, open where the assistant's next words belong."""
    opening = next((m["content"] for m in messages if m["role"] == "system"), OPENING)
    said = [f"{who} {text}" for pair in examples for who, text in zip((PERSON, ASSISTANT), pair, strict=True)]
    who = {"user": PERSON, "assistant": ASSISTANT}
    said += [f"{who[m['role']]} {m['content']}" for m in messages if m["role"] != "system"]
    if messages[-1]["role"] != "assistant":
        said.append(ASSISTANT)
    return "\n\n".join([opening, *said])


def encode(tokenizer, text: str) -> list[int]:
    """Ids of a text in which special tokens are spelled out."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def special_tokens(tokenizer) -> tuple[str, ...]:
    """The texts that a tokenizer reads as one token of its own: the marks of turns, the end of a text."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    return tuple(sorted({*tokenizer.all_special_tokens, *added}, key=lambda token: (-len(token), token)))


def without_special_tokens(text: str, special: Iterable[str]) -> str:
    """Text from a document or a tool with each `special` token broken up by a space, so that it cannot begin a turn."""
    for token in sorted(special, key=len, reverse=True):
        if len(token) > 1 and not token.isspace():
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def opening_token(tokenizer) -> int | None:
    """What begins a document: the token its own tokenizer puts there, or the delimiter of the models made
    here.
    """
    first = tokenizer("x", verbose=False)["input_ids"][0]
    if first == tokenizer.bos_token_id:
        return first
    return delimiter(tokenizer) if set(CHAT) <= set(tokenizer.get_added_vocab()) else None


def _document(tokenizer, text: str, room: int | None, form: str, **more) -> Prompt:
    token = opening_token(tokenizer)
    head = [] if token is None else [token]
    ids = encode(tokenizer, text) if text else []
    notes, unknown = (), ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    cut = max(0, len(head) + len(ids) - room) if room is not None else 0
    if cut:
        ids = ids[cut:]
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        notes += (f"{cut:,} tokens were cut from the front of the prompt",)
    if unknown:
        notes += (f"{unknown:,} character{'s' * (unknown != 1)} of the prompt unknown to its tokenizer",)
    spelled = "".join(tokenizer.convert_ids_to_tokens(head)) + text
    return Prompt((*head, *ids), spelled, form, notes=notes, **more)


def _through_template(name: str, tokenizer, messages: list[dict], room: int | None, tools: list | None) -> Prompt:
    whole = len(encode(tokenizer, templated(name, tokenizer, messages, tools)))
    sent, cut = messages, 0
    while room is not None and (cut := len(encode(tokenizer, templated(name, tokenizer, sent, tools))) - room) > 0:
        sent = _shortened(tokenizer, sent, cut)
    text = templated(name, tokenizer, sent, tools)
    ids = encode(tokenizer, text)
    notes = (f"{whole - len(ids):,} tokens were cut from the front of the chat",) if len(ids) < whole else ()
    return Prompt(tuple(ids), text, "assistant, asked through its chat template", messages, notes=notes)


def _shortened(tokenizer, messages: list[dict], cut: int) -> list[dict]:
    """Without the oldest exchange, or else without the first tokens of the last message."""
    turns = [i for i, m in enumerate(messages) if m["role"] != "system"]
    if len(turns) > 2:
        return [m for i, m in enumerate(messages) if i not in turns[:2]]
    ids = encode(tokenizer, messages[-1]["content"])
    if cut >= len(ids):
        raise GPTError("the context has no room for this chat, however much of its last message is cut")
    return [
        *messages[:-1],
        {**messages[-1], "content": tokenizer.decode(ids[cut:], skip_special_tokens=False)},
    ]


def templated(name: str, tokenizer, messages: list[dict], tools: list | None = None) -> str:
    """The chat as the model's template writes it, the assistant about to speak (or to go on speaking)."""
    from jinja2 import TemplateError

    goes_on = messages[-1]["role"] == "assistant"
    try:
        return tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
        )
    except (TemplateError, ValueError) as error:
        raise GPTError(f"the chat template of {name} refuses this chat: {error}") from error


def end_of_turn(tokenizer) -> int | None:
    """The special token with which the chat template ends an answer; None where it ends otherwise."""
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, ValueError):
        return None  # a template that answers otherwise: the model's own end-of-text has to do
    after = encode(tokenizer, text.rpartition(MARK)[2].lstrip())
    return after[0] if after and after[0] in tokenizer.added_tokens_decoder else None
