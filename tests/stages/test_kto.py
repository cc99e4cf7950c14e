"""KTO: its loss is TRL's on the same votes; votes from rows, files and rankings; its runs."""

import json
import re

import pandas
import pytest
import torch

from helpers import trl_batches
from helpers.errors import fail
from helpers.stopping import stopped_at
from helpers.trl_batches import gradients, model, rows_in, same, settings
from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.logprobs import Reader, logprobs
from jupyter_gpt.nn.preference_loss import kto_kl, kto_loss
from jupyter_gpt.notebook.views.run_report import run_report
from jupyter_gpt.stages.kto import mismatched
from jupyter_gpt.stages.rankings import Ranking
from jupyter_gpt.stages.rl import Vote
from jupyter_gpt.stages.rl_rows import rows_of, votes_of_rankings

VOTES = [
    {"prompt": f"Tale {n // 2}. The old fox", "completion": f"{text} {n}", "label": good}
    for n in range(24)
    for text, good in (("saw 3 small birds.", True), ("xx xx", False))
    if (n % 2 == 0) == good
]
SMALL = {"policy": "tiny", "algo": "dpo", "loss": "kto", "max_tokens": 6, "lora": 4, "prompts_per_step": 4, "lr": 1e-2}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.25)])
@pytest.mark.parametrize("near", [True, False], ids=["some KL", "none"])
def test_loss_and_gradients_are_trls(tmp_path, weights, near):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    tokenizer = trl_batches.tokenizer()
    data = [
        {"prompt": f"Tale {n}.", "completion": text, "label": n in (0, 3)}
        for n, text in enumerate([" The old fox saw", " glad", " small birds and was", " glad birds"])
    ]
    module, reference = model(tokenizer), model(tokenizer, seed=1)
    if not near:  # the mismatched completions are less probable than under the reference
        reference, module = module, reference
    args = settings(
        trl.KTOConfig, tmp_path, beta=0.3, desirable_weight=weights[0], undesirable_weight=weights[1], loss_type="kto"
    )
    trainer = trl.KTOTrainer(
        module, reference, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(data)
    )
    loader = torch.utils.data.DataLoader(trainer.train_dataset, batch_size=4, collate_fn=trainer.data_collator)
    inputs = next(iter(loader))
    module.eval()
    theirs = trainer._compute_loss(module, inputs, return_outputs=False)
    theirs.backward()
    their_gradients = gradients(module)
    module.zero_grad()

    rows, pairs = rows_in(inputs), rows_in(inputs, "KL_")
    labels = inputs["label"].bool()
    votes = [Vote(row, label) for row, label in zip(rows, labels.tolist(), strict=True)]
    assert mismatched(votes, 64) == pairs and labels.tolist() == [True, False, False, True]
    now, start = Reader(module), Reader(reference)
    with torch.no_grad():
        before = logprobs(start, rows)[0].sum(1)
        kl = kto_kl(logprobs(now, pairs)[0].sum(1) - logprobs(start, pairs)[0].sum(1))
    [their_kl] = trainer._metrics["eval"]["kl"]
    assert float(kl) == pytest.approx(their_kl, abs=1e-5) and (float(kl) > 0) == near
    mine = kto_loss(logprobs(now, rows)[0].sum(1) - before, labels, kl, 0.3, *weights).mean()
    mine.backward()
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    same(gradients(module), their_gradients)


def test_mismatched_pairs_fit_into_the_context():
    votes = [Vote(PromptCompletion((1, 2, 3, 4), (5, 6)), True), Vote(PromptCompletion((7,), (8, 9, 10, 11)), False)]
    assert mismatched(votes, 6) == [PromptCompletion((3, 4), (8, 9, 10, 11)), PromptCompletion((7,), (5, 6))]
    assert mismatched(votes, 3) == [PromptCompletion((4,), (8, 9)), PromptCompletion((7,), (5, 6))]


@pytest.mark.parametrize("form", ["list", "table", "jsonl", "csv", "messages"])
def test_votes_are_rows_of_prompt_completion_and_label(tmp_path, form):
    file, variables = tmp_path / f"votes.{form}", {}
    body = str(file)
    if form == "jsonl":
        file.write_text("".join(json.dumps(vote) + "\n" for vote in VOTES))
    elif form == "csv":
        pandas.DataFrame(VOTES).to_csv(file, index=False)
    elif form == "messages":
        chats = [
            {
                "prompt": [{"role": "user", "content": vote["prompt"]}],
                "completion": [{"role": "assistant", "content": vote["completion"]}],
                "label": int(vote["label"]),
            }
            for vote in VOTES
        ]
        body, variables = ["$votes"], {"votes": chats}
    else:
        body, variables = ["$votes"], {"votes": VOTES if form == "list" else pandas.DataFrame(VOTES)}
    assert rows_of(body, variables, voted=True).votes == VOTES


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "label": True}, "row 0 of the prompts has a label and no completion"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "label is true or false, not 'good'"),
        ({"completion": "b", "label": True}, "has no text named prompt or question"),
    ],
)
def test_rows_that_are_no_votes_are_refused(row, message):
    with pytest.raises(GPTError, match=message):
        rows_of([row], {}, voted=True)


def ranking(prompt, *groups, finish="stop"):
    texts = [text for group in groups for text in group]
    completions = tuple({"model": "tiny", "text": text, "seed": 0, "finish_reason": finish} for text in texts)
    order = tuple(tuple(texts.index(text) for text in group) for group in groups)
    return Ranking(prompt, completions, order)


