"""From a question to the exact prompt, for a base model and for one with a chat template."""

import pytest

from helpers.errors import fail
from jupyter_gpt.data.render import EXAMPLES, Question, end_of_turn, pairs_of, render, render_remote
from jupyter_gpt.data.tokenizer import train_bpe, train_char
from jupyter_gpt.errors import GPTError

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('no system here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PAIRS = (("1+1?", "2"), ("2+2?", "4"))


@pytest.fixture
def base():
    return train_bpe(["some words to merge, words upon words"] * 3, 290)


@pytest.fixture
def chat(base):
    base.chat_template = TEMPLATE
    return base


def spelled(tokenizer, prompt):
    return tokenizer.decode(prompt.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def test_a_base_model_gets_the_raw_document(base):
    prompt = render("b", base, Question("Once upon\na time "))
    assert prompt.text == "<|endoftext|>Once upon\na time " == spelled(base, prompt)
    assert (prompt.messages, prompt.stop, prompt.trim) == (None, (), False)
    assert render("b", base, Question("")).text == "<|endoftext|>"  # the beginning of any document
    assert render("b", base, Question("More.", earlier="So far.")).text == "<|endoftext|>So far.\nMore."
    assert render("b", base, Question("", earlier="So far.")).text == "<|endoftext|>So far."


def test_a_base_model_has_no_chat(base):
    with pytest.raises(GPTError, match=r"b is a base model and has no turns: .* --as-assistant"):
        render("b", base, Question([{"role": "user", "content": "Hi"}]))
    with pytest.raises(GPTError, match="no system prompt"):
        render("b", base, Question("Hi", system="Be brief"))


def test_a_chat_template_is_used(chat):
    prompt = render("c", chat, Question("Hi", system="Be brief", few_shot=PAIRS[:1]))
    said = "<|system|>Be brief<|end|><|user|>1+1?<|end|><|assistant|>2<|end|><|user|>Hi<|end|><|assistant|>"
    assert prompt.text == said == spelled(chat, prompt)
    assert chat.convert_tokens_to_ids("<|system|>") == prompt.ids[0]
    earlier = [*prompt.messages, {"role": "assistant", "content": "Yes"}]
    again = render("c", chat, Question("And?", earlier=earlier, few_shot=PAIRS[:1]))
    assert again.text == said + "Yes<|end|><|user|>And?<|end|><|assistant|>"  # system and examples stand there once


def test_words_put_in_the_mouth_of_the_assistant(chat, base):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    assert render("c", chat, Question(turns)).text == "<|user|>Hi<|end|><|assistant|>Well,"
    chat.chat_template = None
    assert render("b", base, Question(turns, as_assistant=True)).text.endswith("\n\nHuman: Hi\n\nAssistant: Well,")


def test_mistakes_in_a_chat(chat):
    with pytest.raises(GPTError, match="empty"):
        render("c", chat, Question(""))
    with pytest.raises(GPTError, match="two system prompts"):
        render(
            "c",
            chat,
            Question([{"role": "system", "content": "A"}, {"role": "user", "content": "x"}], system="B"),
        )
    chat.chat_template = "{{ raise_exception('only one turn') }}"
    with pytest.raises(GPTError, match="the chat template refuses this conversation: only one turn"):
        render("c", chat, Question("x"))


def test_a_conversation_that_a_base_model_continues(base):
    prompt = render("b", base, Question("Why?", as_assistant=True))
    assert prompt.text.startswith("<|endoftext|>The following is a conversation")
    assert prompt.text.endswith("\n\nHuman: Why?\n\nAssistant:")
    assert all(f"Human: {q}\n\nAssistant: {a}\n\n" in prompt.text for q, a in EXAMPLES)
    assert (prompt.stop, prompt.trim) == (("\nHuman:",), True)
    own = render("b", base, Question("Why?", as_assistant=True, few_shot=PAIRS, system="Two who reckon."))
    assert own.text == (
        "<|endoftext|>Two who reckon.\n\nHuman: 1+1?\n\nAssistant: 2\n\nHuman: 2+2?\n\nAssistant: 4\n\n"
        "Human: Why?\n\nAssistant:"
    )


def test_questions_and_answers(base):
    prompt = render("b", base, Question("3+3?", few_shot=PAIRS))
    assert prompt.text == "<|endoftext|>Q: 1+1?\nA: 2\n\nQ: 2+2?\nA: 4\n\nQ: 3+3?\nA:"
    assert (prompt.stop, prompt.trim) == (("\n",), True)
    assert render("b", base, Question("x", few_shot=(("a", "b\nc"),))).stop == ("\nQ:",)


@pytest.mark.parametrize("bad", ["text", 3, [], [("a",)], [("a", 1)], ["ab"], [("a", "b", "c")]])
def test_pairs_are_checked(bad):
    with pytest.raises(GPTError, match="few_shot is expected as"):
        pairs_of(bad)


def test_pairs_of_a_mapping():
    assert pairs_of({"1+1?": "2"}) == pairs_of([["1+1?", "2"]]) == PAIRS[:1]


def test_a_document_is_cut_from_the_front(base):
    text = " ".join(map(str, range(100)))
    prompt = render("b", base, Question(text), room=30)
    assert len(prompt.ids) == 30
    assert prompt.text.startswith("<|endoftext|>")
    assert text.endswith(prompt.text.removeprefix("<|endoftext|>"))
    whole = len(render("b", base, Question(text)).ids)
    assert prompt.notes == (f"{whole - 30} tokens were cut from the front of the prompt",)


def test_a_chat_loses_its_oldest_turns_and_never_its_system_prompt(chat):
    turns = [{"role": "system", "content": "S"}]
    turns += [{"role": role, "content": f"turn {n}"} for n in range(5) for role in ("user", "assistant")]
    prompt = render("c", chat, Question([*turns, {"role": "user", "content": "Z" * 20}]), room=50)
    assert len(prompt.ids) <= 50
    assert prompt.text.startswith("<|system|>S<|end|><|user|>turn ")
    assert prompt.text.endswith("Z<|end|><|assistant|>")
    short = render("c", chat, Question("Z" * 300), room=50)
    assert len(short.ids) <= 50
    assert short.text.startswith("<|user|>ZZ")
    with pytest.raises(GPTError, match="no room"):
        render("c", chat, Question("Hi", system="Z" * 300), room=50)


def test_unknown_characters_are_told():
    tokenizer = train_char(["abc"])
    assert render("b", tokenizer, Question("abcé")).notes == ("1 character of the prompt unknown to its tokenizer",)


def test_the_end_of_a_turn(chat):
    assert end_of_turn(chat) == chat.convert_tokens_to_ids("<|end|>")
    chat.chat_template = "{% for m in messages %}{{ m.content }}\n\n{% endfor %}"
    assert end_of_turn(chat) is None


def test_an_endpoint_lays_out_its_chat_itself():
    prompt = render_remote("far", True, Question("Hi", system="S"))
    assert prompt.messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    assert render_remote("far", False, Question("Once")).text == "Once"
    assert render_remote("far", False, Question("Why?", as_assistant=True)).stop == ("\nHuman:",)


@pytest.mark.parametrize("chat_template", [None, TEMPLATE])
def test_half_a_character_is_refused(base, chat_template):
    base.chat_template = chat_template
    assert "the prompt has half a character: U+D800" in fail(render, "m", base, Question("a \ud800"))
