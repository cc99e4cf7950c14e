"""Python's functions: arguments of another type, other libraries' names, and things in the place of their names."""

import numpy as np
import pandas as pd
import pytest

from helpers.errors import fail
from jupyter_gpt.arguments import WrongArgument
from jupyter_gpt.errors import GPTError


@pytest.fixture
def fox(gpt, tiny_model):
    return tiny_model(gpt, "fox")


def test_a_value_of_another_type_is_named_with_what_is_wanted(gpt, fox):
    assert fail(gpt.prompt, "a", model="fox", temperature="0") == "temperature='0' is of type str: wanted is a number"
    assert "max_tokens=2.5 is of type float: wanted is a whole number" in fail(
        gpt.prompt, "a", model="fox", max_tokens=2.5
    )
    with pytest.raises(TypeError, match="text=5 is of type int") as caught:
        gpt.prompt(5, model="fox")
    assert isinstance(caught.value, WrongArgument)
    done = gpt.prompt("a", model="fox", max_tokens=np.int64(2), temperature=np.float32(0))
    assert len(done.tokens) <= 2


@pytest.mark.parametrize(
    ("function", "given", "meant"),
    [
        ("prompt", "max_new_tokens", "max_tokens"),
        ("prompt", "num_return_sequences", "samples"),
        ("pretrain", "learning_rate", "lr"),
        ("pretrain", "n_layer", "depth"),
        ("sft", "num_train_epochs", "epochs"),
        ("sft", "lora_r", "lora"),
        ("rlhf", "reward_funcs", "reward"),
        ("index", "chunk_size", "chunk_tokens"),
        ("prompt", "temprature", "temperature"),
    ],
)
def test_the_names_of_other_libraries_are_told_ours(gpt, function, given, meant):
    assert f"gpt.{function} has no option {given} (did you mean {meant}?)" == fail(
        getattr(gpt, function), "a", **{given: 1}
    )


def test_a_model_does_where_its_name_does(gpt, fox):
    options = {"max_tokens": 3, "temperature": 0}
    assert gpt.prompt("A fox", model=fox, **options).text == gpt.prompt("A fox", model="fox", **options).text
    assert gpt.tokens(fox, "A fox") == gpt.tokens("fox", "A fox")
    kept = gpt.sft("tuned", [("a", "b")] * 4, fox, steps=1)
    assert kept.recipe["base"] == "fox"


def test_tables_lists_and_columns_are_data(gpt, fox):
    texts = ["Leave is 27 days.", "Trains are second class."]
    for sources in (texts, pd.Series(texts), pd.DataFrame({"text": texts})):
        index = gpt.index("kb", sources, embedder="fox", chunk_tokens=40, overwrite=True)
        assert len(index) == 2
    assert [hit.text for hit in gpt.search("kb", texts[1], k=1)] == [texts[1]]
    rows = pd.DataFrame({"prompt": ["a", "b", "c", "d"], "completion": ["x", "y", "z", "w"]})
    assert gpt.sft("tuned", rows, "fox", steps=1).status == "finished"
    labelled = pd.DataFrame({"text": [f"Fox {n}" for n in range(8)], "label": ["glad", "sad"] * 4})
    assert gpt.classify("mood", labelled, "fox", steps=1).status == "finished"


def test_views_and_searches_by_name(gpt, fox, train):
    train("m", steps=2)
    assert gpt.show("m").text.startswith("m: pretrain, finished, all 2 steps")
    assert gpt.show("m", gpt.runs["m"]).text.startswith("m: pretrain, finished"), "one report of both"
    done = gpt.prompt("A fox", model=fox, max_tokens=2)
    assert done.prompt in gpt.show("last").text
    assert "names[0]=5 is of type int: wanted is a text" in fail(gpt.show, 5)
    kept = gpt.index("kb", ["Leave is 27 days."], embedder="fox", chunk_tokens=40)
    assert "rerank=5 is of type int: wanted is a text" in fail(kept.search, "leave", rerank=5)


ODD = [
    5,
    -1,
    1.5,
    "0",
    "",
    True,
    [],
    [1, 2],
    ["a", 5, None],
    [{"a": 1}],
    {},
    {"a": 1},
    {5: 1},
    pd.DataFrame({"n": [1]}),
    np.array([1.0]),
    b"bytes",
    float("nan"),
    10**30,
    range(3),
    object(),
]
CHEAP = {
    "prompt": {"text": "a", "model": "fox", "max_tokens": 1},
    "tokens": {"model": "fox", "text": "a"},
    "plan": {"model": "1B"},
    "load": {"name": "fox"},
    "save": {"name": "fox", "folder": "out"},
    "search": {"index": "kb", "query": "a"},
    "merge": {"name": "fox"},
    "stop": {"name": "m"},
    "batch": {"run": "m"},
}


@pytest.mark.parametrize("function", CHEAP)
def test_odd_arguments_never_raise_a_raw_error(gpt, fox, function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = []
    for option in CHEAP[function]:
        for value in ODD:
            if (option, value if isinstance(value, int) else 0) == ("max_tokens", 10**30):
                continue  # it is answered, up to the context
            try:
                getattr(gpt, function)(**{**CHEAP[function], option: value})
            except GPTError as error:
                assert "\n" not in str(error)
            except Exception as error:
                raw.append(f"{option}={value!r:.40}: {type(error).__name__}: {error}"[:150])
    assert not raw
