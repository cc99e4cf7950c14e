"""Reinforcement learning from the session: what is made, kept, stopped, resumed, refused."""

import json
import os
import signal
import threading
import time

import pytest
import torch

from helpers.rl_runs import PROMPTS, SMALL, bytes_of, figures, rank, short
from helpers.stopping import stopped_at
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.rlhf_options import DPO_LOSSES, GRPO_LOSSES


@pytest.mark.parametrize("algo", ["grpo", "ppo", "dpo"])
def test_the_policy_changes_and_its_base_does_not(gpt, tiny, algo):
    rank(gpt)
    before = bytes_of(gpt, "tiny")
    given = {"rankings": "taste"} if algo == "dpo" else {"reward": short}
    run = gpt.rlhf("aligned", PROMPTS, policy="tiny", algo=algo, lr=3e-3, **given, **SMALL)
    assert run.status == "finished" and run.step == 3
    assert bytes_of(gpt, "tiny") == before
    model = gpt.models["aligned"]
    assert model.base == "tiny" and model.lineage == ["tiny (pretrain)", "aligned (rlhf)"]
    moved = [key for key, p in model.module.named_parameters() if "lora_B" in key and p.abs().max() > 0]
    assert moved
    table = run.history
    assert {"reward", "kl", "entropy", "length"} <= set(table.columns)
    if algo == "dpo":
        assert table["kl"].iloc[-1] > 0 and table["entropy"].iloc[-1] > 1 and table["margin"].iloc[-1] > 0
    else:
        assert table["kl"].iloc[0] == pytest.approx(0, abs=1e-5) and table["entropy"].iloc[0] > 1
    assert gpt.prompt("The old fox", model="aligned", max_tokens=3).text is not None


def test_while_it_is_trained_the_base_is_in_memory_once(gpt, tiny, monkeypatch):
    from jupyter_gpt.inference import decode_forward
    from jupyter_gpt.stages import ppo

    laid_out, update, keep = [], ppo.update, decode_forward.prepack
    monkeypatch.setattr(decode_forward, "prepack", lambda module: laid_out.append("while sampling") or keep(module))

    def watched(training, *given):
        laid_out.append(decode_forward.prepacked(training.model))
        return (yield from update(training, *given))

    monkeypatch.setattr(ppo, "update", watched)
    gpt.rlhf(
        "a", PROMPTS, policy="tiny", algo="ppo", reward=short, **{**SMALL, "max_tokens": 20, "steps": 1, "epochs": 1}
    )
    assert laid_out.count("while sampling") > 1 and laid_out.count(None) == 1 and len(set(laid_out)) == 2


@pytest.mark.parametrize("options", [{"algo": "grpo"}, {"algo": "ppo", "use_score_scaling": True}])
def test_the_unit_of_a_reward_does_not_matter(gpt, tiny, options):
    def in_cents(prompt, completion):
        return 100 * short(prompt, completion)

    given = {"policy": "tiny", "kl": 0.5, "lr": 1e-2, **SMALL, **options}
    one, other = (gpt.rlhf(f.__name__, PROMPTS, reward=f, **given).history for f in (short, in_cents))
    assert other["kl"].tolist() == pytest.approx(one["kl"].tolist(), rel=1e-2, abs=1e-5)
    assert other["reward"].tolist() == pytest.approx([100 * r for r in one["reward"]])


