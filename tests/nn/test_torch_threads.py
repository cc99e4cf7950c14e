"""The threads that torch keeps for whoever has multiplied."""

import sys
from pathlib import Path

import pytest
import torch

from jupyter_gpt.nn.devices import gcc_openmp
from jupyter_gpt.runs.worker import Worker


def threads():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(sys.platform != "linux" or gcc_openmp() is None, reason="torch does not use GCC's OpenMP here")
def test_a_job_has_the_cores_to_itself_whatever_was_multiplied_before(monkeypatch):
    before_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        a = torch.randn(512, 512)
        expected = a @ a  # the pool of this thread
        worker = Worker("alone")
        before = threads()

        def job():
            yield
            return threads()

        assert worker.submit(job()).wait() < before
        assert torch.equal(a @ a, expected)  # and it comes back
        assert threads() >= before
    finally:
        torch.set_num_threads(before_threads)
