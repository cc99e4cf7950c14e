"""Reading conversations: the field's formats told apart, and every mistake told in one line with its place."""

import json
from itertools import islice

import pytest

from helpers.errors import fail
from jupyter_gpt.data import conversations as chats
from jupyter_gpt.data import files, hub
from jupyter_gpt.data.conversations import Reading, check, parse, read
from jupyter_gpt.errors import GPTError

ASKED = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}],
}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
SAME = {
    "messages": {"messages": ASKED},
    "prompt-completion": {"prompt": "Who?", "completion": "Me."},
    "alpaca": {"instruction": "Who?", "input": "", "output": "Me."},
    "sharegpt": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]},
}


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return str(path)


def messages(source, variables=None, **more):
    return [said.messages for said in read(source, variables, **more)]


def refusal(source, variables=None, **more):
    return fail(lambda: list(read(source, variables, **more)))


@pytest.mark.parametrize("form", SAME)
def test_every_form_says_the_same(tmp_path, form):
    reading = Reading()
    path = lines(tmp_path / "a.jsonl", SAME[form], SAME[form])
    found = list(read(path, reading=reading))
    assert [said.messages for said in found] == [ASKED, ASKED] and reading.form == form
    assert found[1].where == f"{path}, line 2"


def test_rarer_spellings(tmp_path):
    rows = {
        "a.jsonl": {"prompt": [ASKED[0]], "completion": [ASKED[1]]},
        "b.jsonl": {"question": "Who?", "answer": "Me."},
        "c.jsonl": {"instruction": "Who?", "response": "Me."},
        "d.jsonl": ASKED,
        "e.jsonl": {"messages": [m | {"content": [{"type": "text", "text": m["content"]}]} for m in ASKED]},
        "f.jsonl": {"prompt": "Who?", "response": "Me.", "extra": 1},
    }
    for name, row in rows.items():
        assert messages(lines(tmp_path / name, row)) == [ASKED]


def test_alpaca_puts_the_input_under_the_instruction(tmp_path):
    row = {"instruction": "Translate.", "input": "chat", "output": "cat"}
    assert messages(lines(tmp_path / "a.jsonl", row))[0][0]["content"] == "Translate.\n\nchat"


