"""Damaged files: one line for each, nothing erased, and what is whole is still there."""

import json
import sys
import warnings

import pytest

from helpers import TESTS
from helpers.errors import fail
from helpers.stopping import stopped_at
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.events import cut_events, read_events

sys.path.insert(0, str(TESTS / "benchmarks"))
STEPS = [json.dumps({"event": "step", "time": 1.0, "step": n, "loss": 2.0}).encode() for n in range(1, 7)]
BAD = [
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"event": "step"}',
    b'{"event": "step", "step": "2"}',
    b'{"step": 2}',
    b"\0" * 30,
    b'{"event": "step", "step": 2, "loss": [1]}',
    b'{"event": "end", "status": 7}',
    b'{"event": "start", "step": 0, "metrics": [{"label": "loss"}]}',
    b'{"event": "start", "step": 0, "metrics": [{"name": "loss", "label": "loss", "format": "3q"}]}',
    b"[" * 100_000,
    b'{"event": "step", "step": ' + b"9" * 30 + b"}",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_damaged_event_is_passed_over_and_erases_nothing(tmp_path, bad):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([*STEPS[:2], bad, *STEPS[2:], b'{"torn']))
    assert [event["step"] for event in read_events(path)] == [1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in cut_events(path, 4)] == [1, 2, 3, 4]
    assert path.read_bytes().split(b"\n") == [*STEPS[:2], bad, *STEPS[2:4], b""]  # and the torn last line is gone


def test_a_run_with_a_damaged_event_resumes_and_says_so_once(gpt, train):
    def losses(run):
        return [(e["step"], e["loss"], e["grad_norm"]) for e in run.events if e["event"] == "step"]

    whole = train("whole", steps=40)
    run = stopped_at(5, train, "part", steps=40)
    path = run.folder / "events.jsonl"
    lines = path.read_bytes().split(b"\n")
    at = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "step") + 1
    path.write_bytes(b"\n".join([*lines[:at], b"\xff damaged", *lines[at:]]))
    gpt.runs.known.clear()
    with pytest.warns(UserWarning, match=rf"run part: 1 lines of its events.jsonl .* first of them line {at + 1}"):
        assert gpt.runs["part"].step > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = gpt.resume("part")
    assert again.status == "finished" and losses(again) == losses(whole)
    one, two = ((gpt.models.folder(name) / "model.safetensors").read_bytes() for name in ("part", "whole"))
    assert one == two
    assert b"\xff damaged" in path.read_bytes()


def test_a_damaged_tokenizer_of_a_run_is_one_line(gpt, train):
    run = stopped_at(2, train, "part", steps=4)
    path = run.folder / "data" / "tokenizer" / "tokenizer_config.json"
    for key in ("model_max_length", "padding_side", "model_input_names"):
        for value in ([], "x"):
            path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
            try:
                gpt.resume("part")
            except GPTError as error:
                assert "is damaged" in str(error)
            else:
                stopped_at(2, train, "part", steps=4, overwrite=True)


def test_one_damaged_run_is_one_row(gpt, train):
    from jupyter_gpt.runs.run import runs_report

    good, bad = train("good", steps=2), train("bad", steps=2)
    for content in (b"\xff", b"[[", b"kind: pretrain\nrecipe: []", b"kind: [1]\nrecipe: {steps: 2}", b"[" * 100_000):
        (bad.folder / "recipe.yaml").write_bytes(content)
        gpt.runs.known.clear()
        text = runs_report(gpt.runs).text
        assert "damaged" in text and "finished" in text
    (good.folder / "events.jsonl").unlink()
    (good.folder / "events.jsonl").mkdir()
    gpt.runs.known.clear()
    with pytest.raises(GPTError, match=r"run good cannot be read: its events.jsonl: Is a directory"):
        gpt.runs["good"]


def test_derived_files_of_an_index_are_made_anew(tmp_path):
    import numpy as np

    from jupyter_gpt.retrieval import dense, keyword

    texts, folder = ["a red fox", "a blue hen"], tmp_path / "keyword"
    keyword.build(texts, [0, 1], folder, 7)
    assert keyword.load(folder, 7).rows.tolist() == [0, 1]
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert keyword.load(folder, 7) is None, path.name
        path.write_bytes(whole)
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    file = tmp_path / "hnsw.faiss"
    dense.hnsw_graph(vectors, file)
    whole = file.read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[:300] + b"\xff" * 50 + whole[350:],
        whole[: len(whole) // 2] + b"\xff" * 99,
    ):
        file.write_bytes(damaged)
        assert dense.hnsw_graph(vectors, file).ntotal == 200


def test_prompts_of_odd_characters_are_read_back_as_they_were(gpt, tiny_model):
    tiny_model(gpt, "fox")
    prompts = ["a b\x85c", "a\u2028b", "x\ufeffy", "the: end", "é 🙂 - #"]
    gpt.rlhf("more", prompts, policy="fox", algo="grpo", reward=lambda p, c: len(c), steps=1, samples=2, max_tokens=2)
    gpt.runs.known.clear()
    assert gpt.runs["more"].recipe["prompts"] == prompts


@pytest.mark.parametrize(
    "handle",
    [{"launcher": "slurm"}, {}, {"pid": "x"}, {"launcher": "processes", "host": "h"}, {"launcher": "ray", "host": 5}],
)
def test_a_damaged_handle_costs_no_other_run(gpt, train, handle):
    run, _ = train("fox", steps=2), train("other", steps=2)
    (run.folder / "launcher.json").write_text(json.dumps(handle))
    gpt.runs.known.clear()
    assert gpt.runs["fox"].status == "finished" and "other" in gpt.runs.report.text
    path = run.folder / "events.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:-1]))
    gpt.runs.known.clear()
    assert gpt.runs["fox"].status == "interrupted" and "other" in gpt.runs.report.text


@pytest.mark.parametrize("chosen", [[5], {"trackers": 5}, {"trackers": [5, "../../x", "a\0b"]}])
def test_trackers_that_are_none_are_passed_over(gpt, train, chosen):
    run = stopped_at(2, train, "fox", steps=6)
    (run.folder / "trackers").mkdir()
    (run.folder / "trackers" / "chosen.json").write_text(json.dumps(chosen))
    assert gpt.resume("fox").status == "finished"


def test_a_recipe_whose_aliases_multiply_is_damaged(gpt, train):
    run = train("fox", steps=2)
    path = run.folder / "recipe.yaml"
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)), "b: &b [*b]"]
    whole = path.read_text()
    for bomb in ("\n".join(lines[:-1]), lines[-1]):
        path.write_text(f"{whole}\n{bomb}\n")
        gpt.runs.known.clear()
        assert "its recipe.yaml is missing or damaged" in fail(gpt.resume, "fox", steps=4)
    path.write_text(whole.replace("seed: 0", "seed: &s 0") + "\nnote: [1, 2]\n")
    gpt.runs.known.clear()
    assert gpt.runs["fox"].steps == 2