def test_of_a_ranking_the_best_are_good_the_worst_bad_and_a_tie_says_nothing():
    found = votes_of_rankings(
        [ranking("p", ["a", "b"], ["c"], ["d"]), ranking("q", ["e", "f"]), ranking("r", ["g"], ["h"], finish="length")]
    )
    told = [(vote["prompt"], vote["completion"], vote["label"], vote["finished"]) for vote in found]
    assert told == [
        ("p", "a", True, True),
        ("p", "b", True, True),
        ("p", "d", False, True),
        ("r", "g", True, False),
        ("r", "h", False, False),
    ]


@pytest.mark.parametrize("source", ["variable", "rankings"])
def test_what_was_called_good_becomes_more_probable_than_what_was_called_bad(gpt, tiny, source):
    data = {"prompts": ["$votes"], "variables": {"votes": VOTES}}
    if source == "rankings":
        for n in range(12):
            taste = ranking(f"Tale {n}. The old fox", [f"saw 3 small birds. {n}"], ["a b"], [f"xx xx {n}"])
            gpt.rankings.named("taste").add(taste)
        data = {"rankings": "taste"}
    run = gpt.rlhf("aligned", **data, steps=16, eval_every=8, **SMALL)
    table = run.history
    assert run.status == "finished" and len(run.recipe["votes"]) == (0 if source == "rankings" else 24)
    assert table["loss"].iloc[-3:].mean() < table["loss"].iloc[0] - 0.03 and table["margin"].dropna().iloc[-1] > 0.2
    assert {"kl_estimate", "accuracy", "val_loss"} <= set(table.columns)
    assert run_report(run).text.startswith("aligned: KTO, finished, all 16 steps")
    assert re.search(r"^aligned +kto +finished", gpt.runs.report.text, re.M) and "aligned: kto, finished" in repr(run)
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    assert evaluations[0]["val_loss"] == pytest.approx(0.5, abs=1e-3) and evaluations[-1]["val_loss"] < 0.48
    assert evaluations[-1]["accuracy"] > 0.6 and evaluations[-1]["low"] < evaluations[-1]["high"]


def test_micro_batches_add_up_and_weights_count(gpt, tiny, monkeypatch):
    from jupyter_gpt.stages.rl import RL

    given = {"prompts": VOTES, "steps": 2, "eval_every": 2, **SMALL}
    whole = gpt.rlhf("whole", **given).history
    heavy = gpt.rlhf("heavy", desirable_weight=2.0, undesirable_weight=2.0, **given).history
    monkeypatch.setattr(RL, "own_micro_batches", lambda training, rows: [[n] for n in range(len(rows))])
    each = gpt.rlhf("each", **given).history
    for figure in ("loss", "grad_norm", "margin"):
        assert each[figure].tolist() == pytest.approx(whole[figure].tolist(), rel=1e-3, abs=1e-5)
    assert heavy["loss"].iloc[0] == pytest.approx(2 * whole["loss"].iloc[0], rel=1e-4)
    assert heavy["grad_norm"].iloc[0] == pytest.approx(2 * whole["grad_norm"].iloc[0], rel=1e-3)


def test_stopped_and_resumed_equals_uninterrupted(gpt, tiny):
    given = {"prompts": VOTES, "steps": 8, "eval_every": 4, **SMALL}
    gpt.rlhf("whole", **given)
    run = stopped_at(3, gpt.rlhf, "part", **given)
    assert run.status == "stopped" and gpt.resume("part").status == "finished"
    one, two = ((gpt.models.folder(n) / "adapter_model.safetensors").read_bytes() for n in ("whole", "part"))
    assert one == two


def test_votes_out_of_balance_are_told_with_the_weight_that_helps(gpt, tiny):
    votes = [vote for n, vote in enumerate(VOTES) if vote["label"] or n % 4 == 1]
    good, bad = sum(v["label"] for v in votes), sum(not v["label"] for v in votes)

    def notes(name, votes, **more):
        run = gpt.rlhf(name, votes, steps=1, **more, **SMALL)
        return [e["text"] for e in run.events if e["event"] == "note" and "votes are" in e["text"]]

    [note] = notes("a", votes)
    assert f"{good} votes are true, {bad} false" in note and f"{bad / good:.2f} to {bad / good * 4 / 3:.2f}" in note
    assert not notes("b", votes, desirable_weight=1.1 * bad / good) and not notes("c", VOTES)
    [note] = notes("d", [vote for vote in votes if vote["label"]])
    assert note == f"all {good} votes are true: KTO learns more from both kinds"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--loss kto learns from votes: rows of prompt, completion and label in the body, or --rankings"),
        ({"prompts": ["Tale"]}, "--loss kto learns from votes"),
        ({"prompts": VOTES, "rankings": "taste"}, "--loss kto learns from votes"),
        ({"prompts": VOTES, "prompts_per_step": 1}, "--loss kto estimates the KL from the other votes of a step"),
        ({"prompts": VOTES, "loss": "ipo", "desirable_weight": 2.0}, "belong to --loss kto"),
    ],
)
def test_bad_input_is_one_line(gpt, tiny, given, message):
    assert message in fail(gpt.rlhf, "a", **{**SMALL, **given})
