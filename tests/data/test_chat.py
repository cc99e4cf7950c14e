"""Chat templates and the tokens that are trained on: what is rendered for training is what inference sends."""

import copy
from pathlib import Path

import pytest

from jupyter_gpt.data import conversations
from jupyter_gpt.data.chat import (
    CHATML,
    OWN,
    reasoning_written,
    render_conversation,
    render_conversations,
    with_template,
)
from jupyter_gpt.data.conversation_formats import REASONING
from jupyter_gpt.data.render import Question, end_of_turn, render
from jupyter_gpt.data.tokenizer import train_bpe, train_char
from jupyter_gpt.errors import GPTError

TEXT = ["Once upon a time there was a fox. User: Assistant: What did the fox say?\n\n\nIt said yes, yes and no! "] * 20
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What did the fox say?"},
    {"role": "assistant", "content": "It said yes."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "  It said no!\n"},
]
# As SmolLM2's: a default system prompt, ChatML, no generation marks.
SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def own():
    return with_template(train_bpe(TEXT, 320))


@pytest.fixture(scope="module")
def foreign():
    """A base of somebody else's: one special token, no template."""
    tokenizer = train_bpe(TEXT, 320)
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    spec = tokenizer.backend_tokenizer.to_str()
    for token in ("system", "user", "assistant", "end"):
        spec = spec.replace(f"<|{token}|>", f"<other {token}>")
    plain = Tokenizer.from_str(spec)
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|endoftext|>")


