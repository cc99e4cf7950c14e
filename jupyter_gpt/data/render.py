"""From what is written in a cell to the exact prompt.

A cell's text may have `{variable}` holes and be a chat (`fill`, `turns`). A model with a chat template is prompted
through it. A base model continues documents, so it gets the text as a document, with the token that
began the documents of its training. Two kinds of document make it answer all the same: a conversation in which an
assistant speaks next (`as_assistant`; Askell et al. 2021, appendix A), and answered questions with the last one open
(`few_shot`; Radford et al. 2019, section 3.6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

from jupyter_gpt.data.files import utf8
from jupyter_gpt.data.tokenizer import CHAT
from jupyter_gpt.errors import GPTError

ROLES = ("system", "user", "assistant")
TOOL_KEYS = ("tool_calls", "tool_call_id", "name")  # further keys of a message where tools are called
TURN = re.compile(rf"^({'|'.join(ROLES)}):[ \t]*", re.MULTILINE)
STEP = r"""\.[A-Za-z]\w*|\[-?\d+\]|\['[^'\]]*'\]|\["[^"\]]*"\]"""
HOLE = re.compile(rf"\{{(?P<twice>\{{)?(?P<name>[A-Za-z]\w*)(?P<path>(?:{STEP})*)\}}(?(twice)\}})")
IPYTHON = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython"})

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
THROUGH_TEMPLATE = "assistant, asked through its chat template"
BY_SERVER = "messages, laid out by the server"
EMPTY_QUESTION = "the prompt is empty: write the question in the cell, under the magic"
EMPTY_DOCUMENT = "the prompt is empty: write the beginning of a document in the cell, under the magic"
MARK = "jupyter-gpt-answer"  # an answer whose end in the template is looked for


# what is written in a cell


def fill(text: str, variables: Mapping[str, object]) -> tuple[str, list[str]]:
    """`text` with its `{holes}` filled, and the names in braces that are no variable and were left as written.

    A hole is the name of a variable with attributes and indices (`{paper.title}`, `{rows[0]["name"]}`), looked up and
    never evaluated. Any other brace is a brace, so JSON and code survive; `{{name}}` stays as `{name}`. Raises GPTError
    if a variable lacks the attribute or index.
    """
    unknown: list[str] = []

    def value(hole: re.Match) -> str:
        if not is_data(hole["name"], variables):
            unknown.append(hole[0])
            return hole[0]
        return hole[0][1:-1] if hole["twice"] else str(follow(variables[hole["name"]], hole["path"], hole[0]))

    return HOLE.sub(value, text), unknown


def is_data(name: str, variables: Mapping[str, object]) -> bool:
    """Whether a hole may be filled with this variable: no function, no module, nothing of IPython's."""
    defined = name in variables and name not in IPYTHON
    return defined and not (callable(variables[name]) or isinstance(variables[name], ModuleType))


def follow(value: object, path: str, hole: str) -> object:
    """The value at the end of a path of attributes and indices. Raises GPTError naming the step that fails."""
    for step in re.findall(STEP, path):
        try:
            if step[0] == ".":
                value = getattr(value, step[1:])
            else:
                key = step[1:-1]
                value = value[key[1:-1] if key[0] in "'\"" else int(key)]
        except (AttributeError, LookupError, TypeError) as error:
            raise GPTError(f"{hole} cannot be filled: a {type(value).__name__} has no {step}") from error
    return value


def left_as_written(names: Iterable[str]) -> tuple[str, ...]:
    """The note on names in braces that are no variable; none where there are none."""
    shown = ", ".join(dict.fromkeys(names))
    return (f"left as written, no such variable: {shown}",) if shown else ()


def turns(text: str) -> list[dict] | None:
    """The messages of a text whose first line begins with `system:`, `user:` or `assistant:`; None for any other.

    Every line that begins so starts a message, which ends at the next.
    """
    if not TURN.match(text.lstrip()):
        return None
    parts = TURN.split(text.lstrip())[1:]
    return [{"role": role, "content": content.strip()} for role, content in zip(parts[::2], parts[1::2], strict=True)]


