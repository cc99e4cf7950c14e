"""Indexes of the store: made, found again, refused; killed and gone on with; moved."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers.errors import fail
from jupyter_gpt.session import Session

TEXTS = {
    "leave": "Leave is 27 days a year.",
    "trains": "Trains are second class.",
    "it": "The printer is called Gutenberg.",
}


@pytest.fixture
def made(gpt, tiny_model):
    """`made(**options)`: an index `kb` of TEXTS, embedded with a model of the kernel."""
    tiny_model(gpt, "small")

    def make(**options):
        return gpt.index(
            "kb", "$texts", **{"embedder": "small", "variables": {"texts": TEXTS}, "chunk_tokens": 40, **options}
        )

    return make


def test_it_is_made_and_found_again_in_a_new_kernel(gpt, made):
    kept = made()
    assert kept is gpt.indexes["kb"] and len(kept) == 3 and list(gpt.indexes) == ["kb"]
    assert kept.report.added == ["$texts[leave]", "$texts[trains]", "$texts[it]"]
    hits = kept.search(TEXTS["trains"], k=2)
    assert (hits[0].text, hits[0].source, hits[0].page) == (TEXTS["trains"], "$texts[trains]", None)
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    again = Session().indexes["kb"]
    assert [hit.text for hit in again.search(TEXTS["trains"], k=2)] == [hit.text for hit in hits]
    assert repr(again) == "<index kb: 3 documents, 3 chunks, embedded with small>"


def test_the_same_again_embeds_nothing_and_needs_no_embedder(gpt, made, monkeypatch):
    made()
    monkeypatch.setattr(gpt.indexes.embedders, "get", lambda *_: pytest.fail("an embedder was asked for"))
    assert made().report.unchanged == 3


def test_its_sources_are_remembered_and_kept_unless_let_go(gpt, made, tmp_path):
    made()
    variables = {"texts": TEXTS, "more": ["Hotels may cost 140 euros."]}
    assert "--add keeps it, --overwrite removes it" in fail(gpt.index, "kb", "$more", variables=variables)
    assert len(gpt.index("kb", "$more", variables=variables, add=True)) == 4
    assert gpt.index("kb", variables=variables).report.unchanged == 4
    kept = gpt.index("kb", "$more", variables=variables, overwrite=True)
    assert kept.documents == ["$more[0]"] and kept.report.embedded == 0


def test_other_settings_make_it_anew_only_when_told(gpt, made):
    made()
    assert "40 tokens per chunk, not 20" in fail(made, chunk_tokens=20)
    assert made(chunk_tokens=20, overwrite=True).about["chunk_tokens"] == 20
    assert [path.name for path in gpt.indexes.folder("kb").parent.iterdir()] == ["kb"]


def test_another_embedder_is_refused(gpt, made, tiny_model):
    kept = made()
    tiny_model(gpt, "other")
    assert "embedder small, not other" in fail(made, embedder="other")
    tiny_model(gpt, "small", seed=1)  # trained anew since
    assert "another small than the one that is here now" in fail(kept.search, "leave")
    assert "--overwrite" in fail(gpt.index, "kb", "$texts", variables={"texts": {**TEXTS, "new": "News."}})
    assert made(overwrite=True).search(TEXTS["it"])[0].source == "$texts[it]"


def test_a_folder_in_the_layout_of_sentence_transformers(gpt, tiny_model, tmp_path):
    from transformers import BertConfig, BertModel

    model = tiny_model(gpt, "small")
    folder = tmp_path / "embedder"
    BertModel(
        BertConfig(
            vocab_size=len(model.tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    kept = gpt.index("kb", "$texts", embedder=str(folder), chunk_tokens=40, variables={"texts": TEXTS})
    assert kept.search(TEXTS["it"], k=1)[0].score == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"chunk_tokens": 1000}, "more than small reads: at most 64"),
        ({"chunk_tokens": 2}, "--chunk-tokens 2 must be 8 or more"),
        ({"overlap": 40}, "--overlap"),
        ({"embedder": "smal"}, "did you mean small?"),
        ({"embedder": "./nowhere"}, "no such folder"),
        ({"variables": {"texts": {"a": " "}}}, "nothing to index"),
    ],
)
def test_what_cannot_be_indexed(gpt, made, options, said):
    assert said in fail(made, **options)
    assert "kb" not in gpt.indexes


def test_what_cannot_be_asked(gpt, made):
    kept = made()
    assert "the question is empty" in fail(kept.search, " ")
    assert "--k 0 must be above zero" in fail(kept.search, "x", k=0)
    assert "from 0 to 1, not 7" in fail(kept.search, "x", hybrid=7)
    assert "leave one out" in fail(kept.search, "x", hybrid=True, keyword=True)
    assert "did you mean kb?" in fail(lambda: gpt.indexes["k"])
    assert "cannot be a name" in fail(lambda: gpt.indexes["../kb"])
    assert "index new has no sources" in fail(gpt.index, "new")


def test_it_can_be_moved(gpt, made, tmp_path, monkeypatch):
    before = [hit.text for hit in made().search("printer", k=3, hybrid=True)]
    shutil.copytree(gpt.home, tmp_path / "elsewhere")
    shutil.rmtree(gpt.home)
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "elsewhere"))
    assert [hit.text for hit in Session().indexes["kb"].search("printer", k=3, hybrid=True)] == before


def test_an_interrupt_keeps_what_was_done(gpt, made):
    texts = [f"Document {n} tells of {n} birds. It sang." for n in range(4000)]

    interrupted = []

    def interrupt(what, done, total):
        if what == "embedding" and not interrupted:
            interrupted.append(done)
            raise KeyboardInterrupt

    made()
    variables = {"many": texts}
    kept = gpt.index("many", "$many", embedder="small", chunk_tokens=40, variables=variables, progress=interrupt)
    assert kept.report.stopped and 0 < kept.report.embedded < 4000
    again = gpt.index("many", variables=variables)
    assert not again.report.stopped and again.report.embedded == 4000 - kept.report.embedded
    assert len(again) == 4000


KILLED = """
import os, sys
from jupyter_gpt import gpt
texts = [f"Document {n} tells of {n} birds. It sang." for n in range(600)]
def told(what, done, total):
    if what == "embedding":
        print(what, done, flush=True)