def chatml(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def said(tokenizer, ids, mask):
    """The trained stretches as text."""
    out, run = [], []
    for token, trained in [*zip(ids, mask, strict=True), (None, False)]:
        if trained:
            run.append(token)
        elif run:
            out.append(tokenizer.decode(run, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            run = []
    return out


def agree(tokenizer, messages):
    """Each answer is preceded by exactly the tokens that inference sends to ask for it."""
    ids, mask = render_conversation(tokenizer, messages)
    starts = [i for i in range(1, len(mask)) if mask[i] and not mask[i - 1]]
    asked = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    assert len(starts) == len(asked)
    for start, place in zip(starts, asked, strict=True):
        assert tuple(ids[:start]) == render("m", tokenizer, Question(list(messages[:place]))).ids
    return ids, mask


def test_own_template_trains_the_answers_and_their_ends(own):
    ids, mask = agree(own, CHAT)
    assert said(own, ids, mask) == ["It said yes.<|end|>", "  It said no!\n<|end|>"]
    assert own.decode(ids, skip_special_tokens=False) == (
        "<|endoftext|><|system|>Be brief.<|end|><|user|>What did the fox say?<|end|><|assistant|>It said yes.<|end|>"
        "<|user|>And then?<|end|><|assistant|>  It said no!\n<|end|>"
    )
    assert ids[0] == own.bos_token_id and ids.count(own.convert_tokens_to_ids("<|end|>")) == 5
    assert end_of_turn(own) == own.convert_tokens_to_ids("<|end|>")


def test_without_marks_prompts_are_rendered_to_find_the_answers(own):
    tokenizer = chatml(own, SMOL)
    ids, mask = agree(tokenizer, [*CHAT[1:4], {"role": "assistant", "content": "It said no!"}])
    assert said(tokenizer, ids, mask) == ["It said yes.<|im_end|>", "It said no!<|im_end|>"]
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nYou are helpful<|im_end|>")


@pytest.mark.parametrize("words", ["end", "im", "|", "assistant", "assistant\nassistant", "<|im_end|>"])
def test_an_answer_that_spells_the_marks_of_its_turn(own, words):
    tokenizer = chatml(own, SMOL)
    messages = [CHAT[1], {"role": "assistant", "content": words}]
    ids, mask = render_conversation(tokenizer, messages)
    assert said(tokenizer, ids, mask)[0] in (f"{words}<|im_end|>", words)


def test_a_turn_that_no_special_token_ends(own):
    tokenizer = chatml(
        own,
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    )
    ids, mask = render_conversation(tokenizer, CHAT[1:3])
    assert said(tokenizer, ids, mask) == ["It said yes.\n"]


def spaced(*before):
    """A tokenizer as sentencepiece's: a text alone begins with a space of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.BPE(unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Sequence([*before, pre_tokenizers.Metaspace(prepend_scheme="first")])
    found.decoder = decoders.Metaspace(prepend_scheme="first")
    specials = ["<unk>", "<s>", "</s>"]
    found.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False))
    return with_template(PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<s>", eos_token="</s>"))


def test_a_tokenizer_that_puts_a_space_before_a_text():
    from tokenizers.pre_tokenizers import Split

    tokenizer = spaced(Split("\n", "isolated"))  # a line break is a token, as in Llama's
    ids, mask = agree(tokenizer, CHAT[1:3])
    assert [text.strip() for text in said(tokenizer, ids, mask)] == ["It said yes.</s>"]


def test_a_tokenizer_that_joins_prompt_and_answer_is_refused_in_one_line():
    with pytest.raises(GPTError, match="joins the end of the prompt and the beginning of an answer") as error:
        render_conversation(spaced(), CHAT[1:3])
    assert "\n" not in str(error.value)


def test_marks_and_prefixes_agree(own):
    plain = [m | {"content": m["content"].strip()} for m in CHAT]
    with_marks, without = chatml(own, CHATML), chatml(own, SMOL)
    assert render_conversation(with_marks, plain) == render_conversation(without, plain)


def test_marks_that_leave_out_the_end_of_turn_are_completed(own):
    short = CHATML.replace(
        "message['content'] + '<|im_end|>' }}{% endgeneration %}",
        "message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    assert short != CHATML
    assert render_conversation(chatml(own, short), CHAT) == render_conversation(chatml(own, CHATML), CHAT)


def test_an_answer_that_would_join_the_prompt_is_cut_where_the_prompt_ends(own):
    # "\n\nIt" after "assistant\n" would make one token of the newlines; inference sends the first alone.
    tokenizer = chatml(own, CHATML)
    messages = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "\n\nIt said"}]
    joined = tokenizer("assistant\n\n\nIt", add_special_tokens=False).input_ids
    apart = tokenizer("assistant\n", add_special_tokens=False).input_ids
    assert joined[: len(apart)] != apart  # else this tests nothing
    ids, mask = agree(tokenizer, messages)
    assert said(tokenizer, ids, mask) == ["\n\nIt said<|im_end|>"]


def test_train_on_all(own):
    ids, mask = render_conversation(own, CHAT, "all")
    assert ids == render_conversation(own, CHAT)[0] and all(mask)
    with pytest.raises(GPTError, match="--train-on is assistant or all, not 'user'"):
        render_conversation(own, CHAT, "user")


def test_a_foreign_base_gets_a_template_of_its_own_tokens(foreign):
    chat = with_template(foreign)
    assert foreign.chat_template is None  # the base's own tokenizer stays as it is
    assert len(chat) == len(foreign)  # no token was added
    ids, mask = agree(chat, CHAT)
    assert said(chat, ids, mask) == ["It said yes.<|endoftext|>", "  It said no!\n<|endoftext|>"]
    assert end_of_turn(chat) == chat.eos_token_id


def test_a_base_that_knows_chatml_is_given_chatml(own):
    base = chatml(own, None)
    spec = base.backend_tokenizer.to_str().replace("<|user|>", "<other>")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    base = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(spec), eos_token="<|endoftext|>")
    assert with_template(base).chat_template == CHATML


def test_a_template_of_its_own_is_kept(own):
    tokenizer = chatml(own, SMOL)
    assert with_template(tokenizer) is tokenizer
    assert with_template(own) is own and own.chat_template == OWN


def test_no_end_of_text_no_template(foreign):
    tokenizer = copy.deepcopy(foreign)
    tokenizer.eos_token = None
    with pytest.raises(GPTError, match="no end-of-text token"):
        with_template(tokenizer)


def test_characters():
    tokenizer = with_template(train_char(TEXT))
    ids, mask = agree(tokenizer, CHAT)
    assert said(tokenizer, ids, mask) == ["It said yes.<|end|>", "  It said no!\n<|end|>"]


def test_a_template_that_rewrites_earlier_answers_is_refused_in_one_line(own):
    # As reasoning models do: only the last answer keeps what stood before it.
    rewriting = SMOL.replace(
        "message['content'] +",
        "('<think>' if loop.last and message['role'] == 'assistant' else '') + message['content'] +",
    )
    tokenizer = chatml(own, rewriting)
    one = CHAT[1:3]
    with pytest.raises(GPTError, match="writes an answer differently") as error:
        render_conversation(tokenizer, CHAT)
    assert "\n" not in str(error.value)
    assert said(tokenizer, *render_conversation(tokenizer, one)) == ["<think>It said yes.<|im_end|>"]
    assert all(render_conversation(tokenizer, CHAT, "all")[1])


def test_a_template_that_refuses_says_why(own):
    tokenizer = chatml(own, "{{ raise_exception('no system prompts here') }}")
    with pytest.raises(GPTError, match="refuses this conversation: no system prompts here"):
        render_conversation(tokenizer, CHAT)


def test_many_at_once_are_the_same(own):
    many = [CHAT, CHAT[1:3], CHAT[:3]]
    assert render_conversations(own, many) == [render_conversation(own, c) for c in many]


def test_smollm2(smollm2):
    """The real template; the stand-in above has its shape."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2, local_files_only=True)
    plain = [m | {"content": m["content"].strip()} for m in CHAT]
    ids, mask = agree(tokenizer, plain[1:])
    assert said(tokenizer, ids, mask) == ["It said yes.<|im_end|>", "It said no!<|im_end|>"]
    agree(tokenizer, plain)


WEIGHED = [*CHAT[1:3], CHAT[3], {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize("template", [OWN, CHATML, SMOL])
def test_an_answer_of_weight_0_is_read_and_not_trained_on(own, template):
    tokenizer = chatml(own, template)
    end = "<|end|>" if template == OWN else "<|im_end|>"
    for first, second in ((0, 1), (1, 0)):
        weighed = [WEIGHED[0], WEIGHED[1] | {"weight": first}, WEIGHED[2], WEIGHED[3] | {"weight": second}]
        ids, mask = render_conversation(tokenizer, weighed)
        assert said(tokenizer, ids, mask) == [f"It said yes.{end}" if first else f"No.{end}"]
        assert ids == render_conversation(tokenizer, WEIGHED)[0], "the same tokens are read"
        every, others = render_conversation(tokenizer, weighed, "all")
        left = [token for token, trained in zip(every, others, strict=True) if not trained]
        assert every == ids and tokenizer.decode(left) == (f"No.{end}" if first else f"It said yes.{end}")
    assert all(render_conversation(tokenizer, WEIGHED, "all")[1])


def test_weights_under_marks_that_are_not_one_an_answer_are_refused(own):
    tokenizer = chatml(
        own, OWN.replace("{% generation %}", "{% generation %}{{ '' }}{% endgeneration %}{% generation %}")
    )
    ids, mask = render_conversation(tokenizer, WEIGHED)
    assert said(tokenizer, ids, mask) == ["It said yes.<|end|>", "No.<|end|>"]
    with pytest.raises(GPTError, match="marks 4 spans of 2 answers, so the one with weight 0 is unknown"):
        render_conversation(tokenizer, [WEIGHED[0], WEIGHED[1] | {"weight": 0}, *WEIGHED[2:]])


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
        },
    }
]
CALLS = [
    {"role": "user", "content": "What time is it?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}},
            {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": '{"time": "12:00"}'},
    {"role": "tool", "tool_call_id": "c2", "content": "13:00"},
    {"role": "assistant", "content": "Noon, or one."},
    {"role": "user", "content": "And there?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c3", "type": "function", "function": {"name": "clock", "arguments": {"zone": "PST"}}}],
    },
]
CALLING = (
    "{% if tools %}TOOLS{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}GEN{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>END"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = CALLING.replace("GEN", "{% generation %}").replace("END", "{% endgeneration %}")
UNMARKED = CALLING.replace("GEN", "").replace("END", "")


def call(zone):
    return f'<tool_call>{{"name": "clock", "arguments": {{"zone": "{zone}"}}}}</tool_call>'


@pytest.mark.parametrize("template", [MARKED, UNMARKED])
def test_calls_of_tools_are_learned_and_their_results_are_not(own, template):
    tokenizer = chatml(own, template)
    ids, mask = render_conversation(tokenizer, CALLS, tools=TOOLS)
    wanted = [f"I look.{call('UTC')}{call('CET')}<|im_end|>", "Noon, or one.<|im_end|>", f"{call('PST')}<|im_end|>"]
    assert said(tokenizer, ids, mask) == wanted
    asked = Question(CALLS[:4], tools=tuple(TOOLS))
    starts = [i for i in range(1, len(mask)) if mask[i] and not mask[i - 1]]
    assert tuple(ids[: starts[1]]) == render("m", tokenizer, asked).ids, "as inference asks, tools and results too"
    once = [*CALLS[:1], CALLS[1] | {"weight": 0}, *CALLS[2:]]
    assert said(tokenizer, *render_conversation(tokenizer, once, tools=TOOLS)) == wanted[1:]
    assert all(render_conversation(tokenizer, CALLS, "all", TOOLS)[1])


def test_marks_are_those_of_transformers(own):
    tokenizer = chatml(own, MARKED)
    ids, mask = render_conversation(tokenizer, CALLS, tools=TOOLS)
    theirs = tokenizer.apply_chat_template(CALLS, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True)
    assert theirs["input_ids"] == ids and [bool(m) for m in theirs["assistant_masks"]] == mask


@pytest.mark.parametrize(
    "name, marked", [("qwen2_5", True), ("qwen3", True), ("qwen2_5", False), ("qwen3_instruct_2507", False)]
)
def test_the_trained_tokens_of_tool_calls_are_those_of_trl(own, name, marked):
    """TRL keeps the templates of models, and beside them ones with {% generation %} marks, which it trains with."""
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    theirs = chatml(own, (folder / f"{name}_training.jinja").read_text("utf-8"))
    tokenizer = theirs if marked else chatml(own, (folder / f"{name}.jinja").read_text("utf-8"))
    chat = [{"role": "system", "content": "You have a clock."}, *CALLS]
    found = theirs.apply_chat_template(chat, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True)
    wanted = said(theirs, found["input_ids"], found["assistant_masks"])
    ids, mask = render_conversation(tokenizer, chat, tools=TOOLS)
    assert ids == found["input_ids"] and len(wanted) == 3
    if marked:
        assert said(tokenizer, ids, mask) == wanted
    else:  # without marks the lines that open and close a turn are not trained on
        assert said(tokenizer, ids, mask) == [each.strip() for each in wanted]


@pytest.mark.parametrize("template", [OWN, CHATML, SMOL, UNMARKED.replace("c.function |", "c.id |")])
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_a_template_that_knows_no_tools_is_told_of(own, template, train_on):
    tokenizer = chatml(own, template)
    for messages, tools in ((CALLS, TOOLS), (CALLS, None), (CALLS[:1] + CALLS[4:5], TOOLS)):
        if template.startswith("{% if tools %}") and messages is not CALLS:
            continue  # it does write the tools, but not the calls
        with pytest.raises(GPTError, match=r"does not write tools and tool calls: .*--bad-rows skip") as error:
            render_conversation(tokenizer, messages, train_on, tools)
        assert "\n" not in str(error.value)
    assert render_conversation(tokenizer, CALLS[:1] + CALLS[4:5], train_on)


@pytest.mark.parametrize("key", REASONING)
@pytest.mark.parametrize("name", ["qwen3", "gptoss"])
def test_what_was_thought_before_an_answer_is_trained_with_it(own, tmp_path, name, key):
    """By the templates that write it; TRL's have the marks of what is trained."""
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    theirs = chatml(own, (folder / f"{name}_training.jinja").read_text("utf-8"))
    chat = [CHAT[1], CHAT[2] | {key: "A hen was there, so yes."}]
    (read,) = conversations.read("$chats", {"chats": [{"messages": chat}]})
    found = theirs.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    wanted = said(theirs, found["input_ids"], found["assistant_masks"])
    assert "A hen was there" in "".join(wanted)
    ids, mask = render_conversation(theirs, read.messages)
    assert ids == found["input_ids"] and said(theirs, ids, mask) == wanted
    assert reasoning_written(theirs) == set(REASONING) and reasoning_written(own) == frozenset()
