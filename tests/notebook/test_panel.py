"""The panel's end of the kernel: what a state says, what an action does, and a real kernel that a cell blocks."""

import json
import subprocess
import sys
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

import jupyter_gpt
from helpers import TESTS
from jupyter_gpt import store
from jupyter_gpt.notebook import panel as module
from jupyter_gpt.notebook.magics.verbs import describe
from jupyter_gpt.notebook.panel import ID, Panel
from jupyter_gpt.runs import progress
from jupyter_gpt.runs.events import read_events as whole_file
from jupyter_gpt.runs.events import recent
from jupyter_gpt.runs.progress import POINTS, WHOLE, early_events, late_events, pace_of, thinned


@pytest.fixture
def panel(gpt):
    return Panel()


def state(panel) -> dict:
    """A state, as it comes out of JSON."""
    return json.loads(json.dumps(panel.answer({"id": "1", "type": "state"}), allow_nan=False))["state"]


def rows(panel, what) -> dict:
    return {row["name"]: row for row in state(panel)[what]}


def ask(panel, what, name, kind="") -> dict:
    return panel.answer({"id": "2", "type": what, "name": name, "kind": kind})


def until(true) -> None:
    while not true():
        time.sleep(0.01)


def come_to(run, step):
    until(lambda: run.step >= step or not run.alive)


def test_an_empty_folder_and_requests_that_are_none(panel, gpt):
    found = state(panel)
    assert found["version"] == jupyter_gpt.__version__ and found["home"] == str(gpt.home)
    assert [found[key] for key in ("models", "runs", "indexes", "endpoints", "server", "tasks")] == [[]] * 4 + [
        None,
        [],
    ]
    assert found["memory"]["kernel"] > 0 and found["memory"]["machine"][0] < found["memory"]["machine"][1]
    assert panel.answer({"id": "7", "type": "fly"}) == {
        "id": "7",
        "type": "fly",
        "error": f"jupyter_gpt {jupyter_gpt.__version__} knows no request fly",
    }
    assert "cannot be a name" in ask(panel, "stop", "../x")["error"]
    assert ask(panel, "stop", "tale")["error"] == "run tale is not running in this kernel"


def test_a_run_and_its_model_from_beginning_to_end(panel, gpt, train):
    run = train("tale", steps=4000, background=True)
    come_to(run, 3)
    row = rows(panel, "runs")["tale"]
    assert (row["kind"], row["status"], row["steps"], row["here"]) == ("pretrain", "running", 4000, True)
    assert 0 < row["step"] <= run.step and row["metric"].startswith("training loss") and row["pace"] > 0

    assert "error" not in ask(panel, "pause", "tale") and rows(panel, "runs")["tale"]["status"] == "paused"
    assert "error" not in ask(panel, "unpause", "tale") and rows(panel, "runs")["tale"]["status"] == "running"
    assert "error" not in ask(panel, "stop", "tale")
    run.wait()
    row = rows(panel, "runs")["tale"]
    assert (row["status"], row["step"], row["here"], row["diverged"]) == ("stopped", run.step, False, False)
    assert row["value"] == pytest.approx(recent(run.events)) and len(row["curve"]) <= POINTS

    model = rows(panel, "models")["tale"]
    about = gpt.models.about("tale")
    assert (model["resident"], model["memory"], model["dtype"], model["device"]) == (
        True,
        about.memory,
        "float32",
        "cpu",
    )
    assert (model["parameters"], model["lineage"], model["kind"]) == (about.parameters, about.lineage, "base")
    ask(panel, "unload", "tale", "model")
    until(lambda: not state(panel)["tasks"])
    model = rows(panel, "models")["tale"]
    assert not model["resident"] and "memory" not in model and model["disk"] == about.on_disk


