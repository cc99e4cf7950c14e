"""Benchmarks by lm-evaluation-harness: a kernel model as its backend gives the figures of the harness' own."""

import json

import pytest

from helpers.errors import fail
from jupyter_gpt.errors import GPTError

CHOICE = """
task: birds
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
generation_kwargs: {until: ["."], max_gen_toks: 8}
doc_to_text: "{{question}}"
doc_to_target: "{{text}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
"""


def rows():
    for n in range(12):
        a, b = ("fox", "hen") if n % 2 else ("hen", "fox")
        yield {
            "question": f"The old {a} saw {n} small ",
            "answer": n % 2,
            "choices": ["birds and was glad", f" {b}s"],
            "text": f"The old {a} saw {n} small birds and was glad. " * (1 + 6 * (n == 3)),
        }


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The files of three tasks, whose data are on this machine."""
    pytest.importorskip("lm_eval", reason="pip install 'jupyter_gpt[lm-eval]'")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    found = []
    for name, text in (("birds", CHOICE), ("written", WRITTEN), ("rolling", ROLLING)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("FILE", str(file)))
        found.append(str(tmp_path / f"{name}.yaml"))
    return found


def harness(folder, tasks):
    """The figures of the harness' own backend."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    backend = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    known = TaskManager(include_defaults=False)
    return simple_evaluate(model=backend, tasks=tasks, task_manager=known, log_samples=True, bootstrap_iters=0)


def test_the_figures_are_those_of_the_harness_own_backend(gpt, train, tasks):
    train("fox", steps=60, context=64)
    found = gpt.evaluate_tasks("fox", tasks)
    theirs = harness(gpt.models["fox"].folder, tasks)["results"]
    ours = found.results["fox"]["results"]
    assert ours["rolling"]["word_perplexity,none"] == pytest.approx(theirs["rolling"]["word_perplexity,none"], rel=1e-4)
    for task, metric in (("birds", "acc,none"), ("written", "exact_match,none")):
        assert ours[task][metric] == theirs[task][metric]
    by_task = {score.task: score for score in found.scores}
    accuracy = by_task["birds"]
    assert (accuracy.metric, accuracy.questions, accuracy.better) == ("acc", 12, "higher")
    low, high = accuracy.interval
    assert 0 < high - low < 1 and low < accuracy.value < high
    assert by_task["birds"].tokens_out == 0 < by_task["written"].tokens_out <= 12 * 8
    assert all(score.tokens_in > 0 and score.flops > 0 for score in found.scores)
    text = found.report.text
    assert "word_perplexity ↓" in text and "acc ↑" in text


def test_probabilities_and_texts_are_those_of_the_harness_own_backend(gpt, train, tasks):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from jupyter_gpt.evaluation.harness import KernelModel

    train("fox", steps=60, context=64)
    model = gpt.models["fox"]
    ours, theirs = KernelModel(model), HFLM(pretrained=str(model.folder), device="cpu", dtype="float32", batch_size=4)
    pairs = [("The old fox", " saw 3 small birds"), ("The hen ", "was"), ("", "It sang"), ("The old fox. " * 40, " It")]
    asked = [Instance("loglikelihood", {}, pair, n, metadata=("t", n, 1)) for n, pair in enumerate(pairs)]
    for mine, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-3) and mine[1] == bool(other[1])
    given = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    asked = [Instance("generate_until", {}, (f"The old fox saw {n}", given), n, metadata=("t", n, 1)) for n in range(5)]
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)
    assert any(ours.generate_until(asked))


def test_a_tokenizer_that_begins_texts_with_a_token_does_so_here_too(gpt, tiny_model, tasks):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    from jupyter_gpt.evaluation.harness import KernelModel

    tokenizer = tiny_model(gpt, "plain").tokenizer
    begin = tokenizer.bos_token or tokenizer.eos_token
    place = tokenizer.convert_tokens_to_ids(begin)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, place)]
    )  # as those of Llama and Gemma do
    assert tokenizer("It").input_ids[0] == place
    model = gpt.models.keep("fox", gpt.models["plain"].module, tokenizer, "pretrain", None, ["fox (pretrain)"], 0)
    ours, theirs = KernelModel(model), HFLM(pretrained=str(model.folder), device="cpu", dtype="float32", batch_size=1)
    assert theirs.tok_encode("It")[0] == place
    pairs = [("The old fox", " saw 3 birds"), ("", "It sang"), (f"{begin}The old fox", " saw"), ("", f"{begin}It sang")]
    asked = [Instance("loglikelihood", {}, pair, n, metadata=("t", n, 1)) for n, pair in enumerate(pairs)]
    for mine, other in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-3) and mine[1] == bool(other[1])
    asked = [
        Instance("loglikelihood_rolling", {}, ("The old fox sang. " * n,), n, metadata=("t", n, 1)) for n in (1, 9)
    ]
    mine, other = ours.loglikelihood_rolling(asked), theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine == pytest.approx(other, abs=1e-2)
    given = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    texts = ("The old fox saw 3", f"{begin}The old fox saw")
    asked = [Instance("generate_until", {}, (text, given), n, metadata=("t", n, 1)) for n, text in enumerate(texts)]
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)
    asked = [Instance("generate_until", {}, ("The old", {"max_completion_tokens": 3}), 0, metadata=("t", 0, 1))]
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_the_line(gpt, train, tasks):
    from jupyter_gpt.notebook.magics.options import parse
    from jupyter_gpt.notebook.magics.verbs import VERBS, evaluate

    given = parse(VERBS["evaluate"].COMMAND, "fox --tasks birds,written --questions 3 --shots 2")
    seen = {}

    class Found:
        report = None

    class Fake:
        def evaluate_tasks(self, models, **options):
            seen.update(options, models=models)
            raise GPTError("enough")

    with pytest.raises(GPTError, match="enough"):
        evaluate(Fake(), dict(given), None)
    assert seen == {"models": ["fox"], "tasks": ["birds", "written"], "questions": 3, "shots": 2, "progress": None}
    with pytest.raises(GPTError, match="--techniques goes with techniques, not with --tasks"):
        evaluate(Fake(), {**given, "techniques": ["direct"]}, None)
    with pytest.raises(GPTError, match="--chat goes with --tasks"):
        evaluate(Fake(), {"task": "fox", "chat": True}, None)