@pytest.mark.parametrize(
    "options", [{}, {"missing_eos_penalty": 3.0}, {"missing_eos_penalty": 3.0, "use_score_scaling": True}]
)
def test_ppo_learns_from_the_reward_less_the_kl(gpt, tiny, monkeypatch, options):
    """Each step's returns, made anew: the reward less what a cut completion costs, in units of the spread so far if
    that is asked for, at the last token; less the KL coefficient times the log-ratio to the base as transformers sees
    it."""
    from jupyter_gpt.stages import ppo

    steps, update = [], ppo.update

    def watched(training, found, values, advantages, returns):
        number = training.step + 1
        if not steps or steps[-1][0] != number:
            steps.append((number, found, values, returns, training.tokenizer))
        return (yield from update(training, found, values, advantages, returns))

    monkeypatch.setattr(ppo, "update", watched)
    with torch.no_grad():
        tiny.module.lm_head.weight.mul_(30)
    given = {**SMALL, "samples": 6, "kl": 0.7, "gamma": 1.0, "lam": 1.0}  # then returns are the sum of what is to come
    gpt.rlhf("a", PROMPTS, policy="tiny", algo="ppo", reward=short, lr=3e-2, **given, **options)
    every, apart = [], 0.0
    for _, found, _, returns, _ in steps:
        scores = [
            short("", text) - 3.0 * (bool(options) and cut)
            for text, cut in zip(found.texts, found.truncated.tolist(), strict=True)
        ]
        every += scores
        scale = float(torch.tensor(every).double().std()) if "use_score_scaling" in options else 1.0
        for place, row in enumerate(found.rows):
            with torch.no_grad():
                logits = tiny.module(input_ids=torch.tensor([row.ids])).logits[0, len(row.prompt) - 1 : -1].double()
            base = torch.log_softmax(logits, -1).gather(1, torch.tensor(row.completion)[:, None])[:, 0]
            ratio = found.old[place, : len(row.completion)].double() - base
            to_come = scores[place] / scale - 0.7 * ratio.flip(0).cumsum(0).flip(0)
            torch.testing.assert_close(returns[place, : len(to_come)].double(), to_come, atol=1e-3, rtol=1e-4)
            apart = max(apart, float(ratio.abs().max()))
    assert len(steps) == 3 and apart > 0.1


def test_policy_and_critic_are_clipped_each_by_its_own_norm(gpt, tiny, monkeypatch):
    """A reward of another size makes another error of the critic, and the policy's gradient stays as it was."""
    from jupyter_gpt.nn.optimizer import Optimizers

    seen, step = [], Optimizers.step

    def watched(optimizers, factor):
        named = {name: p.grad.clone() for p, name in optimizers.names.items()}
        seen.append([{k: g for k, g in named.items() if k.startswith(who)} for who in ("policy.", "critic.")])
        step(optimizers, factor)

    monkeypatch.setattr(Optimizers, "step", watched)
    for size in (1.0, 1e4):
        run = gpt.rlhf(
            "a",
            PROMPTS,
            policy="tiny",
            algo="ppo",
            reward=[short],
            reward_weights=[size],
            kl=0.0,
            overwrite=True,
            **{**SMALL, "steps": 1, "epochs": 1},
        )
    (policy, critic), (other_policy, other_critic) = seen
    for name in policy:
        torch.testing.assert_close(other_policy[name], policy[name], rtol=1e-3, atol=1e-6)
    [told] = [e for e in run.events if e["event"] == "step"]
    assert told["value_grad_norm"] > 100 > told["grad_norm"] > 0
    lengths = [sum(float(g.square().sum()) for g in parts.values()) ** 0.5 for parts in (critic, other_critic)]
    assert lengths[1] == pytest.approx(1.0, rel=1e-4) and lengths[0] <= 1 + 1e-4


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_the_reward_goes_up(gpt, tiny, algo):
    with torch.no_grad():
        tiny.module.lm_head.weight.mul_(30)  # a fresh model says every token alike, whatever the rest of it does
    given = {**SMALL, "samples": 8, "prompts_per_step": 4, "steps": 12, "eval_every": 12}
    run = gpt.rlhf("aligned", PROMPTS, policy="tiny", algo=algo, reward=short, lr=3e-2, kl=0.0, **given)
    table = run.history
    assert table["reward"].iloc[-3:].mean() > table["reward"].iloc[:3].mean() + 1
    assert table["entropy"].iloc[-1] < table["entropy"].iloc[0] and table["kl"].iloc[-1] > 1
    sample = next(e for e in run.events if e["event"] == "sample")
    assert len(sample["pieces"]) == len(sample["advantages"]) and "".join(sample["pieces"]) == sample["text"]


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("grpo", {}),
        ("ppo", {}),
        ("dpo", {}),
        ("grpo", {"loss": "gspo", "clip_high": 0.28}),
        ("grpo", {"rollout_dtype": "int8"}),
        ("ppo", {"missing_eos_penalty": 1.0, "use_score_scaling": True}),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(gpt, tiny, algo, options):
    rank(gpt)
    given = {
        **SMALL,
        "steps": 8,
        "eval_every": 4,
        **({"rankings": "taste"} if algo == "dpo" else {"reward": "$short"}),
        **options,
    }
    variables = {"short": short}
    whole = gpt.rlhf("whole", PROMPTS, policy="tiny", algo=algo, variables=variables, **given)
    run = stopped_at(3, gpt.rlhf, "part", PROMPTS, policy="tiny", algo=algo, variables=variables, **given)
    assert run.status == "stopped" and 3 <= run.step < 8
    gpt.runs.known.clear()  # as a new kernel would find it
    again = gpt.resume("part", variables=variables)
    assert again.status == "finished" and figures(again) == figures(whole)
    one, two = ((gpt.models.folder(n) / "adapter_model.safetensors").read_bytes() for n in ("whole", "part"))
    assert one == two