def test_system_prompts(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    for row in (
        {"messages": [system, *ASKED]},
        SAME["sharegpt"] | {"system": "Be brief."},
        SAME["alpaca"] | {"system": "Be brief."},
    ):
        assert messages(lines(tmp_path / "a.jsonl", row)) == [[system, *ASKED]]


def test_rows_are_read_one_by_one(tmp_path, monkeypatch):
    """A list, a table and turns, whose ends cannot be read: the rows before them come all the same."""
    monkeypatch.setattr(files, "CHUNK", 1 << 12)
    row = {"messages": [ASKED[0], ASKED[1] | {"content": 'Me, or\tyou: \u00e9 ["x"].'}]}
    listed = json.dumps([row] * 2000, indent=1)
    texts = {
        "list.json": listed[:-1] + "x",
        "flat.json": json.dumps([row] * 2000)[:-1] + "x",
        "table.csv": "prompt,completion\r\n" + '"Who,\r\n?",Me\n' * 2000 + '"x\n',
        "turns.txt": "user: Who?\nassistant: Me.\n---\n" * 2000 + "x",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        rows = read(str(tmp_path / name))
        given = list(islice(rows, 2000))
        assert len(given) == 2000 and len({conversation.where for conversation in given}) in (1, 2000)
        with pytest.raises(GPTError):
            next(rows)
    assert refusal(str(tmp_path / "list.json")).endswith(
        f"line {listed.count(chr(10)) + 1} is not JSON: Expecting ',' delimiter at column 1"
    )
    assert refusal(str(tmp_path / "flat.json")).endswith(f"at column {len(texts['flat.json'])}")


def test_json_lists_objects_and_lines_under_either_name(tmp_path):
    row = SAME["messages"]
    texts = {
        "list.json": json.dumps([row, row], indent=1),
        "list.jsonl": json.dumps([row, row], indent=1),
        "inside.json": json.dumps({"version": 1, "data": [row, row]}),
        "lines.json": f"{json.dumps(row)}\n{json.dumps(row)}\n",
        "compact.json": json.dumps([row, row]),
        "compact.jsonl": json.dumps([row, row]),
        "pairs.jsonl": json.dumps([["Who?", "Me."]] * 2),
        "bom.jsonl": f"\ufeff{json.dumps(row)}\n\n{json.dumps(row)}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
        assert messages(str(tmp_path / name)) == [ASKED, ASKED], name
    (tmp_path / "turns.jsonl").write_text(json.dumps(ASKED))
    assert messages(str(tmp_path / "turns.jsonl")) == [ASKED]
    assert [c.where[-7:] for c in read(str(tmp_path / "list.json"))] == [" line 2", "line 14"]
    for name in ("one.json", "one.jsonl"):
        (tmp_path / name).write_text(json.dumps(row, indent=1))
        assert messages(str(tmp_path / name)) == [ASKED]
        (tmp_path / name).write_text("\n".join([json.dumps(row, indent=1)] * 2))
        assert messages(str(tmp_path / name)) == [ASKED, ASKED], "several objects"


def test_tables(tmp_path):
    for mark in ",;\t":
        (tmp_path / "a.csv").write_text(
            f'prompt{mark}completion\nWho?{mark}"Me,\nor ""you"";\t!"\nWho?{mark}Me.\n', "utf-8"
        )
        assert messages(str(tmp_path / "a.csv"))[0][1]["content"] == 'Me,\nor "you";\t!'
        assert [c.where[-6:] for c in read(str(tmp_path / "a.csv"))] == ["line 2", "line 4"]
    (tmp_path / "b.csv").write_text("messages\n" + '"' + json.dumps(ASKED).replace('"', '""') + '"\n')
    assert messages(str(tmp_path / "b.csv")) == [ASKED]
    (tmp_path / "c.csv").write_text("prompt,completion\nWho?,Me, or you\n")
    assert "c.csv, line 2 has 3 cells, the header 2: put a text that contains ',' in double quotes" in refusal(
        str(tmp_path / "c.csv")
    )
    (tmp_path / "d.csv").write_text('prompt,completion\nWho?,"Me\n')
    assert "is not CSV" in refusal(str(tmp_path / "d.csv"))


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([SAME["messages"]] * 2), tmp_path / "a.parquet")
    assert messages(str(tmp_path / "a.parquet")) == [ASKED, ASKED]
    (tmp_path / "b.parquet").write_bytes(b"not parquet")
    assert "b.parquet is not a parquet file" in refusal(str(tmp_path / "b.parquet"))


def test_variables():
    import pandas as pd

    frame = pd.DataFrame({"instruction": ["Who?", "Who?"], "input": [None, float("nan")], "output": ["Me.", "Me."]})
    for value in (
        [SAME["alpaca"]] * 2,
        [("Who?", "Me.")] * 2,
        [ASKED] * 2,
        frame,
        pd.DataFrame([SAME["messages"]] * 2),
    ):
        assert messages("$it", {"it": value}) == [ASKED, ASKED]
    import numpy as np

    parquet = pd.DataFrame({"messages": [np.array(ASKED, object)], "other": [1]})  # as pandas reads lists from a file
    assert messages("$it", {"it": parquet}) == [ASKED]
    sums = pd.DataFrame({"question": ["2 + 2?"], "answer": [4]})
    assert messages("$it", {"it": sums})[0][1]["content"] == "4"
    assert refusal("$it", {"it": [{"prompt": "Who?", "completion": True}]}).endswith("is a text, not a bool")
    assert refusal("$it", {"it": [{"prompt": "Who?", "completion": None}]}) == "item 0 of $it has an empty answer"
    assert refusal("$it", {"its": []}) == "there is no variable $it in this notebook (did you mean $its?)"
    assert "can be read only once" in refusal("$it", {"it": iter([ASKED])})
    assert refusal("$it", {"it": 3}).startswith("$it is a int: expected a DataFrame or a list of rows")
    assert "item 1 of $it is not a conversation: it is a int" in refusal("$it", {"it": [("a", "b"), 3]})
    with pytest.raises(GPTError, match="it has no conversation in it"):
        check("$it", {"it": []})


CELL = """user: Who?
assistant: Me.

---

system: Be brief.
user: And
  you?
assistant: You: no.
user: Oh.
assistant: Yes.
"""


def test_the_cell_itself():
    assert parse(CELL) == CELL
    found = list(read(chats.CELL, cell=CELL))
    assert found[0].messages == ASKED and found[0].where == "the cell, line 1"
    assert [m["role"] for m in found[1].messages] == ["system", "user", "assistant", "user", "assistant"]
    assert found[1].messages[1]["content"] == "And\n  you?" and found[1].where == "the cell, line 6"
    assert found[1].messages[2]["content"] == "You: no."


@pytest.mark.parametrize(
    "mark",
    [
        "User: {}\nAssistant: {}",
        "**Human:** {}\n\n**AI**: {}",
        "## User\n\n{}\n\n## ChatGPT:\n{}",
        "HUMAN: {}\nBot: {}",
    ],
)
def test_transcripts_are_read(tmp_path, mark):
    text = "\n---\n".join([mark.format("Who?", "user: me,\nthe Assistant")] * 2)
    (tmp_path / "chat.txt").write_text(text)
    for found in (read(chats.CELL, cell=text), read(str(tmp_path / "chat.txt"))):
        asked, answer = next(found).messages
        assert asked == {"role": "user", "content": "Who?"} and parse(text) == text
        assert answer == {"role": "assistant", "content": "user: me,\nthe Assistant"}


def test_a_mixture_is_told_from_conversations():
    assert parse("stories-qa: 1\n./mine.jsonl: 2\n") == {"stories-qa": 1.0, "./mine.jsonl": 2.0}
    with pytest.raises(GPTError, match="the cell begins with 'Hello there': a conversation begins with `user:`"):
        parse("Hello there\nuser: Who?\nassistant: Me.")
    with pytest.raises(GPTError, match="stories has no weight"):
        parse("stories\nsums")
    with pytest.raises(GPTError, match=r"Person is 'Who\?', not a number.*or a conversation, in lines `user: …`"):
        parse("Person: Who?\nMe.")
    with pytest.raises(
        GPTError, match="the cell, line 4: a conversation begins with `user:` or `system:`, not with 'Hm'"
    ):
        parse("user: Who?\nassistant: Me.\n---\nHm\nuser: Oh.")


def test_turns_in_a_text_file(tmp_path):
    (tmp_path / "a.txt").write_text(CELL)
    assert messages(str(tmp_path / "a.txt"))[0] == ASKED


def test_a_mistake_on_line_37_is_told(tmp_path):
    row = json.dumps(SAME["messages"])
    good = [row] * 50
    bad = {
        row[:-1]: "line 37 is not JSON: Expecting",
        "[1, 2]": "line 37 is not a conversation: it is a list; expected messages, prompt and completion",
        '{"text": "x"}': "line 37 is not a conversation: it has the fields text; expected",
        json.dumps(SAME["alpaca"]): "line 37 is in the format alpaca, the rows before it in messages: use one per file",
        json.dumps({"messages": ASKED[:1]}): "line 37 has no turn of the assistant, so nothing to train on",
        json.dumps(
            {"messages": ASKED[::-1]}
        ): "line 37 has its roles out of order: turn 1 is the assistant's, expected the user's",
        json.dumps({"messages": [*ASKED, ASKED[1]]}): "line 37 has its roles out of order: turn 3 is the assistant's",
        json.dumps({"messages": [ASKED[0], ASKED[1] | {"content": " \n"}]}): "line 37 has an empty answer",
        json.dumps({"messages": [ASKED[0] | {"content": ""}, ASKED[1]]}): "line 37 has an empty question",
        json.dumps(
            {"messages": [ASKED[0], {"role": "critic", "content": "x"}]}
        ): "line 37 has a turn with the role 'critic'; roles are system, user, assistant and tool",
        json.dumps(
            {"messages": [ASKED[0], {"role": "tool", "content": "x"}, ASKED[1]]}
        ): "line 37 has its roles out of order: turn 2 is the tool's, expected the assistant's",
        json.dumps(
            {"messages": [ASKED[0], CALLED, ASKED[1]]}
        ): "line 37 has its roles out of order: turn 3 is the assistant's, expected the tool's",
        json.dumps(
            {"messages": [ASKED[0], CALLED, TOLD, ASKED[0]]}
        ): "line 37 has its roles out of order: turn 4 is the user's, expected the tool's or the assistant's",
        json.dumps(
            {"messages": [ASKED[0], ASKED[1] | {"weight": 0}]}
        ): "line 37 has weight 0 in all turns of the assistant, so nothing to train on",
        json.dumps(
            {"messages": [ASKED[0], ASKED[1] | {"weight": 0.5}]}
        ): "line 37 has a turn of weight 0.5: 0 is not trained on, 1 is",
        json.dumps(
            {"messages": [ASKED[0], ASKED[1] | {"tool_calls": [{"name": "f"}]}]}
        ): 'line 37 has a tool call that is not {"function": {"name": …, "arguments": …}}',
        json.dumps(
            {"messages": [ASKED[0], ASKED[1] | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}
        ): "line 37: the arguments of the call of f are not JSON",
        json.dumps({"messages": ASKED, "tools": [{"name": "f"}]}): "line 37: its tools are a list of",
        json.dumps({"messages": [{"content": "x"}]}): "line 37 has a turn without a role",
        json.dumps(
            {"messages": [ASKED[0], ASKED[1] | {"content": None}]}
        ): "line 37: the content of a turn is a text, not None",
        json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "image", "text": None}]}, ASKED[1]]}
        ): "line 37 has a turn with an image: models are trained on text alone here",
        json.dumps(
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}, ASKED[1]]}
        ): "line 37 has a turn with a sound: models are trained on text alone here",
        json.dumps(
            {"messages": ASKED, "images": ["a.png"]}
        ): "line 37 has images beside its text: models are trained on text alone here",
    }
    for line, said in bad.items():
        path = lines(tmp_path / "a.jsonl", *good[:36], line, *good[37:])
        assert f"{path}, {said}" in refusal(path)