def test_the_first_questions_and_more_than_one_model(gpt, tiny_model, tasks):
    tiny_model(gpt, "fox", chat=True)
    tiny_model(gpt, "hen", seed=1)
    seen = []
    found = gpt.evaluate_tasks(
        ["fox", "hen"], tasks[:1], questions=5, progress=lambda *given: seen.append(given), shots=0
    )
    assert [(score.model, score.questions) for score in found.scores] == [("fox", 5), ("hen", 5)]
    assert seen[-1] == ("hen birds", 10, 10) and list(found.table["model"]) == ["fox", "hen"]
    assert "hen has no chat template" in fail(gpt.evaluate_tasks, "hen", tasks, chat=True)
    assert gpt.evaluate_tasks("fox", tasks[:1], questions=2, chat=True).scores[0].questions == 2


def test_what_was_finished_is_kept(gpt, tiny_model, tasks):
    """■ while a later task is evaluated, and a task whose data cannot be had."""
    tiny_model(gpt, "fox")
    tiny_model(gpt, "hen", seed=1)

    def stop(what, done, total):
        if what.endswith("written"):
            raise KeyboardInterrupt

    found = gpt.evaluate_tasks("fox", tasks, progress=stop)
    assert [score.task for score in found.scores] == ["birds"] == list(found.results["fox"]["results"])
    assert found.missing == ["stopped before the end of fox on written, fox on rolling: run the cell again to continue"]
    assert "acc ↑" in found.report.text and found.missing[0] in found.report.text.replace("«", "").replace("»", "")

    found = gpt.evaluate_tasks("fox", ["arc_easy", *tasks[:2]], questions=3)
    assert [score.task for score in found.scores] == ["birds", "written"] == list(found.results["fox"]["results"])
    assert len(found.missing) == 1 and found.missing[0].startswith("fox: arc_easy could not be evaluated: its data")

    nothing = gpt.evaluate_tasks("hen", tasks[1:], progress=stop)
    assert not nothing.scores and "stopped before the end" in nothing.report.text and not len(nothing.table)


@pytest.mark.parametrize("task", [0, 1])
def test_what_was_stopped_goes_on_where_it_was(gpt, tiny_model, tasks, monkeypatch, task):
    """Within a task too; and the result is that of one that was not stopped."""
    from jupyter_gpt.evaluation import harness

    tiny_model(gpt, "fox")
    tiny_model(gpt, "hen")
    monkeypatch.setattr(harness, "PROMPTS", 4)
    monkeypatch.setattr(harness, "at_once", lambda module: 64)
    seen = []

    def stop(what, done, total):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    assert not gpt.evaluate_tasks("fox", tasks[task], progress=stop).scores
    first = seen[1]
    [again] = gpt.evaluate_tasks("fox", tasks[task], progress=stop).scores
    assert 0 < first < seen[2] <= seen[-1] and sorted(set(seen)) == seen, "each request is answered once"
    [whole] = gpt.evaluate_tasks("hen", tasks[task]).scores
    assert (again.value, again.tokens_in, again.tokens_out) == (whole.value, whole.tokens_in, whole.tokens_out)
    assert again.seconds > 0


def test_what_cannot_be_evaluated_is_one_line(gpt, tiny_model, tasks):
    tiny_model(gpt, "fox")
    message = fail(gpt.evaluate_tasks, "fox", "arc_easy")
    assert message == (
        "arc_easy could not be evaluated: its data are on the hub, and the hub is switched off (HF_HUB_OFFLINE)"
    )
    assert "has no task arc_eazy (did you mean arc_easy" in fail(gpt.evaluate_tasks, "fox", "arc_eazy")
    assert fail(gpt.evaluate_tasks, "fox", "no.yaml") == "there is no task file no.yaml"


def test_without_the_library_it_is_one_line(gpt, tiny_model, monkeypatch):
    tiny_model(gpt, "fox")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fail(gpt.evaluate_tasks, "fox", "gsm8k") == "--tasks needs an extra: pip install 'jupyter_gpt[lm-eval]'"
