"""Two ranks, of two torchrun agents as on two machines, against one process: one pair of processes takes the steps of
every kind of run.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import rank_runs
from jupyter_gpt.session import Session

TESTS = Path(__file__).parents[1]
CLOSE = {"abs": 1e-5, "rel": 1e-5}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The steps of every run, of one process and of two ranks."""
    import torch

    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-id", "tests", "--rdzv-endpoint", meeting, "--local-addr", "127.0.0.1"]
    command += ["-m", "helpers.rank_runs", str(folder)]
    with (folder / "log").open("w") as log:
        agents = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(2)]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            with pytest.MonkeyPatch.context() as patch:
                for key in ("HOME", "CACHE", "CONFIG"):
                    patch.setenv(f"JUPYTER_GPT_{key}", str(folder / "one" / key))
                gpt = Session()
                rank_runs.fox(gpt)
                one = rank_runs.take(gpt, rank_runs.RUNS, folder / "one")
                assert not any(agent.wait(600) for agent in agents), (folder / "log").read_text()
                for name in rank_runs.RESUMED:
                    one[name + " by one"] = rank_runs.resumed(gpt, name, folder / name)
        finally:
            torch.set_num_threads(threads)
            for agent in agents:
                agent.terminate()  # and it ends its rank
                agent.wait()
    return one, json.loads((folder / "steps.json").read_text())


@pytest.mark.parametrize("name", [*rank_runs.RUNS, *rank_runs.CUT])
def test_two_ranks_take_the_steps_of_one(both, name):
    one, two = both[0][name.removesuffix(rank_runs.SHARD)], both[1][name]
    assert len(one) == len(two)
    assert len({step["grad_norm"] for step in one}) == len(one)  # something was learned
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, **CLOSE)


@pytest.mark.parametrize("name", rank_runs.RESUMED)
def test_a_checkpoint_is_no_ranks_own(both, name):
    one, two = both
    last = two[name][-rank_runs.LAST :]
    assert two[name + " again"] == last
    for alone, together in zip(one[name + " by one"], last, strict=True):
        assert alone == pytest.approx(together, **CLOSE)


def test_a_gradient_that_only_some_ranks_have_is_summed_and_one_that_none_has_stays_none(both):
    assert both[1]["gradients"] == [[2.0, 2.0], [3.0, 3.0], None]
