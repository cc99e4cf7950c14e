"""The options of `%%rlhf`, and the recipe of a run that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.options import Count, NotNegative, Number, Positive, Rank, Recipe, Share, option
from jupyter_gpt.stages.stage import LENGTH, Training

ALGORITHMS = ("ppo", "grpo", "dpo")
OWN = {  # options of one algorithm
    "clip_high": "grpo",
    "no_std": "grpo",
    "mask_truncated_completions": "grpo",
    "dynamic_sampling": "grpo",
    "rollout_dtype": "grpo",
    "use_score_scaling": "ppo",
}
GRPO_LOSSES = ("dapo", "grpo", "dr_grpo", "gspo", "rloo")  # of each algorithm the first is the default
DPO_LOSSES = ("sigmoid", "ipo", "simpo", "orpo", "kto")
LOSSES = {"grpo": GRPO_LOSSES, "dpo": DPO_LOSSES}
Turns = Annotated[int, Field(gt=0, le=100)]
Rewarding = str | Callable[..., Any]


def owner_of(loss: str) -> str | None:
    """The algorithm that a loss belongs to."""
    return next((algo for algo, losses in LOSSES.items() if loss in losses), None)


class RLHF(Training):
    """reinforcement learning from rankings or rewards

    The policy completes the prompts, the completions get rewards, and better ones become more probable. PPO learns
    token by token with a critic, GRPO compares completions of one prompt with each other, DPO learns directly from
    rankings. With --loss kto it learns from votes on single completions instead (of rankings: the best are good, the
    worst bad). Without --reward, a reward model is trained on the rankings first. Policy, reference, critic and reward
    model share one base in memory. A KL penalty keeps the policy close to the reference; a warning says if the KL grows
    too large or the policy collapses, and what to do. The model is gpt.models[NAME]; ■ keeps it as of that step.
    """

    magic: ClassVar[str] = "%%rlhf"
    groups: ClassVar[tuple[str, ...]] = (
        "Name and data",
        LENGTH,
        "Size",
        "Algorithm",
        "Optimization",
        "Evaluation",
        "Running",
    )
    body_help: ClassVar[str] = """
One prompt a line; empty lines are skipped. Without any, those of the rankings are used. Or one source of rows alone:
`$rows`, a list, DataFrame or Dataset; a file, `./rows.jsonl`; a dataset, `hf:openai/gsm8k/main`, of which as many rows
are read as the steps can use. A row has a `prompt` (or `question`), a text or a list of messages, perhaps a `system`
prompt, and other columns, such as `answer`.

A reward function is given the columns that it names: f(prompt, completion, answer) -> float; with `completions` for
`completion` all at once: f(prompts, completions, answer) -> list of float. `finish_reason` is "stop", or "length" of a
truncated completion; `completion_ids` are its tokens. None means that the reward does not apply to the completion. A
prompt of several messages is passed as text, a line each: `user: …`.

