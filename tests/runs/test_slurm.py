"""`--on slurm`, with Slurm itself: two nodes on loopback, both of them this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import slurm_cluster
from helpers.processes import of_folder, wait_until
from helpers.stopping import hold_at
from helpers.tiny import tiny_run
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.launchers import launcher, node, slurm
from jupyter_gpt.runs.launchers.launcher import Launch

RANK = str(Path(slurm_cluster.__file__).with_name("rank_alone.py"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if why := slurm_cluster.install():
        pytest.skip(why)
    found = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    yield found
    found.stop()


@pytest.fixture
def on_cluster(cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NTASKS", "17")  # as if the notebook ran in a job itself
    return cluster


def test_ranks_on_two_nodes_meet_and_scancel_leaves_none(on_cluster, tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    home = {"JUPYTER_GPT_HOME": "here, $there and 'everywhere'"}
    launch = Launch(folder=folder, rank=(RANK, str(folder), "600"), nodes=2, environment=home, directory=tmp_path)
    handle = slurm.start(launch)
    assert slurm.alive(handle)
    wait_until(lambda: len(list(folder.glob("rank-*"))) == 2 or not slurm.alive(handle))
    assert [(folder / f"rank-{n}").read_text() for n in (0, 1)] == [f"3 2 0 {home['JUPYTER_GPT_HOME']}"] * 2
    slurm.stop(handle)
    wait_until(lambda: not slurm.alive(handle))
    assert slurm.state_of(handle) == "CANCELLED"
    wait_until(lambda: not of_folder(folder))
    assert slurm.logs(handle, folder) == [folder / "logs" / "slurm.log"]


def test_a_run_is_trained_and_stopped_on_two_nodes_and_refused_by_nodes_with_other_packages(
    on_cluster, gpt, tmp_path, monkeypatch
):
    shown = tiny_run(gpt, steps=3, on="slurm", nodes=1, dry_run=True)
    assert "#SBATCH --nodes=1" in shown.text and "torch.distributed.run --nnodes=1" in shown.text
    assert "tiny" not in gpt.runs and "GLOO" not in shown.text
    launcher.configure("slurm", {"time": "5", "options": "--comment='as the site wants it'"})
    with pytest.raises(GPTError, match=r"sbatch failed: .*[Pp]artition"):
        launcher.configure("slurm", {"partition": "nowhere"})
        tiny_run(gpt, steps=3, on="slurm")
    assert "tiny" not in gpt.runs
    launcher.configure("slurm", {"partition": ""})

    hold_at(monkeypatch, 2)
    run = tiny_run(gpt, steps=400, on="slurm", nodes=2, detach=True, checkpoint_every=1)
    assert run.status == "running" and run.handle["launcher"] == "slurm"
    script = (run.folder / "slurm.sh").read_text()
    assert "--time=5\n" in script and "--partition" not in script
    wait_until(lambda: run.step == 2 or not run.alive)
    run.stop()
    run.wait()
    assert run.status == "stopped" and run.step == 2 and gpt.models["tiny"].folder.exists()
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) and run.handle["nodes"] == 2
    wait_until(lambda: not of_folder(run.folder))

    # other packages on the nodes
    other = {**node.versions(), "torch": "1.0"}
    with monkeypatch.context() as patch:
        patch.setattr(node, "versions", lambda: other)
        with pytest.raises(GPTError, match=r"node n\d has torch .* instead of 1.0: install the same on all nodes"):
            gpt.resume("tiny", on="slurm")
    wait_until(lambda: not of_folder(run.folder))


def test_a_requeued_job_goes_on_from_its_last_checkpoint(on_cluster, gpt):
    launcher.configure("slurm", {"time": "5"})
    run = tiny_run(gpt, steps=600, on="slurm", nodes=2, detach=True, checkpoint_every=10)
    wait_until(lambda: run.step >= 15 or not run.alive)
    slurm.slurm("scontrol", "requeue", run.handle["job"])
    wait_until(lambda: slurm.state_of(run.handle) == "PENDING")
    assert run.status == "running" and run.alive and run.step < 600
    wait_until(lambda: not of_folder(run.folder))
    (step,) = [int(path.name[5:]) for path in sorted((run.folder / "checkpoints").iterdir())[-1:]]
    slurm.slurm("scontrol", "update", f"jobid={run.handle['job']}", "starttime=now")
    run.wait()
    assert run.status == "finished" and gpt.models["tiny"].step == 600
    assert [event["step"] for event in run.events if event["event"] == "step"] == list(range(1, 601))
    assert [event["step"] for event in run.events if event["event"] in ("start", "end")] == [0, step, 600]


def test_a_job_that_waits_is_cancelled_by_stop(on_cluster, gpt):
    launcher.configure("slurm", {"options": "--hold"})
    run = tiny_run(gpt, steps=3, on="slurm", detach=True)
    assert run.status == "running"
    run.stop()
    with pytest.raises(GPTError, match=r"tiny was interrupted: .* was cancelled before it began"):
        run.wait()
    assert run.status == "interrupted"


def test_without_slurm_and_with_a_controller_that_does_not_answer(monkeypatch, gpt, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GPTError, match="--on slurm needs sbatch: run the notebook on a machine that submits"):
        tiny_run(gpt, on="slurm")
    assert "tiny" not in gpt.runs
    with pytest.raises(GPTError, match="--devices all is known for this machine only"):
        tiny_run(gpt, on="slurm", devices="all")
    squeue = tmp_path / "squeue"
    squeue.write_text(
        f"#!{sys.executable}\nimport sys\nsys.exit('slurm_load_jobs error: Unable to contact the controller')\n"
    )
    squeue.chmod(0o755)
    assert slurm.alive({"job": "away", "folder": str(tmp_path)})  # jobs survive their controller


def test_a_node_that_does_not_see_the_folder(tmp_path, monkeypatch):
    made = node.token(tmp_path / "logs")
    assert node.problem(tmp_path, made, node.versions()) is None
    monkeypatch.setattr(node, "PATIENCE", 0.0)
    assert "the nodes and the notebook need a shared folder" in node.problem(tmp_path / "other", made, {})
    assert "need a shared folder" in node.problem(tmp_path, "older", {})
    command = [sys.executable, "-m", "jupyter_gpt.runs.launchers.node"]
    assert 1024 < int(subprocess.run([*command, "port"], capture_output=True, check=True).stdout) < 65536


def test_gpus_are_asked_for_where_the_partition_has_some(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm, "need", lambda command: None)
    monkeypatch.setattr(slurm, "slurm", lambda *command, **options: "gpu:h100:8\n")
    site = {"partition": "gpu", "setup": "module load cuda", "image": "nvcr.io#nvidia/pytorch", "python": "python3"}
    launch = Launch(folder=tmp_path, rank=("-m", "x"), devices=8, nodes=2, settings=site)
    script = slurm.preview(launch)
    assert "#SBATCH --gpus-per-node=8\n" in script and "#SBATCH --cpus-per-task=32\n" in script
    assert "\nmodule load cuda\n" in script and "--container-image='nvcr.io#nvidia/pytorch' python3 -m" in script
    assert "--gpus-per-node" not in slurm.script(
        Launch(folder=tmp_path, rank=("-m", "x"), settings={**site, "gpus": "no"}), "t"
    )