def test_show_is_what_the_verb_shows(panel, gpt, train):
    train("tale", steps=4)
    shown = ask(panel, "show", "tale")
    data, metadata = gpt.show("tale")._repr_mimebundle_()
    assert shown["data"]["text/plain"] == data["text/plain"] and set(shown["data"]) == set(data)
    assert set(shown["metadata"]) == set(metadata)
    assert ask(panel, "show", "tail")["error"] == "there is no run tail (did you mean tale?)"


def test_the_damage_of_one_is_one_rows_message(panel, gpt, train, tiny_model):
    train("tale", steps=4)
    tiny_model(gpt, "fox")
    gpt.unload("fox")
    for name in ("torn", "odd"):
        folder = gpt.runs.folder(name)
        folder.mkdir()
        (folder / "recipe.yaml").write_text("kind: [" if name == "torn" else "kind: sft\nrecipe: {}\n")
    (gpt.home / "models" / "fox" / "jupyter_gpt.json").write_text("{")
    (gpt.home / "endpoints.json").write_text("[]")
    index = gpt.home / "indexes" / "docs"
    index.mkdir(parents=True)
    (index / "index.json").write_text("{}")
    found = state(panel)
    runs, models = ({row["name"]: row for row in found[key]} for key in ("runs", "models"))
    assert "recipe.yaml cannot be read" in runs["torn"]["error"] and "recipe.yaml" in runs["odd"]["error"]
    assert "damaged" in models["fox"]["error"] and "damaged" in found["indexes"][0]["error"]
    assert "damaged" in found["endpoints"][0]["error"]
    assert "error" not in runs["tale"] and runs["tale"]["status"] == "finished" and "error" not in models["tale"]


def test_a_row_says_what_it_trains_by(panel, gpt):
    recipes = {
        "gained": "kind: rlhf\nrecipe: {steps: 9, algo: grpo, loss: dapo}\n",
        "paired": "kind: rlhf\nrecipe: {steps: 9, algo: dpo, loss: ipo}\n",
        "voted": "kind: rlhf\nrecipe: {steps: 9, algo: dpo, loss: kto}\n",
        "taught": "kind: sft\nrecipe: {steps: 9}\n",
    }
    for name, recipe in recipes.items():
        store.write_text(gpt.runs.folder(name) / "recipe.yaml", recipe)
    kinds = {name: row["kind"] for name, row in rows(panel, "runs").items()}
    assert kinds == {"gained": "grpo", "paired": "dpo", "voted": "kto", "taught": "sft"}


def read_events(path) -> dict:
    return progress.read_events(path, early_events(path, path.stat().st_size))


def write_events(path, steps, end=None, last=b"") -> list[dict]:
    """A file of a run that has told so many steps; what it holds."""
    metrics = [{"name": "reward", "label": "reward", "format": ".2f", "unit": "", "chart": None}]
    events = [{"event": "start", "time": 0.0, "step": 0, "steps": steps, "metrics": metrics}]
    for n in range(1, steps + 1):
        events.append({"event": "step", "time": float(n), "step": n, "reward": n / 10, "seconds": n / 4})
    events += [end] if end else []
    path.write_bytes(b"".join(json.dumps(event).encode() + b"\n" for event in events) + last)
    return events


@pytest.mark.parametrize("steps", [0, 1, 7, 100, 20_000])
def test_places_of_a_file_say_what_the_whole_says(tmp_path, steps):
    path = tmp_path / "events.jsonl"
    end = {"event": "end", "time": 9.0, "status": "failed", "step": steps, "seconds": 5.0, "error": "no", "alarms": []}
    events = write_events(path, steps, end, last=b'{"event": "st')
    assert events == whole_file(path)
    found = read_events(path)
    assert (found["status"], found["failure"], found["seconds"]) == ("failed", "no", 5.0)
    assert (found["step"], found["metric"], found["format"]) == (steps, "reward", ".2f")
    assert found["value"] == (pytest.approx(recent(events, "reward")) if steps else None)
    assert found["pace"] == (0.25 if steps else None)
    curve = found["curve"]
    assert len(curve) <= POINTS and curve == sorted(curve)
    if steps > 100:
        assert path.stat().st_size > 10 * WHOLE
        assert len(early_events(path, path.stat().st_size) + late_events(path)) < steps / 20  # most of it is not read
        assert curve[-1] == pytest.approx(steps / 10, rel=0.05) and curve[30] == pytest.approx(steps / 20, rel=0.1)