For --loss kto a row is a vote: `prompt`, `completion` and `label`, true or false.
"""
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%rlhf aligned --policy assistant --algo ppo --rankings taste",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rlhf polite --policy assistant --algo grpo --reward $polite --steps 40",
        "Tell me about the fox.",
    )

    prompts: str | Sequence[str | Mapping[str, Any]] | None = option(
        None, "the prompts, a list of texts or of rows, or one a line", positional=True, body=True, only="python"
    )
    policy: str = option(
        ..., "the model to start from, which is not changed", "MODEL", complete="models", group="Name and data"
    )
    algo: str | object = option(
        "ppo",
        "the algorithm: ppo, grpo, dpo, or a $variable with METRICS and step(training)",
        "ALGO",
        hints=ALGORITHMS,
        literal=True,
        group="Name and data",
    )
    rankings: str | None = option(
        None,
        "rankings made by %%rank, also of a file of chosen and rejected: training data of DPO, or of a reward model",
        "NAME",
        complete="rankings",
        group="Name and data",
    )
    reward: Rewarding | Sequence[Rewarding] | None = option(
        None,
        "a reward model, or a $function(prompt, completion, columns …) -> float; several are summed, each with a curve",
        "REWARD",
        many=True,
        variable=True,
        complete="models",
        group="Name and data",
    )
    reward_weights: Sequence[Number] | None = option(
        None, "weights of several rewards (default: 1 each)", "X", group="Name and data", recipe=False
    )
    system: str | None = option(
        None,
        "the system prompt of prompts without one of their own (reward models do not read it)",
        "TEXT",
        group="Name and data",
    )
    prompts_per_step: Count = option(8, "prompts of one step (for dpo: rankings, with kto votes)", "N", group="Size")
    samples: Count = option(8, "completions of each prompt", "K", group="Size")
    max_tokens: Count = option(64, "maximum tokens of a completion", "N", group="Size")
    rollout_dtype: Literal["bfloat16", "int8", "int4"] | None = option(
        None,
        "grpo: sample the completions from a copy of the policy in this data type; importance sampling corrects for it "
        "(int8 and int4 on a CPU)",
        group="Size",
    )
    lora: Rank = option(16, "rank of the LoRA adapters; 0 trains copies of the whole model", "R", group="Size")
    held_out: Share = option(0.1, "share of the prompts held out for evaluation", "SHARE", group="Size")
    lr: Positive | None = option(
        None, "peak learning rate of the policy (default: by algorithm)", "X", group="Algorithm"
    )
    value_lr: Positive | None = option(
        None, "peak learning rate of ppo's critic (default: three times as much)", "X", group="Algorithm"
    )
    kl: NotNegative = option(
        0.05,
        "coefficient of the KL penalty: reward (grpo: group advantage) per nat of KL to the reference",
        "X",
        group="Algorithm",
    )
    kl_target: Positive | None = option(
        None, "adapt the coefficient to this KL, in nats per completion", "NATS", group="Algorithm"
    )
    kl_limit: Positive = option(
        30.0, "KL to the reference above which a warning is shown, in nats per completion", "NATS", group="Algorithm"
    )
    clip: Positive = option(0.2, "clip range of the probability ratio to the sampling policy", "X", group="Algorithm")
    clip_high: Positive | None = option(
        None, "grpo: clip range above 1, where it is another than below (DAPO: 0.28)", "X", group="Algorithm"
    )
    loss: str | None = option(
        None,
        f"the loss, by its paper; grpo: {', '.join(GRPO_LOSSES)}; dpo: {', '.join(DPO_LOSSES)} (default: the first)",
        "LOSS",
        hints=(*GRPO_LOSSES, *DPO_LOSSES),
        group="Algorithm",
    )
    no_std: bool = option(
        False, "grpo: advantages not divided by the standard deviation, as --loss dr_grpo has them", group="Algorithm"
    )
    epochs: Count | None = option(None, "updates on each batch (default: 4, grpo 1)", "N", group="Algorithm")
    gamma: Share = option(1.0, "ppo: discount of later rewards", "X", group="Algorithm")
    lam: Share = option(0.95, "ppo: lambda of generalized advantage estimation", "X", group="Algorithm")
    mask_truncated_completions: bool = option(
        False, "grpo: exclude completions truncated at --max-tokens from the loss", group="Algorithm"
    )
    missing_eos_penalty: Positive | None = option(
        None, "ppo, grpo: reward subtracted from a completion truncated at --max-tokens", "X", group="Algorithm"
    )
    dynamic_sampling: Turns | None = option(
        None,
        "grpo: replace prompts whose completions all have the same reward by other prompts, up to N times per step "
        "(DAPO)",
        "N",
        group="Algorithm",
    )
    use_score_scaling: bool = option(
        False, "ppo: divide rewards by their standard deviation in the run so far", group="Algorithm"
    )
    beta: Positive = option(0.1, "dpo: strength of the KL constraint to the reference", "X", group="Algorithm")
    desirable_weight: Positive = option(
        1.0, "--loss kto: weight of the losses of completions labelled true", "X", group="Algorithm"
    )
    undesirable_weight: Positive = option(
        1.0, "--loss kto: weight of the losses of completions labelled false", "X", group="Algorithm"
    )
    eval_every: Count | None = option(
        None, "steps between evaluations and samples (default: six in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        if isinstance(self.algo, str) and self.algo not in ALGORITHMS and not self.algo.startswith("$"):
            owner = owner_of(self.algo)
            likely = f": {self.algo} is --algo {owner} --loss {self.algo}" if owner else nearest(self.algo, ALGORITHMS)
            raise GPTError(f"--algo is {', '.join(ALGORITHMS)} or a $variable, not {self.algo!r:.40}{likely}")
        if self.algo == "grpo" and self.samples == 1:
            raise GPTError(
                "--samples 1 gives GRPO nothing to compare: it learns from several completions of one prompt"
            )
        losses = LOSSES.get(str(self.algo), ())
        if self.loss is not None and self.loss not in losses:
            if not losses and (owner := owner_of(self.loss)):
                raise GPTError(f"--loss {self.loss} belongs to --algo {owner}: this is {self.algo}")
            known = f"of {self.algo} is {', '.join(losses)}" if losses else "belongs to --algo grpo and dpo"
            raise GPTError(f"--loss {known}, not {self.loss!r:.40}{nearest(self.loss, losses)}")
        if self.loss == "kto" and self.prompts_per_step == 1:
            raise GPTError("--loss kto estimates the KL from the other votes of a step: raise --prompts-per-step")
        if self.loss != "kto" and (self.desirable_weight, self.undesirable_weight) != (1.0, 1.0):
            raise GPTError("--desirable-weight and --undesirable-weight belong to --loss kto")
        if self.missing_eos_penalty and self.algo not in ("ppo", "grpo"):
            raise GPTError(f"--missing-eos-penalty belongs to --algo ppo and grpo: leave it out with {self.algo}")
        for name, owner in OWN.items():
            if getattr(self, name) and self.algo != owner:
                raise GPTError(f"--{name.replace('_', '-')} belongs to --algo {owner}: leave it out with {self.algo}")

    def check_devices(self, ranks: int, shard: bool) -> None:
        super().check_devices(ranks, shard)
        if ranks > 1 and str(self.algo).startswith("$"):
            raise GPTError(f"--algo {self.algo}: an algorithm of yours trains on one device, leave --devices out")
        if ranks > 1 and self.rollout_dtype:
            raise GPTError("--rollout-dtype samples on one device: leave --devices and --nodes out")
        if self.prompts_per_step < ranks:
            raise GPTError(
                f"--prompts-per-step {self.prompts_per_step} is less than the {ranks} devices: each samples "
                "completions of prompts of its own"
            )


class RLRecipe(Recipe, RLHF):
    """A step of PPO or GRPO samples `samples` completions of each of `prompts_per_step` prompts, at most `max_tokens`
    long; one of DPO reads `prompts_per_step` rankings.

    columns, chats: what the rows hold beside the prompt, and the messages of prompts that are more than a text, by
    prompt.  votes: what KTO learns from, if not from rankings.  reward, weights: names of reward models, or `$name` of
    a function, and their weights.  marks: hashes of the models and rankings, by what they are.  micro_tokens: the size
    of a micro-batch; 0 until it is decided.
    """

    name: str = ""
    algo: str
    prompts: list[str]
    columns: dict[str, dict[str, Any]] = Field(default_factory=dict)
    chats: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    votes: list[dict[str, Any]] = Field(default_factory=list)
    reward: list[str]
    weights: list[float]
    steps: int = 60
    lr: float
    value_lr: float
    warmup: float = 0.05
    decay: float = 0.3
    max_norm: float = 1.0
    epochs: int
    eval_every: int
    dtype: str = "auto"
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None

    @property
    def reads_rankings(self) -> bool:
        """Whether the rankings are used: for DPO's pairs, to train a reward model, or for their prompts."""
        return self.rankings is not None and (self.algo == "dpo" or not self.reward or not self.prompts)


