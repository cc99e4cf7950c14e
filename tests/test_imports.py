"""Imports: the collector off while they last, and torch's threads as the notebook sets them."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jupyter_gpt.imports import without_garbage_collection


def test_the_collector_is_off_until_the_last_of_several_threads_has_imported():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with without_garbage_collection():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    assert gc.isenabled()
    with without_garbage_collection():
        thread.start()
        inside.wait()
        assert not gc.isenabled()
    assert not gc.isenabled()  # the other has not come to its end
    leave.set()
    thread.join()
    assert gc.isenabled()
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError
    assert gc.isenabled()


def test_who_has_turned_the_collector_off_finds_it_off():
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


SCRIPT = """
import os, sys
from jupyter_gpt.imports import import_ahead

asked = []


def idle():
    asked.append("torch" in sys.modules)
    return len(asked) > 2


import_ahead(idle).join()
assert asked[:3] == [False] * 3  # nothing while a cell runs
assert {"torch", "jupyter_gpt.session"} <= set(sys.modules) and "transformers" not in sys.modules
for next_cell in sys.argv[1:]:
    if not os.fork():
        import torch

        exec(next_cell)
        from jupyter_gpt.runs.worker import on_worker

        before = torch.get_num_threads()
        print(before, on_worker("torch", torch.get_num_threads), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each next cell has a process that has imported torch ahead")
def test_torch_imported_ahead_has_the_threads_that_the_next_cell_asks_for(monkeypatch):
    cells = {
        "": "2 2",
        "os.environ['OMP_NUM_THREADS'] = '1'": "2 1",
        "os.environ['OMP_NUM_THREADS'] = '1'; torch.set_num_threads(3)": "3 3",
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    done = subprocess.run([sys.executable, "-c", SCRIPT, *cells], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(cells.values())


FORMATS = """
import sys
from jupyter_gpt.imports import without_iri_grammar

with without_iri_grammar():
    import jsonschema
print("lark" in sys.modules)
checked = jsonschema.Draft202012Validator({"format": "iri"}, format_checker=jsonschema.FormatChecker(["iri"]))
print(checked.is_valid("https://café.example"), checked.is_valid("no iri"), "lark" in sys.modules)
"""


def test_the_grammar_of_iris_is_built_when_one_is_checked():
    pytest.importorskip("rfc3987_syntax")
    done = subprocess.run([sys.executable, "-c", FORMATS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"]


INTERRUPTED = """
import os, signal, sys
from pathlib import Path

Path("slow.py").write_text("import os, signal\\nos.kill(os.getpid(), signal.SIGINT)\\nwhole = [sum(range(10**6))]\\n")
sys.path.insert(0, ".")
from jupyter_gpt.imports import uninterrupted

try:
    uninterrupted("slow")
except KeyboardInterrupt:
    print("interrupted", "whole" in vars(sys.modules["slow"]), uninterrupted("slow").whole[0])
"""


def test_an_interrupt_waits_for_an_import(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.split() == ["interrupted", "True", str(sum(range(10**6)))]