def test_a_step_is_found_before_long_samples(tmp_path):
    path = tmp_path / "events.jsonl"
    sample = json.dumps({"event": "sample", "time": 1.0, "step": 900, "prompt": "a", "text": "b" * 9000}) + "\n"
    write_events(path, 900, last=sample.encode() * 20)
    assert path.stat().st_size > WHOLE and read_events(path)["step"] == 900


def test_curves_and_paces_of_little():
    assert thinned({}) == [] and thinned({7: 1.23456}) == [1.235] and thinned({1: 1.0, 9: 2.0}) == [1.0, 2.0]
    assert thinned({n: float(n) for n in range(240)})[:2] == [1.5, 5.5]
    many = {**{n: 1.0 for n in range(100)}, **{1000 * n: 2.0 for n in range(1, 61)}}  # a dense beginning is one point
    assert thinned(many)[0] < 1.1 and thinned(many)[1:] == [2.0] * (len(thinned(many)) - 1) and len(thinned(many)) > 50
    assert pace_of([]) is None and pace_of([{"step": 4, "seconds": 2.0}]) == 0.5
    assert pace_of([{"step": 4, "seconds": 2.0}, {"step": 4, "seconds": 2.0}]) == 0.5


def test_a_run_of_another_process(panel, gpt, train, monkeypatch):
    train("tale", steps=4)
    path = gpt.runs.folder("tale") / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert rows(panel, "runs")["tale"]["status"] == "interrupted"
    code = "import sys; from pathlib import Path; from jupyter_gpt import store\nstore.lock(Path(sys.argv[1]), '')\n"
    held = [sys.executable, "-c", f"{code}print('held', flush=True); input()", str(gpt.runs.folder("tale"))]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(module, "RECHECK", 0.0)
        row = rows(panel, "runs")["tale"]
        assert row["status"] == "running" and not row["here"] and not row["diverged"]
        with path.open("a") as file:
            warning = {"event": "warning", "time": 9.0, "step": 4, "cause": "diverged", "text": "the run has diverged"}
            file.write(json.dumps(warning) + "\n")
        assert rows(panel, "runs")["tale"]["diverged"]
        assert ask(panel, "stop", "tale")["error"] == "run tale is not running in this kernel"
        other.communicate("\n")
    assert rows(panel, "runs")["tale"]["status"] == "interrupted"


def test_only_the_newest_runs_are_listed_and_what_is_gone_is_forgotten(panel, gpt, monkeypatch):
    monkeypatch.setattr(module, "RUNS", 2)
    for n in range(4):
        folder = gpt.runs.folder(f"run{n}")
        store.write_text(folder / "recipe.yaml", "kind: sft\nrecipe: {steps: 9}\n")
        time.sleep(0.01)
    found = state(panel)
    assert [row["name"] for row in found["runs"]] == ["run3", "run2"] and found["more_runs"] == 2
    kept = len(panel.cache)
    gpt.runs.folder("run3").rename(gpt.home / "gone")
    assert [row["name"] for row in state(panel)["runs"]] == ["run2", "run1"] and len(panel.cache) == kept


def test_what_has_not_changed_is_not_read_again(panel, gpt, train, monkeypatch):
    train("tale", steps=4)
    before = state(panel)

    def read(*_):
        raise AssertionError("read again")

    for name in ("read_events", "read_recipe", "describe_model", "size_of", "describe_endpoints"):
        monkeypatch.setattr(module, name, read)
    after = state(panel)
    assert {**after, "memory": None} == {**before, "memory": None}