def test_a_mistake_in_a_json_list_is_told_by_its_line(tmp_path):
    text = "[\n" + ",\n".join([json.dumps(SAME["messages"])] * 50) + "\n]"
    broken = text.split("\n")
    broken[36] = broken[36].replace('"role"', "role", 1)
    (tmp_path / "a.json").write_text("\n".join(broken))
    assert "a.json, line 37 is not JSON: Expecting property name" in refusal(str(tmp_path / "a.json"))
    mixed = text.split("\n")
    mixed[36] = json.dumps(SAME["alpaca"]) + ","
    (tmp_path / "a.json").write_text("\n".join(mixed))
    assert "a.json, line 37 is in the format alpaca, the rows before it in messages" in refusal(
        str(tmp_path / "a.json")
    )


def test_an_encoding_that_changes_midway_is_told(tmp_path):
    row = json.dumps({"prompt": "Où?", "completion": "Là."}, ensure_ascii=False) + "\n"
    (tmp_path / "a.jsonl").write_bytes(row.encode() * 36 + row.encode("latin-1"))
    assert refusal(str(tmp_path / "a.jsonl")).endswith(
        "a.jsonl, line 37 is not UTF-8: byte 0xF9 at column 14; "
        "the text before it is UTF-8: save the whole file as UTF-8"
    )
    (tmp_path / "d.jsonl").write_bytes(row.encode() * 36 + row.encode("utf-16-le"))
    assert "d.jsonl, line 37 has a zero byte" in refusal(str(tmp_path / "d.jsonl"))
    halved = lines(tmp_path / "e.jsonl", *[SAME["alpaca"]] * 36, r'{"instruction": "Who?", "output": "Me \ud83d"}')
    assert refusal(halved) == (
        f"{halved}, line 37 has half a character: U+D83D, a lone surrogate, at character 3 of a text"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_another_encoding_is_told_how_to_be_converted(tmp_path, monkeypatch, encoding):
    """By a line of Python that does it."""
    monkeypatch.chdir(tmp_path)
    text = "prompt,completion\nO\xf9?,L\xe0 \x81." if encoding == "latin-1" else "prompt,completion\nO\xf9?,L\xe0."
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    said = refusal("a.csv")
    assert said.startswith(
        "a.csv is UTF-16" if "16" in encoding else "a.csv, line 2 is not UTF-8: byte 0xF9 at column 2"
    )
    exec(said[said.index("`") + 1 : -1], {})
    assert messages("a-utf8.csv")[0][0]["content"] == "O\xf9?"


def test_an_unanswered_last_turn_is_left_out_and_counted(tmp_path):
    reading = Reading()
    path = lines(tmp_path / "a.jsonl", {"messages": [*ASKED, {"role": "user", "content": "Why?"}]})
    assert [said.messages for said in read(path, reading=reading)] == [ASKED]
    assert reading.unanswered == 1


def test_globs_and_folders_may_mix_forms_between_files(tmp_path):
    reading = Reading()
    lines(tmp_path / "a.jsonl", SAME["messages"])
    lines(tmp_path / "b.jsonl", SAME["alpaca"])
    assert len(list(read(str(tmp_path / "*.jsonl"), reading=reading))) == len(messages(str(tmp_path))) == 2
    assert reading.form == "messages + alpaca"


def test_what_is_missing_or_misspelled(tmp_path):
    assert refusal("stories-qas") == "there is no source 'stories-qas' (did you mean stories-qa?)"
    lines(tmp_path / "mine.jsonl", SAME["messages"])
    assert "did you mean mine.jsonl?" in refusal(str(tmp_path / "mine.jsnl"))
    (tmp_path / "a.pdf").write_text("x")
    assert "is not a file of text: conversations are .jsonl" in refusal(str(tmp_path / "a.pdf"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(GPTError, match=r"empty.jsonl has no conversation in it"):
        check(str(tmp_path / "empty.jsonl"))


def test_the_hub_cannot_be_mended_so_it_is_counted(monkeypatch):
    rows = [SAME["alpaca"], SAME["alpaca"] | {"output": ""}, SAME["alpaca"], {"text": "x"}]
    monkeypatch.setattr(hub, "_dataset", lambda source, name, config, split: rows)
    reading = Reading()
    found = list(read("hf:o/n", reading=reading))
    assert [said.messages for said in found] == [ASKED, ASKED] and reading.form == "alpaca"
    assert reading.refused == 2 and reading.first_refused == "row 1 of hf:o/n has an empty answer"
    monkeypatch.setattr(hub, "_dataset", lambda source, name, config, split: [{"chat": ASKED, "id": 3}])
    assert messages("hf:o/n:chat") == [ASKED]
    assert "no column chats; it has chat, id" in refusal("hf:o/n:chats")


def test_the_split_keeps_a_question_on_one_side():
    other = [ASKED[0], {"role": "assistant", "content": "You."}]
    a, b, c = read("$it", {"it": [ASKED, other, [{"role": "user", "content": "Why?"}, ASKED[1]]]})
    assert a.key == b.key != c.key


def test_a_developer_speaks_as_the_system(tmp_path):
    row = {"messages": [{"role": "developer", "content": "Be brief."}, *ASKED]}
    assert messages(lines(tmp_path / "a.jsonl", row)) == [[{"role": "system", "content": "Be brief."}, *ASKED]]


def test_turns_in_the_cells_of_a_table_are_json(tmp_path):
    """Messages on either side of a prompt and its completion, as a table has them."""
    row = {"prompt": json.dumps(ASKED[:1]), "completion": json.dumps(ASKED[1:], indent=1)}
    assert messages("$it", {"it": [row]}) == [ASKED]
    file = tmp_path / "a.csv"
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame([row]).to_csv(file, index=False)
    assert messages(str(file)) == [ASKED]
    pandas.DataFrame([{"prompt": ASKED[:1], "completion": "Me."}]).to_csv(file, index=False)  # as Python spells it
    assert refusal(str(file)).startswith(f"{file}, line 2: its turns are not JSON")
    data = '[{"value": 3, "role": "admin"}]'
    assert messages("$it", {"it": [("[{1}]", data)]})[0] == [
        ASKED[0] | {"content": "[{1}]"},
        ASKED[1] | {"content": data},
    ]


def test_weights_of_turns_are_kept(tmp_path):
    turns = [ASKED[0], ASKED[1] | {"weight": 0}, ASKED[0] | {"weight": 0}, ASKED[1] | {"weight": 1}]
    assert messages(lines(tmp_path / "a.jsonl", {"messages": turns})) == [[ASKED[0], ASKED[1] | {"weight": 0}, *ASKED]]
    frame = [{"messages": [ASKED[0] | {"weight": None}, ASKED[1] | {"weight": float("nan"), "tool_calls": None}]}]
    assert messages("$it", {"it": frame}) == [ASKED]


def test_tool_calls_and_their_results(tmp_path):
    other = {"function": {"name": "date", "arguments": {}}}
    twice = CALLED | {"tool_calls": [other, *CALLED["tool_calls"]]}
    row = {
        "messages": [ASKED[0], twice, TOLD, {"role": "tool", "content": "May"}, ASKED[1], ASKED[0], CALLED, TOLD],
        "tools": TOOLS,
    }
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    called = CALLED | {"content": "", "tool_calls": [call]}
    both = called | {"tool_calls": [{"id": "call00000", "type": "function"} | other, call]}
    told = [TOLD | {"name": "clock"}, {"role": "tool", "content": "May", "tool_call_id": "call00000", "name": "date"}]
    reading = Reading()
    (found,) = read(lines(tmp_path / "a.jsonl", row), reading=reading)
    assert found.messages == [ASKED[0], both, *told, ASKED[1], ASKED[0], called] and found.tools == TOOLS
    assert reading.unanswered == 1, "what a tool said last, and nobody answered"
    table = [{"messages": json.dumps(row["messages"]), "tools": json.dumps(TOOLS)}, {"messages": ASKED, "tools": None}]
    first, second = read("$it", {"it": table})
    assert first.messages == found.messages and first.tools == TOOLS and second.tools is None


@pytest.mark.parametrize("form", ["parquet", "table", "dataset", "hub"])
def test_tools_from_arrow_have_no_null_that_nobody_wrote(tmp_path, monkeypatch, form):
    pandas, parquet = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for name, kind, given in (("zone", "string", {"zone": "UTC"}), ("day", "integer", {"day": 3, "of": [{"a": "b"}]})):
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": given}}
        parameters = {"type": "object", "properties": {name: {"type": kind}}}
        tools = [{"type": "function", "function": {"name": "clock", "parameters": parameters}}]
        called = {"role": "assistant", "content": "", "tool_calls": [call]}
        rows.append({"messages": [ASKED[0], called, TOLD, ASKED[1]], "tools": tools})
    wanted = [(found.messages, found.tools) for found in read(lines(tmp_path / "a.jsonl", *rows))]
    assert "null" not in json.dumps(wanted)
    file, variables, source = str(tmp_path / "a.parquet"), {}, "$it"
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), file)
    if form == "parquet":
        source = file
    elif form == "table":
        variables = {"it": pandas.read_parquet(file)}
    else:
        dataset = pytest.importorskip("datasets").Dataset.from_list(rows)
        variables, source = ({"it": dataset}, "$it") if form == "dataset" else ({}, "hf:o/n")
        monkeypatch.setattr(hub, "_dataset", lambda *_: dataset)
    assert [(found.messages, found.tools) for found in read(source, variables)] == wanted
    kept = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"zone": None}}}
    rows = [{"messages": [ASKED[0], ASKED[1] | {"tool_calls": [kept]}, TOLD, ASKED[1]]}]
    for own in (rows, pandas.DataFrame(rows)):
        (found,) = read("$it", {"it": own})
        assert found.messages[1]["tool_calls"] == [kept], "a null that somebody wrote stays"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "$it", chats.CELL])
