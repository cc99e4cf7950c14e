"""The kernel's end of the GPT panel in JupyterLab's sidebar: what there is, read when the panel asks for it.

`%load_ext` registers a comm with a fixed id, so that a page can ask at any time: after a reload, or beside another
page. A request is `{"id", "type", "name", "kind"}`, its answer has the same id and type:

{"type": "state", "follow", "every"}                 → "state": see `Panel.state`; for "follow" seconds then another
                                                       one, without an id, whenever it has changed, at most every so
                                                       many seconds
{"type": "show", "name"}                             → "data", "metadata": the report of `%gpt show NAME`
{"type": "stop" | "pause" | "unpause", "name"}       → nothing more; the next state shows the change
{"type": "skip", "name"}                             → the same, of a run that stops: its evaluation is left out
{"type": "unload" | "delete", "name", "kind"}        → nothing more; they go on in "tasks" of the next states
                                                     → or "error": why it cannot be done
{"type": "command", "name": "%%sft"}                 → "command": the options of a magic or of a verb of `%gpt`

States follow without being asked for, because each request makes JupyterLab show the kernel as busy and idle again, and
counts as activity of a kernel that is to be culled.

Requests arrive on a thread of the kernel while a cell runs (a subshell). So nothing here touches the user's namespace,
loads a model or waits for the worker; and no state costs more than a few milliseconds: what is on disk is read again
only where it has changed, and of a long `events.jsonl` only places. torch is never imported for a state.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from jupyter_gpt import __version__, store
from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.notebook.views import busy
from jupyter_gpt.runs.progress import WHOLE, early_events, read_events, read_recipe

ID = "jupyter_gpt.panel"  # of the comm, and the name of its target
PROTOCOL = 1  # to be raised when a page of an earlier version could not read a state any more (state.ts)
RUNS = 50  # the newest runs that a state lists; those that are active are always in it
LOOK = 0.5  # seconds until a launcher is asked again
RECHECK = 5.0  # seconds until a lock is tried, or a changing index counted, again
SHORTEST, LONGEST = 0.2, 120.0  # seconds between two states, and that they follow one request
SHARE = 0.01  # of a core, at most, goes into states that follow one another
REMEMBERED = 60.0  # seconds that a task which failed is told about


Action = Callable[[str, str], dict | None]  # of the request's name and kind, to what its answer holds


def load(ip, **more: Action) -> None:
    """Opens the comm in the kernel of a shell, if it has one. Sends nothing. `more`: further requests by their type."""
    kernel = getattr(ip, "kernel", None)
    if kernel is not None:
        Connection(ip, kernel, Panel(**more))


def unload(ip) -> None:
    kernel = getattr(ip, "kernel", None)
    if kernel is not None and ID in kernel.comm_manager.comms:
        kernel.comm_manager.comms[ID].connection.close()
    busy.forget()


class Connection:
    """The comm, and the states that follow a request."""

    def __init__(self, ip, kernel, panel: Panel):
        from comm import create_comm

        self.kernel, self.panel = kernel, panel
        busy.running_cell(ip)
        self.lock, self.telling = threading.Lock(), threading.Lock()
        self.pages: dict[str, tuple[float, float]] = {}  # until when each follows, and seconds between two looks
        self.following = False
        self.comm: Any = create_comm(target_name=ID, comm_id=ID, primary=False)
        self.comm.connection = self
        # not through `on_msg`, which has the shell's post_execute hooks draw pyplot's figures on this thread
        self.comm.handle_msg = self.hear
        # ipykernel 7.4 would send requests to the shell that a cell blocks; the one that the front end chose is right
        self.comm._reply_subshell_for = lambda data, default: default
        kernel.comm_manager.register_comm(self.comm)
        kernel.comm_manager.register_target(ID, lambda *_: None)

    def close(self) -> None:
        with self.lock:
            self.pages.clear()
        self.kernel.comm_manager.comms.pop(ID)
        self.kernel.comm_manager.targets.pop(ID, None)
        self.comm._closed = True  # else it would tell front ends that do not know it

    def hear(self, message: dict) -> None:
        request = message["content"]["data"]
        with self.telling if request.get("type") == "state" else nullcontext():  # none is told after a newer one
            told = self.panel.answer(request)
            self.comm.send(told)
        if "state" in told and request.get("follow"):
            page = str(request.get("id")).rpartition("-")[0]
            self.follow(page, told["state"], request["follow"], request.get("every", 1.0))

    def follow(self, page: str, state: dict, seconds: float, every: float) -> None:
        with self.lock:
            self.pages[page] = time.monotonic() + min(seconds, LONGEST), max(every, SHORTEST)
            if self.following:
                return
            self.following = True
        threading.Thread(target=self.send_changes, args=(state,), name="jupyter_gpt-panel", daemon=True).start()

    def every(self) -> float:
        """As often as the page wants that wants it most."""
        with self.lock:
            return min((every for _, every in self.pages.values()), default=SHORTEST)

    def send_changes(self, sent: dict) -> None:
        spent = 0.0
        while True:
            time.sleep(max(self.every(), spent / SHARE))
            with self.lock:
                now = time.monotonic()
                self.pages = {page: wish for page, wish in self.pages.items() if now <= wish[0]}
                if not self.pages:
                    self.following = False
                    return
            began = time.thread_time()
            with self.telling:
                told = self.panel.answer({"type": "state"})
                if "state" in told and {**told["state"], "memory": None} != {**sent, "memory": None}:
                    sent = told["state"]
                    self.comm.send(told)
            spent = time.thread_time() - began


def session() -> Any:
    """The session, None while nothing has asked for one: it then has no model in memory and no run."""
    import jupyter_gpt

    made = sys.modules.get("jupyter_gpt.session")
    return vars(jupyter_gpt).get("gpt") or getattr(made, "gpt", None)


class Panel:
    """Answers requests, from any thread."""

    def __init__(self, **more: Action):
        self.lock = threading.Lock()
        self.cache: dict[Hashable, tuple[Any, float, Any]] = {}
        self.used: set[Hashable] = set()
        self.tasks: list[dict] = []
        self.actions: dict[str, Action] = {
            "state": lambda name, kind: {"state": self.state()},
            "show": show,
            "stop": lambda name, kind: stop(name),
            "skip": lambda name, kind: run_to_control(name).stop(),
            "pause": lambda name, kind: run_to_control(name).pause(),
            "unpause": lambda name, kind: run_to_control(name).unpause(),
            "unload": lambda name, kind: self.begin("unload", name, kind, unload_model),
            "delete": lambda name, kind: self.begin("delete", name, kind, delete),
            **more,
        }

    def answer(self, request: dict) -> dict:
        told = {"id": request.get("id"), "type": request.get("type")}
        try:
            action = self.actions.get(request.get("type", ""))
            if action is None:
                raise GPTError(f"jupyter_gpt {__version__} knows no request {request.get('type')}")
            return told | (action(request.get("name", ""), request.get("kind", "")) or {})
        except Exception as error:  # the panel shows it: nobody sees a traceback of this thread
            return told | {"error": message_of(error)}

    def begin(self, what: str, name: str, kind: str, function: Callable[[str, str], object]) -> None:
        """Call `function(name, kind)` on a thread of its own: it waits for the worker, or deletes many files."""
        task = {"type": what, "name": name, "kind": kind, "error": None, "ended": None}

        def work() -> None:
            try:
                function(name, kind)
            except Exception as error:
                task["error"] = message_of(error)
            task["ended"] = time.time()

        with self.lock:
            if any((t["name"], t["kind"], t["ended"]) == (name, kind, None) for t in self.tasks):
                raise GPTError(f"{name} is busy: wait until that is done")
            self.tasks = [t for t in self.tasks if (t["name"], t["kind"]) != (name, kind)] + [task]
        threading.Thread(target=work, name="jupyter_gpt-panel", daemon=True).start()

    def state(self) -> dict:
        """Everything the panel shows, as JSON.

        models: in memory and on disk.  runs: the newest first; `more_runs` are left out.  indexes, endpoints, and the
        address of the server, never its token.  memory: bytes of this kernel; used and total of the machine and of the
        GPUs.  tasks: what was asked for and goes on, or has failed.  An entry that cannot be read is a name with an
        "error".
        """
        with self.lock:
            self.used = set()
            gpt, now = session(), time.time()
            runs, more = self.runs(gpt)
            self.tasks = [t for t in self.tasks if not t["ended"] or (t["error"] and now - t["ended"] < REMEMBERED)]
            state = {
                "protocol": PROTOCOL,
                "version": __version__,
                "home": str(store.home()),
                "models": list(self.models(gpt)),
                "runs": runs,
                "more_runs": more,
                "indexes": list(self.indexes()),
                "endpoints": list(self.endpoints()),
                "server": gpt.serving.server.url if gpt and gpt.serving.server and gpt.serving.server.running else None,
                "memory": memory(),
                "tasks": [{key: t[key] for key in ("type", "name", "kind", "error")} for t in self.tasks],
            }
            self.cache = {key: value for key, value in self.cache.items() if key in self.used}
            return state

    def read(self, key: Hashable, stamp: Any, make: Callable[[], Any], seconds: float = math.inf) -> Any:
        """What `make()` returned when the stamp was the same, and at most so many seconds ago."""
        self.used.add(key)
        found = self.cache.get(key)
        if found is None or found[0] != stamp or time.monotonic() - found[1] > seconds:
            found = self.cache[key] = (stamp, time.monotonic(), make())
        return found[2]

    # models

    def models(self, gpt) -> Iterator[dict]:
        """Those in memory first, then by name."""
        from jupyter_gpt.models.models import ABOUT, Models, is_model

        models = gpt.models if gpt else self.read("models", None, lambda: Models(lambda name: None))
        resident = {model.folder: model for model in list(getattr(models, "resident", {}).values())}
        cached, own = (
            {name: path for name, path in folders(root / "models").items() if is_model(path)}
            for root in (store.cache(), store.home())
        )
        found = cached | own
        for name in sorted(found, key=lambda name: (found[name] not in resident, name)):
            stamp = found[name], store.stamp_of(found[name] / ABOUT)
            about = self.read(("model", name), stamp, lambda name=name: describe_model(models, name))
            here = {"resident": found[name] in resident, "cached": found[name] == cached.get(name)}
            if model := resident.get(found[name]):
                here |= self.read(("memory", name), (id(model.module), model.dtype), lambda model=model: size_of(model))
            yield {"name": name, **about, **here}

    # runs

    def runs(self, gpt) -> tuple[list[dict], int]:
        """The rows, and how many older runs there are."""
        alive = {run.folder: run for run in list(gpt.runs.known.values()) if run.here} if gpt else {}
        stamps = {path: store.stamp_of(path / "recipe.yaml") for path in folders(store.home() / "runs").values()}
        found = {path: stamp for path, stamp in stamps.items() if stamp}
        paths = sorted(found, key=lambda path: found[path], reverse=True)
        listed = [path for i, path in enumerate(paths) if i < RUNS or path in alive]
        return [self.run(path, alive.get(path)) for path in listed], len(paths) - len(listed)

    def run(self, folder: Path, run) -> dict:
        """A row. `run` is the living run of this kernel; `here`, whether the run can be controlled from here."""
        recipe, events = folder / "recipe.yaml", folder / "events.jsonl"
        about = self.read(("recipe", folder), store.stamp_of(recipe), lambda: read_recipe(recipe))
        stamp = store.stamp_of(events)
        size = stamp[1] if stamp else 0
        grown = int(50 * math.log(size)) if size > WHOLE else 0  # by 2%
        early = self.read(("early", folder), grown, lambda: early_events(events, size))
        seen = self.read(("events", folder), stamp, lambda: read_events(events, early))
        row = {"name": folder.name, **about, **seen, "here": run is not None}
        if run is not None:
            row["status"] = run.status
        elif not row["status"] and (held := self.held(folder)):  # it is in processes of its own
            row |= {"status": held, "here": True}
        elif not row["status"]:  # no end: another process trains it, or it was killed
            pid = self.read(("lock", folder), None, lambda: store.lock_holder(folder), RECHECK)
            row["status"] = "running" if pid not in (None, os.getpid()) else "interrupted"
        if row["diverged"] is None:
            row["diverged"] = self.has_diverged(events)
        return row

    def held(self, folder: Path) -> str | None:
        """The status of a run that a launcher holds, or None."""
        from jupyter_gpt.runs import control, failure
        from jupyter_gpt.runs.launchers import launcher

        stamp = store.stamp_of(folder / launcher.HANDLE)
        if stamp is None:
            return None
        handle = self.read(("handle", folder), stamp, lambda: launcher.read_handle(folder))
        if not handle:
            return None
        if self.read(("living", folder), stamp, lambda: launcher.is_alive(handle), LOOK):
            return control.status(folder)
        return "failed" if failure.read(folder) else None

    def has_diverged(self, events: Path) -> bool:
        """Whether a run that has not ended told so, which is looked for only in what is new in its file."""
        self.used.add(("alarm", events))
        end, _, found = self.cache.get(("alarm", events), (0, 0.0, False))
        with suppress(FileNotFoundError), events.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 100) if size >= end else 0)
            found = (found and size >= end) or b'"cause": "diverged"' in file.read()
            self.cache["alarm", events] = (size, 0.0, found)
        return found

    # indexes and endpoints

    def indexes(self) -> Iterator[dict]:
        for name, folder in sorted(folders(store.home() / "indexes").items()):
            if stamp := store.stamp_of(folder / "index.json"):
                about = self.read(("index", name), stamp, lambda folder=folder: describe_index(folder))
                if "error" not in about:
                    counted = store.stamp_of(folder / "chunks.sqlite"), store.stamp_of(folder / "chunks.sqlite-wal")
                    known = self.cache.get(("counts", name))
                    if known and time.monotonic() - known[1] < RECHECK:
                        counted = known[0]  # an index that is being made changes all the time
                    about |= self.read(("counts", name), counted, lambda folder=folder: count(folder))
                yield {"name": name, **about}

    def endpoints(self) -> list[dict]:
        from jupyter_gpt.models.endpoints import places

        stamp = tuple(store.stamp_of(path) for path in places())
        return self.read("endpoints", stamp, describe_endpoints)


def message_of(error: Exception) -> str:
    return str(error) if isinstance(error, GPTError) else f"{type(error).__name__}: {error}"


def folders(root: Path) -> dict[str, Path]:
    """The folders in `root` that have a valid name."""
    try:
        return {each.name: root / each.name for each in os.scandir(root) if store.NAME.fullmatch(each.name)}
    except OSError:  # there is none yet
        return {}


def describe_model(models, name: str) -> dict:
    """What its files say."""
    from jupyter_gpt.models.listing import kind_of

    try:
        with reading(f"model {name}", "%gpt delete removes it"):
            model = models.about(name)
            return {
                "kind": kind_of(model),
                "parameters": model.parameters,
                "trained": model.trained if model.base else None,
                "base": model.base,
                "lineage": list(model.lineage),
                "licence": model.licence,
                "disk": model.on_disk,
            }
    except GPTError as error:
        return {"error": str(error)}


def size_of(model) -> dict:
    """Of a model in memory. Looks at its tensors, but for their sizes at none of their values."""
    return {"memory": model.memory, "dtype": model.dtype, "device": model.device}


def describe_index(folder: Path) -> dict:
    from jupyter_gpt.retrieval.index import Index

    try:
        return {"embedder": Index(folder).about["embedder"]}
    except GPTError as error:
        return {"error": str(error)}


def count(folder: Path) -> dict:
    from jupyter_gpt.retrieval.index import Index

    try:
        files = Index(folder)
        counts = files.counts()
        return {"documents": counts["documents"], "chunks": counts["chunks"], "disk": files.size}
    except (GPTError, OSError) as error:
        return {"error": str(error)}


def describe_endpoints() -> list[dict]:
    """Their names and addresses; a file that cannot be read is one of them."""
    from jupyter_gpt.models.endpoints import Endpoints

    declared, found = Endpoints(), []
    try:
        names = list(declared)
    except GPTError as error:
        return [{"name": "endpoints.json", "error": str(error)}]
    for name in names:
        try:
            found.append({"name": name, "model": declared[name].model, "url": declared[name].base_url})
        except GPTError as error:
            found.append({"name": name, "error": str(error)})
    return found


def memory() -> dict:
    """Bytes: of this kernel, and used and total of the machine and of each GPU that this kernel uses."""
    import psutil

    machine = psutil.virtual_memory()
    found = {
        "kernel": psutil.Process().memory_info().rss,
        "machine": [machine.total - machine.available, machine.total],
    }
    return {**found, "gpus": gpus()}


def gpus() -> list[list]:
    """Name, bytes that this kernel has reserved, and all bytes of each GPU. Asks torch's allocator, not the driver:
    that could spoil the CUDA graph that another thread records.
    """
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if not hasattr(cuda, "get_device_properties") or not cuda.is_initialized():  # torch may be half imported
        return []
    found = [(cuda.get_device_properties(i), cuda.memory_reserved(i)) for i in range(cuda.device_count())]
    return [[about.name, reserved, about.total_memory] for about, reserved in found]


def run_to_control(name: str):
    """The run. Raises GPTError where neither this kernel nor a launcher holds it."""
    from jupyter_gpt.runs.run import Run

    gpt = session()
    folder = store.home() / "runs" / store.check_name(name)
    run = gpt.runs.known.get(folder) if gpt else None
    if run is not None and run.here:
        return run
    if not (folder / "launcher.json").exists() or not (run := Run(folder)).held:
        raise GPTError(f"run {name} is not running in this kernel")
    return run


def stop(name: str) -> None:
    """Stops a run, unless it stops already: a second `run.stop()` would leave its evaluation out."""
    run = run_to_control(name)
    if run.status != "stopping":
        run.stop()


def show(name: str, kind: str) -> dict:
    """The report's formats, as `%gpt show NAME` shows them."""
    from jupyter_gpt import gpt
    from jupyter_gpt.notebook.views.inspect import view_of_run

    data, metadata = view_of_run(gpt.runs[name])._repr_mimebundle_()
    return {"data": data, "metadata": metadata}


def unload_model(name: str, kind: str) -> None:
    gpt = session()
    if gpt:
        gpt.models.unload(name)


def delete(name: str, kind: str) -> None:
    from jupyter_gpt import gpt

    gpt.delete(name, kind=[kind])