def test_the_served_address_without_its_token(panel, gpt):
    server = gpt.serve(port=0)
    try:
        answer = json.dumps(panel.answer({"id": "1", "type": "state"}))
        assert server.url in answer and server.token not in answer
    finally:
        server.stop()
    assert state(panel)["server"] is None


def test_the_options_of_a_command():
    panel = Panel(command=describe)
    told = json.loads(json.dumps(ask(panel, "command", "%%prompt")))["command"]
    options = {option.pop("name"): option for option in told["options"]}
    assert told["usage"].startswith("%%prompt [MODEL]") and told["summary"]
    assert options["--search"]["choices"] == ["bfs", "dfs", "beam"] and options["--search"]["help"].endswith("bfs)")
    assert options["--cot"]["value"] == "" and options["--samples"]["number"] == "whole"
    assert options["--reflect"]["optional"] and options["--temperature"]["number"] == "any"
    assert ask(panel, "command", "%gpt show")["command"]["name"] == "%gpt show"
    assert "did you mean show" in ask(panel, "command", "%gpt shw")["error"]


def test_a_task_that_fails_is_told(panel, gpt, train):
    assert "error" not in ask(panel, "delete", "nothing", "model")
    until(lambda: any(task["error"] for task in state(panel)["tasks"]))
    assert "nothing" in state(panel)["tasks"][0]["error"]


def test_a_task_is_begun_once(panel):
    go = threading.Event()
    panel.begin("unload", "tale", "model", lambda name, kind: go.wait())
    assert state(panel)["tasks"] == [{"type": "unload", "name": "tale", "kind": "model", "error": None}]
    assert panel.answer({"id": "1", "type": "delete", "name": "tale", "kind": "model"})["error"].startswith(
        "tale is busy"
    )
    go.set()
    until(lambda: not state(panel)["tasks"])


@pytest.fixture
def gpt(gpt, monkeypatch):
    monkeypatch.setitem(vars(jupyter_gpt), "gpt", gpt)
    return gpt


def test_a_state_imports_no_torch(tmp_path):
    code = (
        "import sys; from jupyter_gpt.notebook.panel import Panel\n"
        "print(sorted(Panel().answer({'type': 'state'})['state']), {'torch', 'numpy', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['endpoints', 'home'") and done.stdout.endswith(" set()\n")


def test_a_stop_that_comes_twice_leaves_the_evaluation(panel, monkeypatch):
    told = []
    run = SimpleNamespace(status="running", stop=lambda: told.append("stop"))
    monkeypatch.setattr(module, "run_to_control", lambda name: run)
    ask(panel, "stop", "tale")
    run.status = "stopping"
    ask(panel, "stop", "tale")
    assert told == ["stop"]
    ask(panel, "skip", "tale")
    assert told == ["stop", "stop"]


def connect(monkeypatch, answer) -> module.Connection:
    """Without a kernel; `answer` stands for what the panel answers."""
    kernel = SimpleNamespace(comm_manager=SimpleNamespace(register_comm=print, register_target=print))
    monkeypatch.setattr(module.busy, "running_cell", lambda ip: None)
    connection = module.Connection(None, kernel, SimpleNamespace(answer=answer))
    connection.comm = SimpleNamespace(send=lambda told: None)
    return connection


def test_no_state_is_told_after_a_newer_one(monkeypatch):
    """As between one that follows a request, and the answer to a page that has seen its cell end."""
    told, found, go = [], threading.Event(), threading.Event()
    count = iter(range(9))

    def answer(request):
        state = {"id": request.get("id"), "state": {"count": next(count), "memory": None}}
        if request.get("id") is None and not go.is_set():
            found.set()
            go.wait(0.5)  # the answer of the other thread comes between, unless that waits
        return state

    monkeypatch.setattr(module, "SHORTEST", 0.0)
    connection = connect(monkeypatch, answer)
    connection.comm = SimpleNamespace(send=lambda state: told.append(state["state"]["count"]))
    connection.hear({"content": {"data": {"id": "1", "type": "state", "follow": 60, "every": 0.0}}})
    found.wait()
    connection.hear({"content": {"data": {"id": "2", "type": "state"}}})
    go.set()
    until(lambda: len(told) >= 3)
    connection.pages.clear()
    assert told == sorted(told)


