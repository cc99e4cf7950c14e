"""Chat templates: how a conversation is spelled in tokens, and which of these are trained on.

- A model's own template is kept. A base trained here gets OWN, in the tokens its tokenizer reserved. Any other base
  gets one in tokens it already has, so that no embedding is resized: ChatML where it knows those marks, else plain
  words and its end-of-text token.
- What is trained is what is inside a `{% generation %}` block of the template; for a template without one, what is
  between the prompt that asks for an answer and the end of that answer, found by rendering both. The token that ends
  the turn is always trained with it: a model that never learns it never stops.
- An answer of weight 0 is read and not trained on.
- The tokens before an answer are those that `data/render.py` sends when it asks for one, token for token.
- Tool calls are spelled by templates that know them; a conversation that has any is refused under another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

from jupyter_gpt.data.conversation_formats import REASONING
from jupyter_gpt.data.render import rendered, template_errors
from jupyter_gpt.data.tokenizer import CHAT
from jupyter_gpt.errors import GPTError

TRAIN_ON = ("assistant", "all")
CALL, RESULT = "jupyter_gpt_call", "jupyter-gpt-result"  # placeholders in a conversation while its template is checked
ANSWER = "{% generation %}{{ message['content'] + END }}{% endgeneration %}"

OWN = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}" + ANSWER.replace("END", "'<|end|>'") + ""
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}" + ANSWER.replace("END", "'<|im_end|>'") + ""
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "BEGIN{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant:\n' }}" + ANSWER.replace("END", "eos_token") + "{{ '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)


def with_template(tokenizer):
    """The tokenizer with a chat template: itself where it has one, else a copy that was given one.

    Raises GPTError for a tokenizer that has no token to end an answer with.
    """
    if getattr(tokenizer, "chat_template", None):
        return tokenizer
    vocabulary = tokenizer.get_vocab()
    if set(CHAT) <= vocabulary.keys():
        template = OWN
    elif {"<|im_start|>", "<|im_end|>"} <= vocabulary.keys():
        template = CHATML
    elif tokenizer.eos_token is None:
        raise GPTError("this tokenizer has no end-of-text token to end an answer with: set its eos_token")
    else:
        first = list(tokenizer("x", verbose=False)["input_ids"])[:1]
        begins = tokenizer.bos_token is not None and first == [tokenizer.bos_token_id]
        template = WORDS.replace("BEGIN", "{{ bos_token }}" if begins else "")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def render_conversation(
    tokenizer, messages: Sequence[dict], train_on: str = "assistant", tools: Sequence[dict] | None = None
) -> tuple[list[int], list[bool]]:
    """The tokens of a conversation, and which of them are trained on.

    tokenizer: has a chat template. train_on: "assistant", its answers with the tokens that end them, or "all", every
    token; answers of weight 0 in neither. tools: the functions that may be called. Raises GPTError for a conversation
    that the template refuses, and for a template that begins an answer otherwise than it writes one or knows no tools.
    """
    return render_conversations(tokenizer, [messages], train_on, [tools])[0]


def render_conversations(
    tokenizer,
    conversations: Sequence[Sequence[dict]],
    train_on: str = "assistant",
    tools: Sequence[Sequence[dict] | None] | None = None,
) -> list[tuple[list[int], list[bool]]]:
    """`render_conversation` of many at once, several times as fast."""
    if train_on not in TRAIN_ON:
        raise GPTError(f"--train-on is assistant or all, not {train_on!r}")
    rendered_texts = [
        trained_spans(tokenizer, messages, train_on, own)
        for messages, own in zip(conversations, tools or [None] * len(conversations), strict=True)
    ]
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = _encode(tokenizer, [text for text, _ in rendered_texts], return_offsets_mapping=fast)
    offsets = encoded["offset_mapping"] if fast else [None] * len(rendered_texts)
    marked = [
        _marked(tokenizer, text, spans, list(ids), where)
        for (text, spans), ids, where in zip(rendered_texts, encoded["input_ids"], offsets, strict=True)
    ]
    return [(ids, [not read for read in mask]) for ids, mask in marked] if train_on == "all" else marked


def trained_spans(
    tokenizer, messages: Sequence[dict], train_on: str, tools: Sequence[dict] | None
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and the spans of characters that are trained on; of `train_on="all"` those that are not."""
    weights = [message.get("weight", 1) for message in messages if message["role"] == "assistant"]
    messages = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    check_tools(tokenizer, messages, tools or ())
    if train_on == "all" and all(weights):
        return rendered(tokenizer, messages, tools=tools or ()), []
    text, spans = answers(tokenizer, messages, tools)
    if not all(weights):
        if len(spans) != len(weights):
            raise GPTError(
                f"this chat template marks {len(spans)} spans of {len(weights)} answers, so the one with weight 0 is "
                "unknown: put its {% generation %} marks around each answer, once"
            )
        wanted = 0 if train_on == "all" else 1
        spans = [span for span, weight in zip(spans, weights, strict=True) if weight == wanted]
    return text, [(start, stop) for start, stop in spans if stop > start]