def test_bad_rows_are_skipped_where_asked(tmp_path, name):
    texts = {
        "a.jsonl": "\n".join([json.dumps(SAME["messages"]), "{", '{"text": 1}', json.dumps(SAME["messages"])]),
        "a.csv": "prompt,completion\nWho?,Me.\nWho?,Me, or you.\nWho?,\nWho?,Me.\n",
        "a.txt": "user: Who?\nassistant: Me.\n---\nHm\n---\nuser: Who?\n---\nuser: Who?\nassistant: Me.",
    }
    cell = texts["a.txt"]
    source, variables = name, {"it": [("Who?", "Me."), 3, ("Who?", ""), ("Who?", "Me.")]}
    if name in texts:
        (tmp_path / name).write_text(texts[name])
        source = str(tmp_path / name)
    for rule in (None, "refuse"):
        assert refusal(source, variables, cell=cell, bad_rows=rule)
    reading = Reading()
    found = list(read(source, variables, reading=reading, cell=cell, bad_rows="skip"))
    assert [said.messages for said in found] == [ASKED, ASKED] and reading.refused == 2
    assert reading.first_refused == refusal(source, variables, cell=cell)
    if name == chats.CELL:
        assert parse(cell, "skip") == cell


def test_no_row_is_good(tmp_path):
    path = lines(tmp_path / "a.jsonl", "{", "[")
    with pytest.raises(
        GPTError, match=r"a.jsonl has no conversation to train on: .*a.jsonl, line 1 is not JSON"
    ) as error:
        check(path, bad_rows="skip")
    assert "\n" not in str(error.value)
    check(lines(tmp_path / "b.jsonl", "{", SAME["messages"]), bad_rows="skip")


def test_the_hub_is_refused_where_asked(monkeypatch):
    monkeypatch.setattr(hub, "_dataset", lambda source, name, config, split: [SAME["alpaca"], {"text": "x"}])
    assert refusal("hf:o/n", bad_rows="refuse").startswith("row 1 of hf:o/n is not a conversation")
