"""The tables of models: what is here, and what is published."""

from jupyter_gpt.magics.listing import catalogue_bundle, short
from jupyter_gpt.session.catalogue import CATALOGUE


def test_the_catalogue_lists_every_model_with_its_terms():
    bundle = catalogue_bundle()
    lines = {line.split()[0]: line for line in bundle.text.splitlines() if line}
    for entry in CATALOGUE:
        line = lines[entry.name]
        assert entry.licence in line and entry.terms in line and line.endswith(str(entry.year))
        assert (" assistant " in line) == entry.assistant and (" base " in line) != entry.assistant
        assert f">{entry.name}<" in bundle.html
    assert [m["name"] for m in bundle.data["models"]] == [entry.name for entry in CATALOGUE]


def test_the_catalogue_says_who_may_not_use_llama_and_what_is_not_there():
    text = catalogue_bundle().text
    llama = next(line for line in text.splitlines() if line.startswith("llama-7b "))
    assert "6.74B" in llama and "research only" in llama
    assert "their weights are not published" in text


def test_parameters_to_three_digits():
    assert [short(n) for n in (70.4e6, 135e6, 999.6e6, 1.24e9, 7.3e9)] == [
        "70.4M",
        "135M",
        "1B",
        "1.24B",
        "7.3B",
    ]
