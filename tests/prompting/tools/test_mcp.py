"""Tools of an MCP server, written with the SDK: called, approved, and one that hangs, dies or answers a picture."""

import sys

import pytest

from helpers.errors import fail
from helpers.stopping import interrupted_soon
from jupyter_gpt.prompting.ask import run
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.tools import mcp_server
from jupyter_gpt.prompting.tools.act import act, flatten, tools_of
from jupyter_gpt.prompting.tools.approval import Approval, Decision, Toolset
from jupyter_gpt.prompting.tools.call import call
from jupyter_gpt.stages.prompt_techniques import compose

SERVER = '''
import os, sys, time
from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

server = MCPServer("test")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int = 1) -> int:
    """Adds two numbers."""
    return a + b

@server.tool(name="file/write")
def write(text: str) -> str:
    """Writes a text."""
    return f"wrote {text} in {os.getpid()}"

@server.tool()
def wait() -> str:
    """Never answers."""
    time.sleep(60)

@server.tool()
def end() -> str:
    """Ends the server."""
    print("out of paper", file=sys.stderr, flush=True)
    os._exit(3)

@server.tool()
def refuse() -> str:
    """Refuses."""
    raise ToolError("no such city")

@server.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=b"0" * 300, format="png")

server.run("stdio")
'''


def sdk():
    return pytest.importorskip("mcp", reason="pip install 'jupyter_gpt[mcp]'")


@pytest.fixture
def address(tmp_path):
    """The server as `--tools` names it."""
    sdk()
    (tmp_path / "my server.py").write_text(SERVER)
    yield f"mcp:{sys.executable} '{tmp_path / 'my server.py'}'"
    mcp_server.close_all()


@pytest.fixture
def tools(address):
    return {tool.name: tool for tool in tools_of(address, {})}


def test_its_tools_have_their_schemas_and_say_whether_they_write(tools):
    assert set(tools) == {"add", "file_write", "wait", "end", "refuse", "picture"}
    assert tools["add"].signature() == "add(a: integer, b: integer = …)"
    assert tools["add"].description == "Adds two numbers."
    assert {name for name, tool in tools.items() if tool.writes} == {*tools} - {"add"}
    assert call(tools["add"], tools["add"].arguments('{"a": 3, "b": 4}')).text == "7"
    with pytest.raises(ValueError, match="a: 'x' is not of type 'integer'"):
        tools["add"].arguments({"a": "x"})
    with pytest.raises(ValueError, match="'a' is a required property"):
        tools["add"].arguments({})


def test_a_model_acts_with_them_and_each_call_is_approved_like_any_other(scripted, address):
    told = [f"Thought: now\nAction: file_write\nAction Input: {text}" for text in ("one", "two")]
    seen = []

    def person(tool, arguments, problem):
        seen.append((tool.name, arguments))
        return Decision(len(seen) > 1, {"text": "that"}, "by hand")

    ask = scripted([*told, "Thought: done\nFinal Answer: yes"])
    toolset = Toolset(tuple(tools_of(address, {})), Approval(person=person))
    options = Options(toolset=toolset)
    assert run(ask, compose(options), "Write it.", options).answer == "yes"
    assert seen == [("file_write", {"text": "one"}), ("file_write", {"text": "two"})]
    first, second = (node.text for node in ask.root.walk() if node.kind == "tool")
    assert first.startswith("Error: this call was by hand") and second.startswith("wrote that in ")


def test_nobody_is_there_to_approve(scripted, address):
    toolset = Toolset(tuple(tools_of(address, {})))
    assert "nobody is there to approve" in act(scripted([]), toolset, "file_write", {"text": "it"}).text
    assert act(scripted([]), toolset, "add", {"a": 1}).text == "2", "it only reads"


def test_what_goes_wrong_is_told_to_the_model(tools):
    refused = call(tools["refuse"], {})
    assert not refused.ok and "no such city" in refused.text and not refused.error
    assert call(tools["picture"], {}).text == "[image left out: image/png, 300 bytes]"


def test_one_that_dies_is_said_to_and_started_again(tools):
    before = call(tools["file_write"], {"text": "a"}).text
    ended = call(tools["end"], {})
    assert not ended.ok and "has ended: out of paper" in ended.text
    after = call(tools["file_write"], {"text": "a"})
    assert after.ok and after.text != before, "in another process"


def test_one_that_hangs_is_given_up_and_answers_later(tools, monkeypatch):
    monkeypatch.setattr(mcp_server, "CALLING", 0.5)
    late = call(tools["wait"], {})
    assert late.text == "Error: the server did not answer within 0.5 s" and late.seconds < 20


def test_an_interrupt_ends_the_waiting(tools):
    with pytest.raises(KeyboardInterrupt), interrupted_soon():
        call(tools["wait"], {})


def test_what_is_no_server_is_one_line(monkeypatch, tmp_path):
    sdk()
    assert "No such file" in fail(tools_of, "mcp:no-such-command --at all", {})
    (tmp_path / "broken.py").write_text("raise SystemExit('the licence has run out')")
    assert fail(tools_of, f"mcp:{sys.executable} {tmp_path / 'broken.py'}", {}).endswith(": the licence has run out")
    monkeypatch.setattr(mcp_server, "STARTING", 1.0)
    (tmp_path / "silent.py").write_text("import time; time.sleep(60)")
    assert fail(tools_of, f"mcp:{sys.executable} {tmp_path / 'silent.py'}", {}).endswith(": no answer")
    assert fail(tools_of, "mcp:http://127.0.0.1:9/mcp", {}).startswith("mcp:http://127.0.0.1:9/mcp: ")


def test_without_the_library_it_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fail(tools_of, "mcp:x", {}) == "--tools mcp:x needs an extra: pip install 'jupyter_gpt[mcp]'"
    assert fail(tools_of, "mcp:", {}).startswith("mcp: is followed by the command")
    assert flatten(["mcp:run --only a,b", "python,search"]) == ["mcp:run --only a,b", "python", "search"]