def test_no_two_random_streams_of_runs_are_alike(gpt, tiny, monkeypatch):
    """Of two seeds, of steps far apart, of training and evaluation: each completion is drawn from a stream of its
    own.
    """
    from jupyter_gpt.inference import sampling
    from jupyter_gpt.stages.rl import SAMPLES
    from jupyter_gpt.stages.rollout import EVALUATION, seeds_of

    class Training:
        class recipe:
            seed = 0

    first = set()
    for seed in (0, 1, 2):
        Training.recipe.seed = seed
        for step, kind in ((1, 0), (2, 0), (1025, 0), (2049, 0), (0, EVALUATION), (1, EVALUATION), (1, SAMPLES)):
            (one,) = seeds_of(Training, step, [0], kind)
            first.add(tuple(sampling.Stream(one * 1024).next()))
    assert len(first) == 21
    said = []
    for seed in (0, 1):
        run = gpt.rlhf(
            f"seed-{seed}",
            PROMPTS[:1],
            policy="tiny",
            algo="grpo",
            reward=short,
            seed=seed,
            **{**SMALL, "prompts_per_step": 1},
        )
        said.append(run.history["reward"].iloc[0])
    assert said[0] != said[1]


def test_rl_on_an_adapter_with_rows_for_chat_tokens_trains_a_copy_of_them(gpt, tiny, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    rows = [{"prompt": text, "completion": "saw birds."} for text in PROMPTS]
    gpt.sft("reply", rows, "tiny", lora=4, batch_tokens=128, context=64, steps=2, answer_tokens=4)
    before = bytes_of(gpt, "tiny"), bytes_of(gpt, "reply")
    run = gpt.rlhf("aligned", PROMPTS, policy="reply", algo="ppo", reward=short, lr=3e-2, **SMALL)
    assert run.status == "finished" and (bytes_of(gpt, "tiny"), bytes_of(gpt, "reply")) == before
    policy = gpt.models["aligned"]
    moved = {key for key, value in bytes_of(gpt, "aligned").items() if value != before[1].get(key)}
    assert policy.base == "tiny" and len({key for key in moved if "trainable_tokens_delta" in key}) == 2
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.folder), policy.folder)
    ids = policy.tokenizer("<|user|>Who?<|end|><|assistant|>", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(loaded.eval()(input_ids=ids).logits, policy.module(input_ids=ids).logits)
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    assert evaluations[0]["kl"] == pytest.approx(0.0, abs=1e-4) and evaluations[-1]["kl"] != evaluations[0]["kl"]


def test_the_pieces_of_a_sample_are_its_text_though_a_character_is_cut(tiny):
    from jupyter_gpt.stages.rl import pieces

    ids = tiny.tokenizer("It sang: 🙂", add_special_tokens=False).input_ids
    for count in range(1, len(ids) + 1):
        found = pieces(tiny.tokenizer, ids[:count])
        assert len(found) == count and "".join(found) == tiny.tokenizer.decode(ids[:count])


def test_a_run_whose_reward_failed_goes_on_to_the_same_end(gpt, tiny):
    given = {**SMALL, "steps": 5, "eval_every": 5, "checkpoint_every": 2}
    whole = gpt.rlhf("whole", PROMPTS, policy="tiny", algo="ppo", reward="$judge", variables={"judge": short}, **given)
    asked = []

    def fails(prompt, completion):
        asked.append(prompt)
        if len(asked) == 35:
            raise OSError("the line is dead")
        return short(prompt, completion)

    with pytest.raises(OSError, match="the line is dead"):
        gpt.rlhf("part", PROMPTS, policy="tiny", algo="ppo", reward="$judge", variables={"judge": fails}, **given)
    assert gpt.runs["part"].status == "failed" and 0 < gpt.runs["part"].step < 5
    gpt.runs.known.clear()
    with pytest.raises(GPTError, match="no variable judge"):
        gpt.resume("part")
    assert figures(gpt.resume("part", variables={"judge": short})) == figures(whole)


def test_stop_is_felt_between_two_calls_of_a_slow_reward(gpt, tiny):
    def slow(prompt, completion):
        time.sleep(0.05)
        calls.append(gpt.runs["a"].step)
        if len(calls) == 21:
            gpt.runs["a"].stop()
        return float(len(completion))

    calls = []
    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=slow, **{**SMALL, "steps": 50})
    assert run.status == "stopped" and run.step == calls[20]  # the step was left


