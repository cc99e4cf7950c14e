"""Two kernels and one store: who holds a name, what a killed one leaves, and what is brought back or swept away."""

import os
import subprocess
import sys
import threading

import psutil
import pytest

from helpers import apart
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError

HOLD = """
import sys
from jupyter_gpt.session import store
store.lock(store.home() / "runs" / "x", "x is being trained")
print("held", flush=True)
sys.stdin.readline()
"""
BOTH = """
import sys
from contextlib import suppress
from helpers.tiny import DOCUMENTS, TINY
from jupyter_gpt import gpt
from jupyter_gpt.errors import GPTError
for number in range(int(sys.argv[1])):
    line.send("ready")
    line.recv()
    name = f"both{number}"
    try:
        options = {**TINY, "steps": 5000}
        run = gpt.pretrain(name, {"$docs": 1.0}, variables={"docs": DOCUMENTS}, background=True, **options)
        line.send("trains")
        line.recv()
        run.stop()
        with suppress(GPTError):  # stopped before its first step
            run.wait()
    except GPTError as error:
        line.send(str(error))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def other(home):
    """Another process that holds the name x."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_the_other_process_until_it_dies(home, other, monkeypatch):
    folder = home / "runs" / "x"
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 5.0)  # as after a step of the clock
    assert store.lock_holder(folder) == other.pid
    with pytest.raises(GPTError, match=rf"^x is being trained by another process \(pid {other.pid}\): wait for it"):
        store.lock(folder, "x is being trained")
    (home / "runs" / "x").mkdir(parents=True)
    (home / "runs" / "x").rename(home / "runs" / ".old-x")  # parked: the name is held as before
    assert store.lock_holder(folder) == other.pid
    other.kill()
    other.wait()
    assert store.lock_holder(folder) is None
    assert store.lock(folder, "x") and not store.lock(folder, "x")  # the second time it was held here already
    assert store.lock_holder(folder) == os.getpid()
    store.unlock(folder)
    assert store.lock(folder, "x")
    store.unlock(folder)


def test_a_failure_lets_go_of_what_was_locked_in_it_alone(home):
    folder = home / "runs" / "x"
    for before in (False, True):
        if before:
            store.lock(folder, "x")
        with pytest.raises(ZeroDivisionError), store.locked(folder, "x"):
            1 / 0  # noqa: B018
        assert (store.lock_file(folder) in store._locks) == before
    store.unlock(folder)


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 1, "started": 5.0}', b"\xff\0"])
def test_lock_files_of_older_versions_and_damaged_ones_are_no_error(gpt, train, content):
    run = train(steps=2)
    (run.folder / "lock").write_bytes(content)
    for path in (store.lock_file(run.folder), store.lock_file(run.folder).with_suffix(".pid")):
        path.write_bytes(content)
    gpt.runs.known.clear()
    assert gpt.runs["tiny"].status == "finished" and train(steps=3, overwrite=True).step == 3


def test_of_two_kernels_that_start_one_name_together_one_trains(home):
    tries = 3
    pair = [apart.start(BOTH, tries) for _ in range(2)]
    lines = [line for _, line in pair]
    for _ in range(tries):
        assert [line.recv() for line in lines] == ["ready"] * 2
        for line in lines:
            line.send("go")
        said = [line.recv() for line in lines]
        assert sorted(said)[1] == "trains", said
        refused = next(each for each in said if each != "trains")
        assert "is being trained by another process" in refused and "\n" not in refused
        lines[said.index("trains")].send("stop")
    assert [line.recv() for line in lines] == [("", "")] * 2
    for process, _ in pair:
        process.join()


def test_what_a_kill_left_between_two_renames_stands_again(gpt, tiny_model):
    tiny_model(gpt, "fox")
    gpt.models.resident.clear()
    folder = gpt.models.folder("fox")
    for look in (lambda: gpt.models.about("fox"), lambda: gpt.models.names().index("fox"), lambda: "fox" in gpt.models):
        folder.rename(folder.with_name(".old-fox"))
        look()
        assert (folder / "config.json").exists()


def test_an_older_run_that_was_parked_by_a_killed_kernel_stands_again(gpt, train):
    folder = train(steps=2).folder
    for look in (lambda: gpt.runs["tiny"], lambda: "tiny" in gpt.runs, lambda: gpt.runs.names().index("tiny")):
        folder.rename(folder.with_name(".old-tiny@0"))
        gpt.runs.known.clear()
        look()
        assert gpt.runs["tiny"].step == 2
    folder.rename(folder.with_name(".old-tiny@0"))
    with store.locked(folder, "tiny is being trained"):
        assert "tiny" not in gpt.runs  # whoever holds it is about to put the new one there
        store.unlock(folder)


def test_what_another_kernel_brought_back_in_between_is_replaced(home, monkeypatch):
    old, new = home / "models" / "fox", home / "models" / ".writing-fox.1"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / folder.name).touch()
    real = os.replace

    def replace(source, target, times=[]):  # noqa: B006
        if source == new and not times:
            times.append(1)
            store.restore_all(home / "models")
        return real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    store.replace_folder(new, old)
    assert [path.name for path in (home / "models").rglob("*")] == ["fox", new.name]


def test_what_gone_processes_left_half_written_is_swept(gpt, tiny_model, train):
    tiny_model(gpt, "fox")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone = gone.stdout.strip()
    models, runs, rankings = (store.home() / kind for kind in ("models", "runs", "rankings"))
    for folder in (models / f".writing-fox.{gone}", runs / f".writing-x.{gone}"):
        folder.mkdir(parents=True)
    rankings.mkdir()
    (rankings / f".rr.jsonl.{gone}").touch()
    (rankings / f".of-this.jsonl.{os.getpid()}").touch()
    train(steps=2)
    gpt.rankings.named("rr").write([])
    assert sorted(path.name for path in models.iterdir()) == ["fox", "tiny"]
    assert sorted(path.name for path in runs.iterdir()) == ["tiny"]
    assert sorted(path.name for path in rankings.iterdir()) == [f".of-this.jsonl.{os.getpid()}", "rr.jsonl"]


def test_threads_that_write_a_file_at_once_leave_it_whole(tmp_path):
    """As two clicks on a run in processes of its own: those of the panel and those of a cell arrive on threads."""
    path, errors = tmp_path / "control.json", []

    def write(number):
        for _ in range(300):
            try:
                store.write_json(path, {"number": number})
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and store.read_json(path)["number"] in range(4)
    assert [each.name for each in tmp_path.iterdir()] == ["control.json"]
