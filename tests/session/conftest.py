"""A session of its own for each test, and a corpus small enough to train on in seconds."""

import pytest

TINY = {
    "depth": 2,
    "width": 32,
    "heads": 2,
    "context": 32,
    "vocab_size": 300,
    "batch_tokens": 128,
    "rows": 2,
    "sample_every": 1000,
}
DOCUMENTS = [
    f"The {a} {b} saw {n} small birds and was {c}. It sang."
    for n in range(2, 12)
    for a in ("old", "red", "tall")
    for b in ("fox", "hen")
    for c in ("glad", "sad")
]


@pytest.fixture(autouse=True)
def one_thread():
    """Small models are quicker on one thread, above all on a busy machine; KILLED sets the same for its process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpt(tmp_path, monkeypatch):
    from jupyter_gpt.session import Session

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return Session()


@pytest.fixture
def train(gpt):
    """`train(name, **options)`: a tiny run on `$docs`."""

    def start(name="tiny", **options):
        return gpt.pretrain(name, {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, **options})

    return start