def test_an_adapter_is_continued_as_a_copy(gpt, tiny):
    gpt.rlhf("first", PROMPTS, policy="tiny", algo="grpo", reward=short, lr=1e-2, **SMALL)
    before = bytes_of(gpt, "first")
    run = gpt.rlhf("second", PROMPTS, policy="first", algo="ppo", reward=short, lr=1e-2, **SMALL)
    assert bytes_of(gpt, "first") == before
    assert gpt.models["second"].base == "tiny" and gpt.models["second"].lineage[-2:] == [
        "first (rlhf)",
        "second (rlhf)",
    ]
    assert run.history["kl"].iloc[0] == pytest.approx(0, abs=1e-5)  # the reference is the adapter, not its base
    after = bytes_of(gpt, "second")
    assert any(after[key] != before[key] for key in before)


def test_rankings_alone_make_the_reward_model_first(gpt, tiny):
    rank(gpt)
    run = gpt.rlhf("aligned", policy="tiny", algo="ppo", rankings="taste", **SMALL)
    assert run.recipe["reward"] == ["aligned-reward"] and len(run.recipe["prompts"]) == 12
    assert gpt.models["aligned-reward"].kind == "reward"
    assert any("held-out pairs" in e.get("text", "") for e in run.events if e["event"] == "note")


def test_several_rewards_are_weighted(gpt, tiny):
    rank(gpt)
    gpt.reward("judge", rankings="taste", steps=4, lora=4)
    seen = []

    def long(prompt, completion):
        seen.append((prompt, completion))
        return float(len(completion))

    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=["judge", long], reward_weights=[0.0, 2.0], **SMALL)
    assert run.recipe["reward"] == ["judge", "$long"]
    first = next(e for e in run.events if e["event"] == "step")
    batch = seen[4 * 2 : 4 * 2 + 8]  # after the evaluation: two watched prompts... of twelve one is held out
    assert first["reward"] > 0 and batch and all(prompt in PROMPTS for prompt, _ in seen)


def test_a_reward_is_called_on_the_main_thread_and_keeps_its_traceback(gpt, tiny):
    threads = set()

    def fails_later(prompt, completion):
        threads.add(threading.current_thread())
        return len(threads) + {}["no such key"] if len(calls) > 20 else calls.append(1) or float(len(completion))

    calls = []
    with pytest.raises(KeyError, match="no such key") as error:
        gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=fails_later, **SMALL)
    assert "fails_later" in [entry.name for entry in error.traceback]
    assert threads == {threading.main_thread()}
    assert gpt.runs["a"].status == "failed"
    assert sorted((gpt.runs["a"].folder / "checkpoints").glob("step-*"))


def test_an_interrupt_in_the_reward_stops_the_run_and_keeps_it(gpt, tiny):
    def slow(prompt, completion):
        count.append(1)
        if len(count) == 14:
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            time.sleep(600)
        return float(len(completion))

    count = []
    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=slow, **SMALL)
    assert run.status == "stopped" and "a" in gpt.models
    assert gpt.resume("a", variables={"slow": short}).status == "finished"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (float("nan"), "got 'nan' for the completion"),
        ("good", "must return a finite number"),
        (1e300, "at most 1e\\+18"),
    ],
)
def test_a_reward_that_is_no_number_says_so(gpt, tiny, answer, message):
    with pytest.raises(GPTError, match=message) as error:
        gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=lambda p, c: answer, **{**SMALL, "steps": 5})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_a_sparse_reward_goes_on_and_is_learned_from_when_it_comes(gpt, tiny, algo):
    """Nothing is rewarded in the first five steps: the run says so once, how to help, and learns from the sixth."""
    given = {**SMALL, "steps": 8, "eval_every": 8}
    calls = []

    def sparse(prompt, completion):
        calls.append(prompt)
        return float(len(calls) > 44 and len(calls) % 8 == 0)  # four in the evaluation, eight a step

    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo=algo, reward=sparse, **given)
    assert run.status == "finished" and run.step == 8
    told = [e for e in run.events if e["event"] == "warning" and e["cause"] == "constant"]
    assert (
        [e["step"] for e in told] == [3] and "more --samples (now 4)" in told[0]["text"] and "\n" not in told[0]["text"]
    )
    assert run.history["reward"].iloc[4] == 0 < run.history["reward"].iloc[5]
    if algo == "grpo":
        assert run.history["loss"].iloc[:5].tolist() == [0.0] * 5 and run.history["grad_norm"].iloc[5] > 0


