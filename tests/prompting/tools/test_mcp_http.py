"""Tools of an MCP server over HTTP: the SDK's in a process of its own, with a key, restarted; and what is none."""

import functools
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.errors import fail
from helpers.stopping import interrupted_soon
from jupyter_gpt.notebook.lexer import split
from jupyter_gpt.prompting.tools import mcp_http, mcp_server
from jupyter_gpt.prompting.tools.act import act, tools_of
from jupyter_gpt.prompting.tools.approval import Approval, Decision, Toolset
from jupyter_gpt.prompting.tools.call import call

mcp = pytest.importorskip("mcp", reason="pip install 'jupyter_gpt[mcp]'")

SERVER = '''
import os, socket, sys, time
import uvicorn
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("test", log_level="ERROR")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int = 1) -> int:
    """Adds two numbers."""
    return a + b

@server.tool()
def write(text: str) -> str:
    """Writes a text."""
    return f"wrote {text} in {os.getpid()}"

@server.tool()
def wait() -> str:
    """Never answers."""
    time.sleep(60)

app = server.streamable_http_app()

async def guarded(scope, receive, send):
    key = os.environ.get("SERVER_KEY")
    if scope["type"] == "http" and key and dict(scope["headers"]).get(b"authorization") != f"Bearer {key}".encode():
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"who are you?"})
        return
    await app(scope, receive, send)

listening = socket.socket(fileno=int(sys.argv[1]))
uvicorn.Server(uvicorn.Config(guarded, log_level="error")).run(sockets=[listening])
'''
KEYED = '{url} --header "Authorization: Bearer ${{MY_MCP_KEY}}"'


class Served:
    """A server on a socket that this process keeps, so that another can take its place."""

    def __init__(self, path):
        self.path, self.process, self.socket = path, None, socket.create_server(("127.0.0.1", 0))
        self.url = f"mcp:http://127.0.0.1:{self.socket.getsockname()[1]}/mcp"

    def start(self, key=""):
        self.end()
        command = [sys.executable, str(self.path), str(self.socket.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[self.socket.fileno()], env={**os.environ, "SERVER_KEY": key})

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(mcp_server, "STARTING", 120.0)  # a busy machine starts it slowly
    (tmp_path / "server.py").write_text(SERVER)
    served = Served(tmp_path / "server.py")
    yield served
    mcp_server.close_all()
    served.end()
    served.socket.close()


def named(url):
    return {tool.name: tool for tool in tools_of(url, {})}


def test_its_tools_are_called_and_approved_like_any_others(served, scripted):
    served.start()
    tools = named(served.url)
    assert set(tools) == {"add", "write", "wait"} and tools["add"].signature() == "add(a: integer, b: integer = …)"
    assert call(tools["add"], {"a": 3, "b": 4}).text == "7"
    nobody = Toolset(tuple(tools.values()))
    assert "nobody is there to approve" in act(scripted([]), nobody, "write", {"text": "it"}).text
    assert act(scripted([]), nobody, "add", {"a": 1}).text == "2", "it only reads"
    person = Approval(person=lambda tool, arguments, problem: Decision(True, {"text": "that"}, "by hand"))
    told = act(scripted([]), Toolset(tuple(tools.values()), person), "write", {"text": "it"}).text
    assert told == f"wrote that in {served.process.pid}"


def test_a_key_comes_from_the_environment_and_is_never_shown(served, monkeypatch):
    served.start("open-sesame")
    given = KEYED.format(url=served.url)
    wanted = "HTTP 401 Unauthorized: wanted is a key, from an environment variable: --header 'Authorization: Bearer"
    assert wanted in fail(tools_of, served.url, {})
    assert fail(tools_of, given, {}).startswith("the environment variable MY_MCP_KEY is not set")
    monkeypatch.setenv("MY_MCP_KEY", "open-wheat")
    assert wanted in (refused := fail(tools_of, given, {})) and "wheat" not in refused
    monkeypatch.setenv("MY_MCP_KEY", "open-sesame")
    tools = named(given)
    assert call(tools["add"], {"a": 1}).text == "2"
    served.start("open-barley")
    refused = call(tools["add"], {"a": 1})
    assert not refused.ok and "HTTP 401" in refused.text and "open-" not in refused.text
    monkeypatch.setenv("MY_MCP_KEY", "open-barley")
    assert call(tools["add"], {"a": 1}).text == "2", "the new key is used at once"


@pytest.mark.parametrize(
    "given, message",
    [
        (
            "--header 'Authorization: Bearer open-sesame'",
            "the header Authorization takes its value from an environment",
        ),
        ("--header open-sesame", "is followed by nothing, or by headers: --header 'Authorization: Bearer ${NAME}'"),
        ("--key open-sesame", "is followed by nothing, or by headers"),
        ("--header 'Key: open-sesame", "quotes go around a header"),
    ],
)
def test_a_key_that_is_written_down_is_refused_and_not_repeated(given, message):
    said = fail(tools_of, f"mcp:https://user:open-sesame@example.org/mcp?key=open-sesame {given}", {})
    assert message in said and "sesame" not in said


def test_a_magic_passes_the_header_on():
    line = """--tools calculator 'mcp:https://example.org/mcp --header "Authorization: Bearer ${KEY}"'"""
    assert split(line)[2].text == 'mcp:https://example.org/mcp --header "Authorization: Bearer ${KEY}"'
    assert mcp_http.refusal(405).startswith("HTTP 405 Method Not Allowed: ") and mcp_http.refusal(599) == "HTTP 599"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_one_that_was_restarted_goes_on(served, monkeypatch, mode):
    """An older server knows its sessions, and forgets them."""
    monkeypatch.setattr(mcp, "Client", functools.partial(mcp.Client, mode=mode))
    served.start()
    tools = named(served.url)
    first = call(tools["write"], {"text": "a"}).text
    served.start()
    second = call(tools["write"], {"text": "a"})
    assert second.ok and second.text != first, "in another process"


def test_one_that_hangs_is_given_up_and_an_interrupt_ends_the_waiting(served, monkeypatch):
    served.start()
    tools = named(served.url)
    with pytest.raises(KeyboardInterrupt), interrupted_soon():
        call(tools["wait"], {})
    monkeypatch.setattr(mcp_server, "CALLING", 0.5)
    assert call(tools["wait"], {}).text == "Error: the server did not answer within 0.5 s"


def test_what_is_no_server_is_one_line(served, monkeypatch, capfd):
    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response({"/": 200, "/login": 302}.get(self.path, 404))
            self.send_header("Content-Type", "text/html")
            self.send_header("Location", "https://example.org/login?secret=1")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        url = f"mcp:http://127.0.0.1:{pages.server_port}"
        assert fail(tools_of, f"{url}/", {}) == f"{url}/: Unexpected content type: text/html"
        assert "Redirect to https://example.org/login not followed" in fail(tools_of, f"{url}/login", {})
        missing = fail(tools_of, f"{url}/nowhere", {})
        assert missing == f"{url}/nowhere: HTTP 404 Not Found: the address of an MCP server often ends with /mcp"
        pages.shutdown()
    monkeypatch.setattr(mcp_server, "STARTING", 1.0)
    assert fail(tools_of, served.url, {}) == f"{served.url}: no answer"
    assert capfd.readouterr() == ("", ""), "nothing else is printed"
