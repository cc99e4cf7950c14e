"""Tool calls in a model's own form, learned from its chat template; and as servers stream them."""

import copy
from types import SimpleNamespace

import pytest

from jupyter_gpt.data.render import Question, render, render_remote
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.remote_answer import Answers
from jupyter_gpt.inference.remote_errors import Garbage
from jupyter_gpt.inference.tool_calls import Form, NoToolCalls, form_of, read_calls, sendable
from jupyter_gpt.prompting.tools.calculator import calculator

CALLING = (
    "{% if tools %}TOOLS:{% for t in tools %}{{ t | tojson }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": {{ c.function.name | tojson }}, "ARGUMENTS": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LISTED = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}]{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CODE = CALLING.replace(
    '{"name": {{ c.function.name | tojson }}, "ARGUMENTS": {{ c.function.arguments | tojson }}}',
    "{{ c.function.name }}({{ c.function.arguments }})",
)


@pytest.fixture
def model(gpt, tiny_model):
    return tiny_model(gpt, "chat", chat=True, context=2048)


def with_template(tokenizer, template):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_the_form_is_learned_from_the_template(model):
    tokenizer = model.tokenizer
    assert form_of(tokenizer) is None  # heeds no tools
    form = form_of(with_template(tokenizer, CALLING.replace("ARGUMENTS", "parameters")))
    assert (form.before, form.after, form.name, form.arguments) == (
        "<tool_call>\n",
        "\n</tool_call>",
        "name",
        "parameters",
    )
    listed = form_of(with_template(tokenizer, LISTED))
    assert listed.before == "[TOOL_CALLS] [" and listed.after == "]"
    assert form_of(with_template(tokenizer, CODE)) is None  # calls that are no JSON
    assert form_of(with_template(tokenizer, "{{ raise_exception('no') }}")) is None
    assert form_of(with_template(tokenizer, None)) is None


def test_calls_are_read_in_that_form():
    form = Form("<tool_call>\n", "\n</tool_call>", "name", "arguments")
    one = '<tool_call>\n{"name": "a", "arguments": {"x": [1]}}\n</tool_call>'
    two = '<tool_call>{"name": "b", "arguments": {}}</tool_call>'
    assert form.read("Just words {} here") == ("Just words {} here", [])
    assert form.read(f"I look. {one}\n{two}") == (
        "I look.",
        [{"name": "a", "arguments": {"x": [1]}}, {"name": "b", "arguments": {}}],
    )
    for broken in ("<tool_call>\n{", "<tool_call>{}", '<tool_call>{"name": 3, "arguments": {}}', f"{one}<tool_call>x"):
        with pytest.raises(ValueError, match="the tool call"):
            form.read(broken)
    bare = Form("", "", "name", "parameters")
    assert bare.read('{"name": "a", "parameters": {}}') == ("", [{"name": "a", "arguments": {}}])
    assert bare.read("The answer is {7}.") == ("The answer is {7}.", [])
    listed = Form("[TOOL_CALLS] [", "]", "name", "arguments")
    assert len(listed.read('[TOOL_CALLS] [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]')[1]) == 2


def test_tools_and_results_stand_in_the_prompt(model):
    tokenizer = with_template(model.tokenizer, CALLING.replace("ARGUMENTS", "arguments"))
    tools = (calculator().as_dict(),)
    call = {"id": "c0", "type": "function", "function": {"name": "calculator", "arguments": {"expression": "1+1"}}}
    turns = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c0", "name": "calculator"},
    ]
    prompt = render("chat", tokenizer, Question(turns, tools=tools))
    assert prompt.text.startswith('TOOLS:{"type": "function", "function": {"name": "calculator"')
    assert '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1+1"}}\n</tool_call><|end|>' in prompt.text
    assert prompt.text.endswith("<|tool|>2<|end|><|assistant|>")
    far = render_remote("far", True, Question(turns, tools=tools))
    assert '"tools"' in far.text and '"calculator"' in far.text


def test_the_calls_of_a_completion(model):
    tokenizer = with_template(model.tokenizer, CALLING.replace("ARGUMENTS", "arguments"))

    def completion(text):
        return Completion(text, tokens=tokenizer(text, add_special_tokens=False)["input_ids"], model="chat")

    good = completion('Hm. <tool_call>\n{"name": "a", "arguments": {}}\n</tool_call><|end|>')
    read_calls(good, tokenizer)
    assert (good.text, good.calls, good.broken_call) == ("Hm.", [{"name": "a", "arguments": {}}], "")
    bad = completion("<tool_call>\nno JSON\n</tool_call>")
    read_calls(bad, tokenizer)
    assert bad.calls == [] and "not JSON" in bad.broken_call
    words = completion("Just words.")
    read_calls(words, tokenizer)
    assert (words.text, words.calls) == ("Just words.", [])
    with pytest.raises(NoToolCalls, match="the chat template of chat"):
        read_calls(words, model.tokenizer)


def piece(number, name=None, arguments="", id=None):
    return {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [{"index": number, "id": id, "function": {"name": name, "arguments": arguments}}]
                },
            }
        ]
    }


def test_calls_come_in_pieces():
    answers = Answers()
    for chunk in (
        piece(0, "weather", "", "c1"),
        piece(0, None, '{"city": '),
        piece(1, "clock", "{}", "c2"),
        piece(0, None, '"Ulm"}'),
    ):
        answers.add(chunk)
    answers.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    answers.check()
    assert answers.samples[0].tool_calls == [
        {"name": "weather", "arguments": '{"city": "Ulm"}', "id": "c1"},
        {"name": "clock", "arguments": "{}", "id": "c2"},
    ]
    assert answers.samples[0].finish == "stop"
    with pytest.raises(Garbage):
        answers.add({"choices": [{"index": 0, "delta": {"tool_calls": ["no"]}}]})


def test_arguments_are_sent_as_text():
    call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": {"x": "é"}}}
    sent = sendable({"role": "assistant", "content": "", "tool_calls": [call]})
    assert sent["tool_calls"][0]["function"]["arguments"] == '{"x": "é"}'
    assert call["function"]["arguments"] == {"x": "é"}  # ours is as it was
    plain = {"role": "user", "content": "x"}
    assert sendable(plain) is plain


def test_a_request_with_tools_and_a_server_that_takes_none():
    import httpx
    import openai

    from jupyter_gpt.inference.completion import Sampling
    from jupyter_gpt.inference.remote import opened, request

    endpoint = SimpleNamespace(name="far", model="m", chat=True)
    tools = [calculator().as_dict()]
    body = request(endpoint, {"messages": [{"role": "user", "content": "x"}], "tools": tools}, Sampling())
    assert body["tools"] == tools
    assert body["messages"] == [{"role": "user", "content": "x"}]
    answer = httpx.Response(400, request=httpx.Request("POST", "http://far"))

    def create(**_):
        raise openai.BadRequestError("tools is not supported here", response=answer, body=None)

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    with pytest.raises(NoToolCalls, match="far takes no tool calls"):
        opened(endpoint, client, body, {})
