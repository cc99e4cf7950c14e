"""An algorithm of reinforcement learning that a user writes in a cell, with a metric of its own: no file knows it."""

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell

import jupyter_gpt
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views import live
from jupyter_gpt.notebook.views.run_report import panels, run_report
from jupyter_gpt.runs.events import declared

ALGORITHM = '''
from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.rollout import micro_batches


class Reinforce:
    """REINFORCE with the mean reward as a baseline (Williams 1992)."""

    METRICS = (*rl.METRICS, Metric("surprisal", "surprisal", "nats per token", format=".2f", summary=True))

    def step(self, training):
        found = yield from training.rollout()
        advantages = found.rewards - found.rewards.mean()
        tokens, surprisal = found.mask.sum(), 0.0
        for places in micro_batches(training, found.rows):
            logp, _ = logprobs(training.policy, [found.rows[p] for p in places])
            mask = found.mask[places, : logp.shape[1]]
            (-(advantages[places, None] * logp * mask).sum() / tokens).backward()
            surprisal -= (logp.detach() * mask).sum() / tokens
            yield
        values = {"surprisal": surprisal, **rl.rollout_values(found), **training.update(training.step + 1)}
        return found.tokens, values


mine = Reinforce()


def short(prompt, completion):
    return -float(len(completion))
'''
CELL = """%%rlhf aligned --policy m --algo $mine --reward $short --steps 4 --max-tokens 6 --samples 4 --lora 4 --lr 1e-2
The old fox saw
A red hen"""


@pytest.fixture
def shell(gpt, tiny_model, monkeypatch):
    """A notebook with a model `m` and the cell of the algorithm run."""
    monkeypatch.setitem(vars(jupyter_gpt), "gpt", gpt)
    tiny_model(gpt, "m")
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)
    shell.run_line_magic("load_ext", "jupyter_gpt")
    shell.run_cell(ALGORITHM).raise_error()
    yield shell
    shell.run_line_magic("unload_ext", "jupyter_gpt")
    InteractiveShell.clear_instance()


def test_its_metric_is_in_the_live_view_the_report_and_the_history(shell, gpt):
    shell.run_cell(CELL).raise_error()
    run = gpt.runs["aligned"]
    assert run.status == "finished" and gpt.models["aligned"].base == "m"
    surprisal = run.history["surprisal"].tolist()
    assert len(surprisal) == 4 and all(nats > 1 for nats in surprisal)
    feed = live._Feed(run)
    assert "surprisal, nats per token" in [f"{m['label']}, {m['unit']}" for m in feed.describe()["metrics"]]
    content, buffers = feed.update()
    column = memoryview(buffers[content["columns"].index("surprisal")]).cast("f").tolist()
    assert column == pytest.approx(surprisal, rel=1e-6)
    steps = [e for e in run.events if e["event"] == "step"]
    [panel] = [panel for panel in panels(declared(run.events), steps, []) if panel.title == "surprisal, nats per token"]
    assert [value for _, value in panel.points] == surprisal
    report = run_report(run)
    mean = sum(surprisal) / 4
    assert re.search(rf"surprisal +≈{mean:.2f} nats per token, mean of 4 steps\n", report.text)
    assert "data:image/png" in report.html and "$MINE" in report.text


def test_a_resumed_run_wants_it_again(shell, gpt):
    shell.run_cell(CELL.replace("--steps 4", "--steps 4000 --background")).raise_error()
    run = gpt.runs["aligned"]
    while run.step < 2:
        assert run.alive
    run.stop()
    run.wait()
    assert run.recipe["algo"] == "$mine"
    with pytest.raises(GPTError, match=r"^there is no variable mine: --algo \$mine needs it, to resume a run too$"):
        gpt.resume("aligned")
    step = run.step
    again = gpt.resume("aligned", variables=shell.user_ns, background=True)
    while again.step < step + 1:
        assert again.alive
    again.stop()
    again.wait()
    assert again.status == "stopped" and again.history["surprisal"].notna().all()


def test_what_is_no_algorithm_is_one_line(shell, gpt):
    for value, said in (
        ("7", r"^--algo \$odd is no algorithm: it must be a module or an object, not a class, with METRICS, a list of"),
        ("Reinforce", "not a class, with METRICS"),
    ):
        shell.run_cell(f"odd = {value}").raise_error()
        error = shell.run_cell(CELL.replace("$mine", "$odd")).error_in_exec
        assert isinstance(error, GPTError) and "\n" not in str(error)
        with pytest.raises(GPTError, match=said):
            raise error
    shell.run_cell("class Odd(Reinforce):\n    def step(self, training):\n        yield\n\nodd = Odd()").raise_error()
    error = shell.run_cell(CELL.replace("$mine", "$odd")).error_in_exec
    with pytest.raises(
        GPTError, match=r"^--algo \$odd: step\(training\) must return its tokens and values, \(int, dict\)"
    ):
        raise error