def test_ppo_learns_from_one_completion_a_step(gpt, tiny):
    run = gpt.rlhf(
        "a", PROMPTS, policy="tiny", algo="ppo", reward=short, **{**SMALL, "samples": 1, "prompts_per_step": 1}
    )
    assert run.status == "finished" and run.history["loss"].notna().all()
    assert not [e for e in run.events if e["event"] == "warning" and e["cause"] == "constant"]


@pytest.mark.parametrize("loss", GRPO_LOSSES)
def test_each_loss_of_grpo_is_a_sum_over_micro_batches(gpt, tiny, loss, monkeypatch):
    given = {"policy": "tiny", "algo": "grpo", "reward": short, "loss": loss, "lr": 1e-2, **SMALL, "steps": 2}
    run = gpt.rlhf("whole", PROMPTS, epochs=2, **given)
    assert run.recipe["loss"] == loss and run.recipe["no_std"] is (loss == "dr_grpo")
    assert run.history["grad_norm"].min() > 0 and run.history["kl"].iloc[-1] > 0
    monkeypatch.setattr(rl.RL, "own_micro_batches", lambda training, rows: [[n] for n in range(len(rows))])
    one_by_one = gpt.rlhf("each", PROMPTS, epochs=2, **given)
    for figure in ("loss", "grad_norm", "clip_fraction"):
        assert one_by_one.history[figure].iloc[0] == pytest.approx(run.history[figure].iloc[0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_each_loss_of_dpo_learns_the_order(gpt, tiny, loss):
    rank(gpt)
    given = {**SMALL, "steps": 12, "lr": 1e-2}
    run = gpt.rlhf("policy", policy="tiny", algo="dpo", rankings="taste", loss=loss, **given)
    assert run.recipe["loss"] == loss
    assert run.history["loss"].iloc[-3:].mean() < run.history["loss"].iloc[:3].mean()
    assert run.history["accuracy"].dropna().iloc[-1] > 0.7


def test_completions_that_were_cut_are_left_out_of_grpos_loss(gpt, tiny):
    """All of them: nothing is learned. None: as without the option."""
    given = {"policy": "tiny", "algo": "grpo", "reward": short, "lr": 1e-2, **SMALL}
    run = gpt.rlhf("none", PROMPTS, mask_truncated_completions=True, **{**given, "max_tokens": 1})
    assert run.history["truncated"].tolist() == [1.0] * 3 and run.history["grad_norm"].tolist() == [0.0] * 3
    plain = gpt.rlhf("plain", PROMPTS, **{**given, "max_tokens": 1})
    assert plain.history["grad_norm"].max() > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"algo": "ppo", "reward": short, "mask_truncated_completions": True},
            "--mask-truncated-completions belongs to --algo grpo",
        ),
        (
            {"algo": "dpo", "rankings": "taste", "missing_eos_penalty": 1.0},
            "--missing-eos-penalty belongs to --algo ppo and grpo",
        ),
        ({"algo": "grpo", "reward": short, "use_score_scaling": True}, "--use-score-scaling belongs to --algo ppo"),
        ({"algo": "ppo", "reward": short, "missing_eos_penalty": -1.0}, "--missing-eos-penalty -1 must be above zero"),
        ({"algo": "grpo", "reward": short, "loss": "gpso"}, "did you mean gspo"),
        (
            {"algo": "dpo", "rankings": "taste", "loss": "grpo"},
            "--loss of dpo is sigmoid, ipo, simpo, orpo, kto, not",
        ),
        ({"algo": "ppo", "reward": short, "loss": "grpo"}, "--loss grpo belongs to --algo grpo: this is ppo"),
        ({"algo": "ppo", "reward": short, "clip_high": 0.3}, "--clip-high belongs to --algo grpo"),
        ({"algo": "dpo", "rankings": "taste", "no_std": True}, "--no-std belongs to --algo grpo"),
        ({"algo": "pop"}, "did you mean ppo"),
        ({"algo": "kto"}, "not 'kto': kto is --algo dpo --loss kto"),
        ({"algo": "rloo"}, "not 'rloo': rloo is --algo grpo --loss rloo"),
        ({"algo": "grpo"}, "needs a reward"),
        ({"algo": "dpo"}, "directly from rankings"),
        ({"algo": "dpo", "prompts": [{"chosen": [], "rejected": []}]}, "`%%rank NAME --rankings FILE` imports such"),
        (
            {"algo": "dpo", "prompts": [{"prompt": "a", "chosen": "b", "rejected": "c"}]},
            "`%%rank NAME --rankings FILE`",
        ),
        ({"policy": "owner/tiny", "reward": short}, "there is no model owner/tiny: `%gpt pull owner/tiny` makes one"),
        ({"policy": "./tiny.gguf", "reward": short}, "`%gpt pull ./tiny.gguf` makes one"),
        ({"algo": "grpo", "reward": "$nobody"}, "no variable nobody"),
        ({"algo": "grpo", "reward": "$right:1"}, r"own option: --reward \$right --reward-weights 1"),
        ({"algo": "grpo", "reward": ["$right:1", "$brief:0.5", "taste"]}, "--reward-weights 1 0.5 1"),
        ({"algo": "grpo", "reward": "tiny"}, "tiny is not a reward model"),
        ({"algo": "grpo", "reward": 3}, "reward=3 is of type int: wanted is a text or a function"),
        ({"algo": "grpo", "reward": [short, 3]}, "is of type int: wanted is a text or a function"),
        ({"algo": "grpo", "reward": short, "samples": 1}, "nothing to compare"),
        ({"algo": "grpo", "reward": short, "prompts": []}, "no prompts"),
        (
            {"algo": "grpo", "reward": short, "prompts": ["The old fox " * 60]},
            "shorten the prompt or lower --max-tokens",
        ),
        ({"algo": "ppo", "rankings": "none"}, "there are no rankings none"),
        ({"algo": "ppo", "rankings": "few"}, "2 are there, 4 are needed, 2 missing"),
        ({"algo": "dpo", "rankings": "ties"}, "12 more are all ties"),
        ({"policy": "tin", "reward": short}, "did you mean tiny"),
    ],
)
def test_bad_input_is_one_line(gpt, tiny, given, message):
    rank(gpt, "few", 2)
    rank(gpt, "ties", 12, order=((0, 1),))
    with pytest.raises(GPTError, match=message) as error:
        gpt.rlhf("a", **{"prompts": PROMPTS, "policy": "tiny", **SMALL, **given})
    assert "\n" not in str(error.value)


