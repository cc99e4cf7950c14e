"""`--on ray`: with Ray's local cluster of two workers where Ray is installed; what is ours of it everywhere."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import torch.distributed as dist

import helpers
from helpers.processes import of_folder, wait_until
from helpers.tiny import tiny_run
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.follow import nothing_yet
from jupyter_gpt.runs import failure, payload
from jupyter_gpt.runs.launchers import launcher, node, ray, ray_driver
from jupyter_gpt.runs.launchers.launcher import Launch

RANK = str(Path(helpers.__file__).with_name("rank_alone.py"))
HOLDS = """
import ray, time
ray.init("auto")
held = ray.remote(lambda: time.sleep(999)).remote()
while ray.available_resources()["CPU"] > 1:
    time.sleep(0.1)
print("held", flush=True)
ray.get(held)
"""
PATH = os.pathsep.join(path for path in sys.path if path)


def launch_in(folder, *rest, **options):
    environment = {"PYTHONPATH": PATH, "JUPYTER_GPT_HOME": "h", "GLOO_SOCKET_IFNAME": "lo"}
    return Launch(folder=folder, rank=(RANK, str(folder), *rest), environment=environment, directory=folder, **options)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'jupyter_gpt[ray]'")
def test_ray_places_two_ranks_restarts_a_lost_one_and_leaves_nothing(tmp_path):
    launch = launch_in(tmp_path, "lost", "600", devices=2)
    handle = launcher.write_handle("ray", launch, ray.start(launch))
    wait_until(lambda: (tmp_path / "lost").exists() or not ray.alive(handle))
    for n in (0, 1):
        (tmp_path / f"rank-{n}").unlink(missing_ok=True)
    wait_until(lambda: len(list(tmp_path.glob("rank-*"))) == 2 or not ray.alive(handle))
    assert [(tmp_path / f"rank-{n}").read_text() for n in (0, 1)] == ["3 2 0 h", "3 2 1 h"]
    driver = psutil.Process(handle["pid"])
    ours = [driver, *driver.children(recursive=True)]
    ray.stop(handle)
    wait_until(lambda: not ray.alive(handle) and not of_folder(tmp_path) and not psutil.wait_procs(ours, 0.1)[1], 10)
    assert [path.name for path in ray.logs(handle, tmp_path)] == ["ray-rank-0.log", "ray-rank-1.log", "ray.log"]


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'jupyter_gpt[ray]'")
def test_a_run_goes_on_from_its_checkpoint_when_ray_restarts_it(gpt):
    options = {"steps": 60, "on": "ray", "devices": 2, "checkpoint_every": 1}
    run = tiny_run(gpt, detach=True, **options)
    wait_until(lambda: run.step >= 3 or not run.alive)
    ranks = [p for p in of_folder(run.folder) if "jupyter_gpt.stages.run_process" in p.info["cmdline"]]
    assert len(ranks) == 2
    ranks[1].kill()
    run.wait()
    assert run.status == "finished" and (run.folder / "logs" / "ray-started").exists()
    steps = [event["step"] for event in run.events if event["event"] == "step"]
    assert steps == list(range(1, 61)) and gpt.models["tiny"].folder.exists()
    wait_until(lambda: not of_folder(run.folder), 60)
    assert run.status == "finished"


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'jupyter_gpt[ray]'")
def test_a_busy_cluster_is_waited_for_and_the_wait_can_be_stopped(gpt, tmp_path, monkeypatch):
    """In the cluster that `ray start` has started, without its address, a program has one of two CPUs."""
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/jg-{os.getpid()}")  # sockets in it: a long path is refused
    start = ["start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--block"]
    script = [sys.executable, "-m", "ray.scripts.scripts"]
    cluster = subprocess.Popen([*script, *start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    busy = None
    try:
        current = Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster")
        wait_until(lambda: current.exists() or cluster.poll() is not None, 60)
        busy = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert busy.stdout is not None and busy.stdout.readline()
        run = tiny_run(gpt, detach=True, on="ray", devices=2, steps=4)
        wait_until(lambda: run.events or not run.alive)
        assert (
            "running before its first step: waiting for 2 CPUs of the Ray cluster, 1 of 2 free" in nothing_yet(run).text
        )
        began = time.monotonic()
        run.stop()
        wait_until(lambda: not run.alive, 30)
        assert run.status == "stopped" and time.monotonic() - began < 10 and not of_folder(run.folder)
        busy.kill()
        run = tiny_run(gpt, detach=True, overwrite=True, on="ray", devices=2, steps=4).wait()
        assert run.status == "finished" and cluster.poll() is None
    finally:
        for process in filter(None, (busy, cluster)):
            for each in (*psutil.Process(process.pid).children(recursive=True), process):
                each.kill()
            process.wait()
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


def test_without_ray_it_says_so(gpt, monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(GPTError, match="--on ray needs Ray: pip install"):
        tiny_run(gpt, on="ray:auto")
    assert "tiny" not in gpt.runs
    monkeypatch.setattr(ray, "find_spec", lambda name: name)
    with pytest.raises(GPTError, match="a setting of launcher ray is not a number"):
        ray.preview(Launch(folder=gpt.home, rank=(), settings={"cpus": "many"}))
    said = ray.preview(Launch(folder=gpt.home, rank=(), devices=4, nodes=2, settings={"address": "auto", "cpus": "2"}))
    asked = {"address": "auto", "workers": 8, "gpus": None, "placement": "PACK", "cpus": 2.0, "restarts": 2}
    assert json.loads(said.partition("#")[2]) == asked


@pytest.fixture
def fake_ray(monkeypatch):
    """Ray as far as it is used, with one worker: this process."""
    own = SimpleNamespace(resources={"CPU": 2.0}, asked={}, addresses=[])

    class TorchTrainer:
        def __init__(self, work, *, train_loop_config, scaling_config, run_config, **others):
            self.work, self.told = work, train_loop_config
            own.asked = {**scaling_config, **run_config}

        def fit(self):
            for attempt in range(own.asked["failure_config"]["max_failures"] + 1):
                try:
                    return self.work(self.told)
                except RuntimeError:
                    if attempt == own.asked["failure_config"]["max_failures"]:
                        raise

    def init(address, **options):
        own.addresses.append(address)
        if address != "local":
            raise ConnectionError(f"Could not find any running Ray instance at {address}\nmore")

    modules = {name: ModuleType(name) for name in ("ray", "ray.train", "ray.train.torch")}
    modules["ray"].init, modules["ray"].shutdown = init, lambda: None
    modules["ray"].cluster_resources = modules["ray"].available_resources = lambda: own.resources
    modules["ray"].util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
    for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
        setattr(modules["ray.train"], name, dict)
    modules["ray.train.torch"].TorchTrainer, modules["ray.train.torch"].TorchConfig = TorchTrainer, dict
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield own
    dist.destroy_process_group()


def driven(folder, monkeypatch, *rest, **changes):
    """What the driver of a run returns, called here."""
    launch = launch_in(folder, *rest)
    spec = {**ray.spec(launch, node.token(launch.logs)), **changes}
    monkeypatch.setenv(ray.SPEC, json.dumps(spec))
    monkeypatch.setattr(sys, "argv", ["ray_driver", str(folder)])
    monkeypatch.setattr(ray_driver, "GRACE", 0.0)
    return ray_driver.main()


def test_the_driver_and_a_worker_that_is_lost_once(tmp_path, monkeypatch, fake_ray):
    payload.write(tmp_path, b"what the notebook sends")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6379")  # which is gone: one of its own is started
    assert driven(tmp_path, monkeypatch) == 0 and fake_ray.addresses == [None, "local"]
    assert (tmp_path / "rank-0").read_text() == "1 1 0 h"
    assert fake_ray.asked["num_workers"] == 1 and fake_ray.asked["resources_per_worker"] == {"CPU": 1.0}
    payload.remove(tmp_path)  # as rank 0 does once all have read it
    (tmp_path / "rank-0").unlink()
    assert ray_driver.before(tmp_path, b"what the notebook sends")
    assert (tmp_path / payload.FILE).read_bytes() == b"what the notebook sends"
    assert driven(tmp_path, monkeypatch, "fails", restarts=1) == 1
    assert (tmp_path / "logs" / "ray-rank-0.log").read_text().count("this rank fails") == 2
    assert failure.read(tmp_path)["error"] == "RuntimeError: rank 0 ended with exit status 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "other"}, "does not see .*: the nodes and the notebook need a shared folder"),
        ({"versions": {"torch": "1.0"}}, "has torch .* instead of 1.0: install the same on all nodes"),
        ({"workers": 8}, "the workers need 8 CPUs, and the Ray cluster has 2"),
        ({"gpus": "yes"}, "the workers need 1 GPUs, and the Ray cluster has 0"),
        ({"address": "nowhere:6379"}, "no Ray cluster can be used at nowhere:6379: Could not find any running Ray"),
    ],
)
def test_what_cannot_run_is_one_line(tmp_path, monkeypatch, fake_ray, changes, message):
    import re

    monkeypatch.setattr(node, "PATIENCE", 0.0)
    assert driven(tmp_path, monkeypatch, restarts=0, **changes) == 1
    said = failure.read(tmp_path)
    assert re.search(message, said["error"]) and "\n" not in said["error"] and said["frames"] == []


def test_a_rank_that_has_told_why_it_failed_is_not_started_again(tmp_path):
    (tmp_path / "logs").mkdir()
    assert ray_driver.before(tmp_path, b"")
    failure.write(tmp_path, 0, GPTError("the reward must return a number"))
    assert not ray_driver.before(tmp_path, b"")
    lost = {"rank": 0, "error": "Connection reset", "frames": [[str(failure.OURS / "runs" / "runner.py"), 1, "f"]]}
    store.write_json(failure.path_of(tmp_path, 0), lost)
    assert ray_driver.before(tmp_path, b"") and failure.read(tmp_path) is None
    users = {**lost, "error": "ZeroDivisionError", "frames": [["/tmp/ipykernel_1/2.py", 1, "reward"]]}
    store.write_json(failure.path_of(tmp_path, 0), users)
    assert not ray_driver.before(tmp_path, b"")
    failure.clear(tmp_path)
    end = {"event": "end", "status": "finished", "step": 3, "time": 0.0, "seconds": 1.0}
    (tmp_path / "events.jsonl").write_text(json.dumps(end) + "\n")
    assert not ray_driver.before(tmp_path, b"")  # it has ended: a process that fails after that changes nothing
    assert (tmp_path / "events.jsonl").read_text()