def answers(
    tokenizer, messages: Sequence[dict], tools: Sequence[dict] | None = None
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and the span of characters in it of each turn of the assistant, its end included."""
    if "{% generation %}" in _compact(tokenizer.chat_template):
        from transformers.utils.chat_template_utils import render_jinja_template

        special = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        with template_errors():
            (text,), (spans,) = render_jinja_template(
                [list(messages)],
                list(tools) if tools else None,
                chat_template=tokenizer.get_chat_template(),
                return_assistant_tokens_mask=True,
                **special,
            )
        return text, [(start, turn_ends(tokenizer, text, stop) if stop > start else stop) for start, stop in spans]
    text = rendered(tokenizer, messages, tools=tools or ())
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = rendered(tokenizer, messages[:place], True, tools or ())
        exchange = rendered(tokenizer, messages[: place + 1], tools=tools or ())
        if not (text.startswith(exchange.rstrip()) and exchange.startswith(prompt)):
            raise GPTError(
                "this chat template writes an answer differently than it asks for one, or rewrites earlier answers, "
                "and has no {% generation %} marks: give it marks, use --train-on all, or conversations of one exchange"
            )
        if message.get("tool_calls"):  # written by the template after the words
            stop = turn_ends(tokenizer, exchange, len(exchange.rstrip()))
        else:
            stop = _answer_ends(tokenizer, exchange, message["content"].strip(), len(prompt))
        spans.append((len(prompt), stop))
    return text, spans


def check_tools(tokenizer, messages: Sequence[dict], tools: Sequence[dict]) -> None:
    """Raises GPTError where the template leaves out a tool, a call of one, or its result."""
    wanted = {tool["function"]["name"] for tool in tools}
    probe = []  # the conversation with calls and results that nothing else in it can be taken for
    for message in messages:
        if calls := message.get("tool_calls"):
            wanted.add(CALL)
            calls = [call | {"function": call["function"] | {"name": CALL}} for call in calls]
            probe.append(message | {"tool_calls": calls})
        elif message["role"] == "tool":
            wanted.add(RESULT)
            probe.append(message | {"content": RESULT})
        else:
            probe.append(message)
    text = rendered(tokenizer, probe, tools=tools) if wanted else ""
    if not all(each in text for each in wanted):
        raise GPTError(
            "this chat template does not write tools and tool calls: train a model whose template does, or leave "
            "such conversations out (--bad-rows skip)"
        )


def reasoning_written(tokenizer) -> frozenset[str]:
    """The keys of a message whose reasoning the template writes, of those that there are."""
    asked, said = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
    try:
        return frozenset(key for key in REASONING if RESULT in rendered(tokenizer, [asked, said | {key: RESULT}]))
    except GPTError:  # it takes other conversations only: then that is not known
        return frozenset(REASONING)


def _compact(template: str | dict) -> str:
    """The template with its tags spelled alike, `{%- generation -%}` as `{% generation %}`."""
    template = template if isinstance(template, str) else " ".join(template.values())
    return template.replace("{%-", "{%").replace("-%}", "%}").replace("{%generation%}", "{% generation %}")


def _answer_ends(tokenizer, text: str, words: str, begin: int) -> int:
    """Where the last turn that contains `words` ends, from `begin` on; the turn's own marks may contain them too."""
    at = len(text)
    while (at := text.rfind(words, begin, at + len(words) - 1 if at < len(text) else at)) >= 0:
        stop = at + len(words)
        end = turn_ends(tokenizer, text, stop)
        if not text[end:].strip() and (end > stop or not text[stop:].strip()):
            return end
    raise GPTError("this chat template does not end the turn with the assistant's text: give it {% generation %} marks")


def turn_ends(tokenizer, text: str, stop: int) -> int:
    """Where the turn ends whose words end at `stop`: after the special token that follows them.

    Without one, what the template writes between turns ends the answer, up to its first newline.
    """
    specials = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    rest = text[stop:]
    blank = len(rest) - len(rest.lstrip())
    after = next((token for token in specials if rest.startswith(token, blank)), None)
    last = len(text[:stop].rstrip())
    if any(text.endswith(token, 0, last) for token in specials):
        return stop  # the marks hold it already, and maybe what is blank after it
    if after is not None:
        return stop + blank + len(after)
    return stop + (rest.find("\n") + 1 if "\n" in rest[:blank] else 0)


def _encode(tokenizer, texts: list[str], **more):
    return tokenizer(texts, add_special_tokens=False, verbose=False, **more)


def _marked(tokenizer, text: str, spans: list, ids: list[int], where: list | None) -> tuple[list[int], list[bool]]:
    """The ids with the tokens of `spans` marked; `where` are the characters of each token, where known."""
    cuts = [cut for span in spans for cut in span]
    places = _places(cuts, where) if where is not None else None
    if places is None:
        heads = [list(head) for head in _encode(tokenizer, [text[:cut] for cut in cuts])["input_ids"]] if cuts else []
        if all(ids[: len(head)] == head for head in heads):
            places = [len(head) for head in heads]
        else:  # a token would reach from the prompt into the answer: what inference sends ends before it
            ids, places = _pieces(tokenizer, text, cuts)
    mask = [False] * len(ids)
    for start, stop in zip(places[::2], places[1::2], strict=True):
        mask[start:stop] = [True] * (stop - start)
    return ids, mask


def _places(cuts: list[int], where: list) -> list[int] | None:
    """The tokens that begin at the `cuts`; None unless a token plainly ends and another begins at each of them."""
    places, token = [], 0
    for cut in cuts:
        while token < len(where) and where[token][0] < cut:
            token += 1
        begins = token == len(where) or where[token][0] == cut
        if not begins or (token and where[token - 1][1] != cut):
            return None
        places.append(token)
    return places


def _pieces(tokenizer, text: str, cuts: list[int]) -> tuple[list[int], list[int]]:
    """The text tokenized from cut to cut, and the token at each cut. GPTError where the pieces spell another text."""
    ids, places = [], []
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        ids += _encode(tokenizer, [text[start:stop]])["input_ids"][0] if stop > start else []
        places.append(len(ids))
    spell = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if spell(ids) != spell(_encode(tokenizer, [text])["input_ids"][0]):
        raise GPTError(
            "this tokenizer joins the end of the prompt and the beginning of an answer in one token: "
            "--train-on all trains on both, or use a chat template that separates them by a token of its own"
        )
    return ids, places[:-1]