def check_messages(messages: object) -> list[dict]:
    """The messages, each with a known role and a text. Raises GPTError for anything else."""
    if not isinstance(messages, list | tuple) or not messages:
        raise GPTError('a chat is a list of {"role": …, "content": …}, with one of them at least')
    for message in messages:
        good = isinstance(message, Mapping) and isinstance(message.get("content"), str)
        if not good or message.get("role") not in (*ROLES, "tool"):
            raise GPTError(
                f"a turn of a chat has a role ({', '.join(ROLES)}) and a text as content, not {message!r:.60}"
            )
    return [
        {"role": m["role"], "content": m["content"]} | {name: m[name] for name in TOOL_KEYS if m.get(name)}
        for m in messages
    ]


# the prompt


@dataclass(frozen=True)
class Question:
    """A question before it is laid out for a model.

    asked: a text, or messages.  earlier: the chat so far (messages), or the document so far (a text).  few_shot: pairs
    of question and answer.  tools: those the model may call, in OpenAI's format.
    """

    asked: str | list[dict]
    system: str | None = None
    earlier: str | list[dict] | None = None
    few_shot: tuple[tuple[str, str], ...] = ()
    as_assistant: bool = False
    tools: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What is sent: `ids`, which spell `text`. `form` describes the layout; `stop` are texts that end an answer of this
    form; `trim`: whether the white space around the answer belongs to the form."""

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
        raise GPTError("few_shot is expected as pairs: [(question, answer), …] or {question: answer, …}")
    pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in items]
    bad = next((pair for pair in pairs if len(pair) != 2 or not all(isinstance(t, str) for t in pair)), None)
    if bad is not None or not pairs:
        raise GPTError("few_shot is expected as one or more pairs of two texts: [(question, answer), …]")
    return tuple(pairs)


def chat_of(question: Question) -> list[dict]:
    """All messages in order: system, examples, the earlier chat, the question."""
    asked = question.asked
    turns = check_messages(asked) if not isinstance(asked, str) else [{"role": "user", "content": asked}]
    if not turns[-1]["content"]:
        raise GPTError(EMPTY_QUESTION)
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
    """The prompt for the model `name`. With `room`, cut from the front to so many tokens.

    Raises GPTError if this model cannot be asked this way.
    """
    if getattr(tokenizer, "chat_template", None):
        prompt = _through_template(tokenizer, chat_of(question), room, question.tools)
    else:
        prompt = _tokenized(tokenizer, document_prompt(name, question), room)
    if not prompt.ids:
        raise GPTError(EMPTY_DOCUMENT)
    return prompt


def render_remote(name: str, has_chat: bool, question: Question) -> Prompt:
    """The same for a model behind a server, which lays out messages and counts tokens itself: `text` is the messages as
    JSON, `ids` is empty."""
    if not has_chat:
        return document_prompt(name, question)
    messages = chat_of(question)
    sent = {"tools": question.tools, "messages": messages} if question.tools else messages
    return Prompt((), json.dumps(sent, ensure_ascii=False, indent=1), BY_SERVER, messages)


def document_prompt(name: str, question: Question) -> Prompt:
    """The document for a base model, not tokenized yet."""
    if question.as_assistant:
        messages = chat_of(question)
        text = conversation(messages, () if question.few_shot else EXAMPLES)
        return Prompt((), text, AS_CHAT, messages, (f"\n{PERSON}",), messages[-1]["role"] != "assistant")
    text, form, stop = plain_document(name, question)
    return Prompt((), text, form, stop=stop, trim=bool(question.few_shot))


def plain_document(name: str, question: Question) -> tuple[str, str, tuple[str, ...]]:
    """Text, form and stop texts of a document for a base model. Raises GPTError for what only a chat has."""
    how = "it continues documents; --as-assistant asks it as a chat all the same, %%sft makes it one"
    if not isinstance(question.asked, str):
        raise GPTError(f"{name} is a base model and has no turns: {how}")
    if question.system is not None:
        raise GPTError(f"{name} is a base model and has no system prompt: {how}")
    if question.few_shot:
        if not question.asked:
            raise GPTError(EMPTY_QUESTION)
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
    lines = [f"{who} {text}" for pair in examples for who, text in zip((PERSON, ASSISTANT), pair, strict=True)]
    who = {"user": PERSON, "assistant": ASSISTANT}
    lines += [f"{who[m['role']]} {m['content']}" for m in messages if m["role"] != "system"]
    if messages[-1]["role"] != "assistant":
        lines.append(ASSISTANT)
    return "\n\n".join([opening, *lines])


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a text, in which special tokens may be spelled out. Raises GPTError for a lone surrogate."""
    try:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except (TypeError, UnicodeEncodeError):
        utf8(text, "the prompt")
        raise