def test_events_are_json_and_a_running_away_is_told(gpt, tiny):
    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=short, lr=0.2, kl=0.0, kl_limit=1e-3, **SMALL)
    on_disk = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert on_disk == run.events
    told = [e for e in run.events if e["event"] == "warning"]
    assert told and "running away" in told[0]["text"] and "--kl" in told[0]["text"]


def test_a_policy_that_has_diverged_is_measured_to_the_end(gpt, tiny):
    """All weights, at a rate a thousand times too high: thousands of nats a token have no perplexity to tell."""
    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward=short, lr=30.0, **{**SMALL, "lora": 0})
    [table] = [e for e in run.events if e["event"] == "table"]
    perplexity = [row[table["columns"].index("perplexity")] for row in table["rows"]]
    assert run.status == "finished" and perplexity[0] > 1 and perplexity[1] is None
    assert "collapse" in {e["cause"] for e in run.events if e["event"] == "warning"}


def test_dpo_tells_too_where_its_policy_runs_away(gpt, tiny):
    rank(gpt)
    given = {**SMALL, "steps": 6, "eval_every": 2}
    run = gpt.rlhf("a", policy="tiny", algo="dpo", rankings="taste", lr=0.1, kl_limit=1e-3, **given)
    [told] = [e for e in run.events if e["event"] == "warning" and e["cause"] == "kl"]
    assert told["step"] == 2 and "Raise --beta (now 0.1)" in told["text"]
