"""The tables of models: what is here, and what is published."""

import json
import re

import pytest

from helpers.rendered import folded, visible
from jupyter_gpt.models.catalogue import CATALOGUE
from jupyter_gpt.models.listing import catalogue_report, models_report
from jupyter_gpt.nn.sizes import short
from jupyter_gpt.session import Session


@pytest.fixture
def real(tmp_path, monkeypatch) -> Session:
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    return Session()


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a text table by their first cell; the cells."""
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_models_say_what_they_are_and_where(real, tiny_model):
    fox = tiny_model(real, "fox")
    real.models.keep("heir", fox.module, fox.tokenizer, "finetune", None, ["fox", "heir (finetune)"], 2, "MIT")
    tiny_model(real, "talker", chat=True)
    real.unload("talker")
    report = models_report(real.models)
    found = rows(report.text)
    count = short(fox.parameters)
    size = f"«{fox.on_disk / 1e3:,.0f} kB»"
    assert found["fox"] == [count, "base", "fox (pretrain)", "not stated", size, "«cpu, float32, 145 kB»"]
    assert found["heir"][:4] == [count, "base", "fox → heir (finetune)", "MIT"]
    assert found["talker"][1] == "assistant" and found["talker"][-1] == "on disk"
    assert not real.models.about("talker").resident, "listing loads nothing"
    assert report.data["models"][1] == {
        "name": "heir",
        "parameters": fox.parameters,
        "assistant": False,
        "lineage": ["fox", "heir (finetune)"],
        "licence": "MIT",
        "base": None,
        "trained": 0,
    }
    assert report.metadata["fox"]["memory"] == fox.memory and "memory" not in json.dumps(report.data)
    assert {"cpu, float32, 145 kB", "assistant"} <= set(visible(report.html).split("\n"))


def test_what_others_left_in_the_cache_is_shown_and_folded(real, tiny_model, tmp_path, monkeypatch):
    tiny_model(real, "fox")
    folder = real.save("fox", tmp_path / "saved")
    real.pull(str(folder), "mine")
    before = models_report(real.models)
    assert before.text.endswith("also in this user's cache:\n\n«nothing»")
    Session().pull(str(folder), "theirs")
    after = models_report(real.models)
    assert rows(after.text)["theirs"][1:4] == ["base", "fox (pretrain)", "not stated"]
    assert rows(after.text)["mine"] and ">theirs<" in after.html
    assert "theirs" not in folded(after.text) + folded(after.html) + json.dumps(after.data)
    assert folded(after.text) == folded(before.text)
    assert folded(after.html) == folded(before.html)
    assert after.data == before.data


def test_the_session_its_models_and_its_runs_print_their_tables(real, tiny_model):
    tiny_model(real, "fox")
    for shown in (real, real.models):
        assert "fox (pretrain)" in repr(shown) and "≈" not in repr(shown) and "«" not in repr(shown)
        data, _ = shown._repr_mimebundle_()
        assert ">fox</td>" in data["text/html"] and "≈" not in visible(data["text/html"])
    assert repr(real.runs) == "No runs yet. Train one with %%pretrain NAME."
    assert repr(real.runs) in repr(real)


def test_a_damaged_model_hides_no_other(real, tiny_model):
    tiny_model(real, "fox")
    hen = tiny_model(real, "hen")
    real.unload("hen")
    (hen.folder / "jupyter_gpt.json").write_text("{")
    found = rows(models_report(real.models).text)
    assert found["hen"] == ["damaged"]
    assert found["fox"][1] == "base"


def test_an_endpoint_has_neither_size_nor_place_on_disk(real):
    from jupyter_gpt.models.endpoints import Endpoint

    listed = {"mini": Endpoint.of(name="mini", base_url="https://api.openai.com/v1", model="gpt-4o-mini")}
    real.models.endpoints = listed
    report = models_report(real.models)
    assert "gpt-4o-mini at api.openai.com" in report.text and "endpoint" in report.text
    assert report.data["models"][0]["parameters"] is None


def test_no_models_yet(real):
    assert models_report(real.models).text == (
        "No models yet. Train one with %%pretrain NAME.\nalso in this user's cache:\n\n«nothing»"
    )


def test_the_catalogue_lists_every_model_with_its_terms():
    report = catalogue_report()
    lines = {line.split()[0]: line for line in report.text.splitlines() if line}
    for entry in CATALOGUE:
        line = lines[entry.name]
        assert entry.licence in line and entry.terms in line and line.endswith(str(entry.year))
        assert (" assistant " in line) == entry.assistant and (" base " in line) != entry.assistant
        assert f">{entry.name}<" in report.html
        told = short(entry.tokens) if entry.tokens else "not published"
        assert entry.assistant or re.split(r" {2,}", line)[2] == told
    assert [m["name"] for m in report.data["models"]] == [entry.name for entry in CATALOGUE]


def test_the_catalogue_says_who_may_not_use_llama_and_what_is_not_there():
    text = catalogue_report().text
    llama = next(line for line in text.splitlines() if line.startswith("llama-7b "))
    assert "6.74B" in llama and "research only" in llama
    assert "have no published weights" in text