def test_a_hidden_page_does_not_slow_down_one_that_is_seen(monkeypatch):
    connection = connect(monkeypatch, lambda request: {"state": {"memory": None}})
    monkeypatch.setattr(connection, "send_changes", lambda state: None)
    for name, every in (("seen-1", 0.25), ("hidden-1", 2.0)):
        connection.hear({"content": {"data": {"id": name, "type": "state", "follow": 60, "every": every}}})
    assert connection.every() == 0.25
    connection.hear({"content": {"data": {"id": "seen-2", "type": "state", "follow": 60, "every": 2.0}}})
    assert connection.every() == 2.0  # it is hidden as well


class Kernel:
    """A real kernel, asked as JupyterLab asks it: over a subshell."""

    def __init__(self, folder):
        from jupyter_client.manager import KernelManager

        self.folder, self.manager = folder, KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.answers: dict[str | None, dict] = {}
        self.status = ""

    def subshell(self) -> str:
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        return self.client.control_channel.get_msg(timeout=30)["content"]["subshell_id"]

    def ask(self, what: str, subshell: str | None = None, **request) -> str:
        key = uuid.uuid4().hex
        message = self.client.session.msg("comm_msg", {"comm_id": ID, "data": {"id": key, "type": what, **request}})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return key

    def answer(self, key: str | None) -> dict:
        """What follows without being asked for has no key."""
        while key not in self.answers:
            self.hear()
        return self.answers.pop(key)

    def hear(self) -> None:
        """The next message. Raises queue.Empty when none comes."""
        if message := self.client.get_iopub_msg(timeout=30):
            if message["msg_type"] == "status":
                self.status = message["content"]["execution_state"]
            if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == ID:
                self.answers[message["content"]["data"].get("id")] = message["content"]["data"]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    pytest.importorskip("jupyter_client")
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_a_real_kernel_answers_while_a_cell_blocks_and_after_a_restart(kernel):
    client = kernel.client
    client.execute_interactive("%load_ext jupyter_gpt", timeout=60)
    assert kernel.answer(kernel.ask("state"))["state"]["runs"] == []
    client.execute_interactive("%reload_ext jupyter_gpt", timeout=60)
    if "kernel subshells" in client.kernel_info(reply=True)["content"].get("supported_features", ()):
        subshell = kernel.subshell()
        client.execute("import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)")
        asked = [kernel.ask(what, subshell, name="tale") for what in ("state", "stop", "state")]
        assert "state" in kernel.answer(asked[0])
        assert kernel.answer(asked[1])["error"] == "run tale is not running in this kernel"
        assert "state" in kernel.answer(asked[2])  # also after an answer has been published from there
        (kernel.folder / ".jupyter_gpt" / "runs" / "tale").mkdir(parents=True)
        key = kernel.ask("state", subshell, follow=60, every=0.2)
        assert kernel.answer(key)["state"]["runs"] == []
        (kernel.folder / ".jupyter_gpt" / "runs" / "tale" / "recipe.yaml").write_text("kind: [")
        assert kernel.answer(None)["state"]["runs"][0]["name"] == "tale"  # nobody asked for it
        while kernel.status != "busy":  # which is told again after the idle of the last request
            kernel.hear()
        (kernel.folder / "go").touch()
        client.get_shell_msg(timeout=30)
    kernel.manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    client.execute_interactive("%load_ext jupyter_gpt", timeout=60)
    assert "state" in kernel.answer(kernel.ask("state"))