def continued(tokenizer, prompt: Prompt, text: str) -> list[int]:
    """Token ids of a text that goes on after a prompt, as they are where both are read together: without the space that
    Llama's and Mistral's tokenizers put in front of any text."""
    ids = encode(tokenizer, text)
    if encode(tokenizer, "\nx")[-1:] == encode(tokenizer, "x"):
        return ids  # it puts none
    token = None if prompt.form == THROUGH_TEMPLATE else opening_token(tokenizer)
    head = [] if token is None else [token]
    before = prompt.text.removeprefix("".join(tokenizer.convert_ids_to_tokens(head)))
    whole = [*head, *encode(tokenizer, before + text)]
    return whole[len(prompt.ids) :] if tuple(whole[: len(prompt.ids)]) == prompt.ids else ids


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
    """The token that begins a document: the tokenizer's own, or the delimiter of the models trained here."""
    first = tokenizer("x", verbose=False)["input_ids"][0]
    if first == tokenizer.bos_token_id:
        return first
    return tokenizer.eos_token_id if set(CHAT) <= set(tokenizer.get_added_vocab()) else None


def _tokenized(tokenizer, prompt: Prompt, room: int | None) -> Prompt:
    text, token = prompt.text, opening_token(tokenizer)
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
    return replace(prompt, ids=(*head, *ids), text=spelled, notes=notes)


def _through_template(tokenizer, messages: list[dict], room: int | None, tools: Sequence[dict]) -> Prompt:
    def templated(messages: list[dict]) -> tuple[str, list[int]]:
        unfinished = messages[-1]["role"] == "assistant"
        text = rendered(tokenizer, messages, not unfinished, tools, unfinished)
        return text, encode(tokenizer, text)

    sent = messages
    text, ids = templated(sent)
    length = len(ids)
    while room is not None and len(ids) > room:
        sent = _shortened(tokenizer, sent, len(ids) - room)
        text, ids = templated(sent)
    notes = (f"{length - len(ids):,} tokens were cut from the front of the chat",) if len(ids) < length else ()
    return Prompt(tuple(ids), text, THROUGH_TEMPLATE, messages, notes=notes)


def _shortened(tokenizer, messages: list[dict], cut: int) -> list[dict]:
    """The messages without the oldest exchange, or else without the first tokens of the last one."""
    turns = [i for i, m in enumerate(messages) if m["role"] != "system"]
    if len(turns) > 2:
        return [m for i, m in enumerate(messages) if i not in turns[:2]]
    ids = encode(tokenizer, messages[-1]["content"])
    if cut >= len(ids):
        raise GPTError("the context has no room for this chat, however much of its last message is cut")
    return [*messages[:-1], {**messages[-1], "content": tokenizer.decode(ids[cut:], skip_special_tokens=False)}]


def rendered(
    tokenizer, messages: Sequence[dict], ask: bool = False, tools: Sequence[dict] = (), unfinished: bool = False
) -> str:
    """The conversation as the chat template writes it.

    ask: up to where the assistant's next turn begins. unfinished: up to the end of the last text, which is to be
    continued. Raises GPTError where the template rejects the conversation.
    """
    with template_errors():
        return tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=ask,
            continue_final_message=unfinished,
        )


@contextmanager
def template_errors() -> Iterator[None]:
    """An error that a chat template raises becomes a GPTError."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, ValueError, TypeError, ArithmeticError, MemoryError) as error:  # 1 / 0, 'a' * 10**20
        raise GPTError(f"the chat template refuses this conversation: {' '.join(str(error).split())}") from error


def end_of_turn(tokenizer) -> int | None:
    """The special token with which the chat template ends an answer; None where it ends otherwise."""
    try:
        text = rendered(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}])
    except GPTError:
        return None  # the model's own end-of-text token has to do
    after = encode(tokenizer, text.rpartition(MARK)[2].lstrip())
    return after[0] if after and after[0] in tokenizer.added_tokens_decoder else None