gpt.index("many", "$texts", embedder="small", chunk_tokens=40, variables={"texts": texts}, progress=told)
"""


def test_a_killed_run_goes_on_where_it_was(gpt, made, monkeypatch):
    made()
    slow = "import jupyter_gpt.retrieval.build as b, time\nb.KEEP = 0\nreal = b.Index.append\n"
    slow += "b.Index.append = lambda *a: (real(*a), time.sleep(0.2))\n"
    with subprocess.Popen([sys.executable, "-c", slow + KILLED], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line.split()[1]) > 0:
                break
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    texts = [f"Document {n} tells of {n} birds. It sang." for n in range(600)]
    done = 600 - gpt.indexes["many"].files.counts()["pending"]
    assert 0 < done < 600
    kept = gpt.index("many", variables={"texts": texts})
    assert kept.report.embedded == 600 - done and kept.files.counts()["pending"] == 0
    norms = np.linalg.norm(kept.files.matrix(), axis=1)
    assert np.allclose(norms, 1, atol=1e-4)


def test_another_process_that_writes_it_is_named(gpt, made):
    made()
    code = (
        "from jupyter_gpt.session import store; store.lock(store.home() / 'indexes' / 'kb', 'it is'); "
        "print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        said = fail(gpt.index, "kb", "$texts", variables={"texts": {**TEXTS, "new": "News."}})
        assert said.startswith(f"index kb is being made by another process (pid {process.pid})")
        process.communicate(b"\n")
    assert len(gpt.index("kb", "$texts", variables={"texts": {**TEXTS, "new": "News."}})) == 4


def test_an_index_that_is_damaged_can_be_made_anew(gpt, made):
    kept = made()
    (kept.folder / "chunks.sqlite").write_bytes(b"no database, but long enough to be looked at " * 20)
    assert "damaged" in fail(made)
    assert made(overwrite=True).search(TEXTS["it"])[0].source == "$texts[it]"
