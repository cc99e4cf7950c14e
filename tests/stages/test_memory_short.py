"""Memory that runs out: one line, what was taken is given back, and the next prompt works."""

import sys

import pytest

from helpers.apart import printed

SHORT = """
import psutil, resource
from helpers.tiny import DOCUMENTS, TINY
from jupyter_gpt import gpt
from jupyter_gpt.errors import GPTError
gpt.pretrain("t", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, "width": 64, "steps": 1})
gpt.prompt("The old fox", model="t", max_tokens=2)
limit = psutil.Process().memory_info().vms + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for samples in (20_000, 1, 20_000, 1):
    try:
        done = gpt.prompt("The old fox", model="t", max_tokens=24 if samples > 1 else 2, samples=samples)
        print(len(done.text) > 0, flush=True)
    except GPTError as error:
        print(error, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the memory of a process cannot be limited here")
def test_what_does_not_fit_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    line = r"20,000 answers of 28 tokens, prompt included, do not fit into memory: "
    said = printed(SHORT).splitlines()
    assert [text.startswith(line) for text in said] == [True, False, True, False] and said[1::2] == ["True", "True"], (
        said
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        OSError(12, "memory"),
    ],
)
def test_every_way_to_say_it_is_known(error):
    from jupyter_gpt.errors import is_out_of_memory

    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape [2, 3] is invalid for input of size 7"))