def recipe_of(options: RLHF, prompts: Sequence[str], reward: Sequence[str]) -> RLRecipe:
    """The recipe of these options. Raises GPTError, one line, for what cannot be trained."""
    algo = options.algo
    if algo != "dpo" and not reward and not options.rankings:
        raise GPTError(f"--algo {algo} needs a reward: --reward NAME or $function, or --rankings to train one on")
    if algo == "dpo" and not options.rankings and options.loss != "kto":
        raise GPTError(
            "--algo dpo learns directly from rankings: give --rankings NAME (`%%rank NAME --rankings FILE` makes them "
            "of rows of prompt, chosen and rejected)"
        )
    weights = list(options.reward_weights or [1.0] * len(reward))
    if len(weights) != len(reward):
        raise GPTError(f"there are {len(reward)} rewards and {len(weights)} --reward-weights: give one of each")
    peak = options.lr or (1e-4 if algo == "dpo" else 3e-4) * (1.0 if options.lora else 0.1)
    return RLRecipe.from_options(
        options,
        prompts=list(prompts),
        reward=list(reward),
        weights=weights,
        lr=peak,
        value_lr=options.value_lr or 3 * peak,
        kl=0.0 if algo == "dpo" else options.kl,
        loss=options.loss or LOSSES.get(str(algo), (None,))[0],
        no_std=options.no_std or options.loss == "dr_grpo",
        epochs=options.epochs or (4 if algo == "ppo" else 1),
        eval_every=options.eval_every or max(1, (options.steps or 60) // 6),
    )
