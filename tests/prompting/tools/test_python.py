"""Python that a model wrote: what works, and everything it cannot reach."""

import pytest

from helpers.stopping import interrupted_soon
from jupyter_gpt.prompting.tools import python as sandbox
from jupyter_gpt.prompting.tools.call import call
from jupyter_gpt.prompting.tools.python import python


def run(code):
    return call(python(), {"code": code})


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("1 + 2", "3"),
        ("print('a')\n[n * n for n in range(4)]", "a\n[0, 1, 4, 9]"),
        ("x = 5", "done; nothing was printed"),
        ("```python\nprint(6 * 7)\n```", "42"),
        ("import math\nmath.comb(52, 5)", "2598960"),
        ("'text'", "'text'"),
        ("def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nf(15)", "610"),
    ],
)
def test_programs(code, result):
    done = run(code)
    assert done.ok
    assert done.text == result


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("nothing_such", "NameError"),
        ("import socket\nsocket.socket()", "No module named 'socket'"),
        ("import urllib.request", "No module"),
        ("import http.client", "No module"),
        ("import subprocess", "No module"),
        ("import ctypes", "No module"),
        ("import torch", "No module"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import os\nos.listdir('/')", "PermissionError"),
        ("import os\nos.environ", "not supported"),
        ("import os\nos.system('true')", "Error"),
        ("from pathlib import Path\nPath('/etc/passwd').read_text()", "PermissionError"),
        ("().__class__.__bases__[0].__subclasses__()", "AttributeError"),
        ("__import__('os')", "NameError"),
        ("eval('open(\"/etc/passwd\")')", "PermissionError"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("[0] * 10**10", "MemoryError"),
        ("x = 'a'\nwhile True: x = x + x", "MemoryError"),
        ("10 ** 10 ** 9", "MemoryError"),
        ("import time\ntime.sleep(100)", "TimeoutError"),
    ],
)
def test_what_is_out_of_reach(code, told):
    done = run(code)
    assert not done.ok
    assert told in done.text


def test_it_writes_no_file(tmp_path):
    target = tmp_path / "written"
    assert not run(f"open({str(target)!r}, 'w').write('x')").ok
    assert not run(f"from pathlib import Path\nPath({str(target)!r}).write_text('x')").ok
    assert not target.exists()


@pytest.mark.parametrize("code", ["while True: pass", "sum(range(10**13))", "while True: print('x' * 1000)"])
def test_an_endless_loop_ends(code, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.4)
    done = run(code)
    assert not done.ok
    assert "Timeout" in done.text or "MemoryError" in done.text or "more characters" in done.text
    assert len(done.text) < 2100


def test_megabytes_are_cut():
    done = run("print('x' * 5_000_000)")
    assert len(done.text) < 2100


def test_the_interrupt_button_reaches_whoever_waits(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 10.0)
    with pytest.raises(KeyboardInterrupt), interrupted_soon():
        run("while True: pass")


def test_nothing_is_kept_between_two_calls():
    assert run("secret = 7\nsecret").text == "7"
    assert "NameError" in run("secret").text
