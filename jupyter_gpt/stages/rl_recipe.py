"""The recipe of a run of RL from rankings or rewards: everything that decides its numbers. Nothing here imports
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.stages.reward_recipe import above_zero, known_dtype, not_negative

ALGORITHMS = ("ppo", "grpo", "dpo")
DEFAULT_ALGORITHM = "ppo"  # the talk's own path
OWN = {"mask_truncated_completions": "grpo", "missing_eos_penalty": "ppo", "use_score_scaling": "ppo"}  # options of one


@dataclass(frozen=True)
class RLRecipe:
    """A step of PPO or GRPO draws `samples` completions of each of `prompts_per_step` prompts, `max_tokens` long at
    most;
    one of DPO reads `prompts_per_step` rankings.

    reward, weights: names of reward models, or `$name` of a function, and what each counts.  lora: rank of the
    adapters, 0 for copies trained whole.  kl: coefficient of the KL penalty, in rewards per nat (GRPO: in group
    advantages per
    nat), adapted to hold the KL at `kl_target` nats a completion if that is given; `kl_limit` is where it counts as
    running
    away. clip, epochs: PPO's.  gamma, lam, value_lr: of advantages and critic.  beta: DPO's.  held_out: share of the
    prompts
    (or rankings) that is only ever evaluated on.  dtype: of the activations; what is trained stays in fp32.  marks:
    hashes
    of the models and rankings, under what they are.  micro_tokens: what goes through a model at once in training; with
    checkpointing its
    activations are recomputed; 0 and None until it is decided.

    As in TRL: mask_truncated_completions leaves completions that were cut at `max_tokens` out of GRPO's loss;
    missing_eos_penalty is taken off their rewards in PPO, whose rewards use_score_scaling divides by the standard
    deviation of all of the run so far.
    """

    algo: str
    policy: str
    rankings: str | None
    reward: list[str]
    weights: list[float]
    prompts: list[str]
    lora: int
    steps: int
    prompts_per_step: int
    samples: int
    max_tokens: int
    lr: float
    value_lr: float
    warmup: float
    decay: float
    max_norm: float
    kl: float
    kl_target: float | None
    kl_limit: float
    clip: float
    epochs: int
    gamma: float
    lam: float
    beta: float
    held_out: float
    seed: int
    eval_every: int
    checkpoint_every: int | None
    dtype: str
    mask_truncated_completions: bool = False
    missing_eos_penalty: float | None = None
    use_score_scaling: bool = False
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def reads_rankings(self) -> bool:
        """Whether anything is taken from the rankings: what DPO learns, a reward model to be made first, or the
        prompts.
        """
        return self.rankings is not None and (self.algo == "dpo" or not self.reward or not self.prompts)

    @property
    def batch(self) -> int:
        """Completions of one step."""
        return self.prompts_per_step * self.samples


def rl_recipe(
    policy: str,
    prompts: Sequence[str],
    *,
    algo: str = DEFAULT_ALGORITHM,
    rankings: str | None = None,
    reward: Sequence[str] = (),
    weights: Sequence[float] | None = None,
    lora: int = 16,
    steps: int | None = None,
    prompts_per_step: int = 8,
    samples: int = 8,
    max_tokens: int = 64,
    lr: float | None = None,
    value_lr: float | None = None,
    kl: float = 0.05,
    kl_target: float | None = None,
    kl_limit: float = 30.0,
    clip: float = 0.2,
    epochs: int | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    beta: float = 0.1,
    held_out: float = 0.1,
    seed: int = 0,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    dtype: str | None = None,
    mask_truncated_completions: bool = False,
    missing_eos_penalty: float | None = None,
    use_score_scaling: bool = False,
) -> RLRecipe:
    """Resolve what the user said into a full recipe. Raises GPTError, one line, for what cannot be trained."""
    if algo not in ALGORITHMS:
        raise GPTError(f"--algo {algo} is not known{nearest(algo, ALGORITHMS)}")
    above_zero(
        steps=steps,
        prompts_per_step=prompts_per_step,
        samples=samples,
        max_tokens=max_tokens,
        lr=lr,
        value_lr=value_lr,
        kl_target=kl_target,
        kl_limit=kl_limit,
        clip=clip,
        epochs=epochs,
        beta=beta,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
        missing_eos_penalty=missing_eos_penalty,
    )
    not_negative(lora=lora, kl=kl, held_out=held_out)
    for name, share in (("gamma", gamma), ("lam", lam), ("held-out", held_out)):
        if not 0 <= share <= 1:
            raise GPTError(f"--{name} {share:g} is from 0 to 1")
    if algo == "grpo" and samples == 1:
        raise GPTError("--samples 1 gives GRPO nothing to compare: it learns from several completions of one prompt")
    own = {
        "mask_truncated_completions": mask_truncated_completions,
        "missing_eos_penalty": missing_eos_penalty,
        "use_score_scaling": use_score_scaling,
    }
    for name, value in own.items():
        if value and algo != OWN[name]:
            raise GPTError(f"--{name.replace('_', '-')} belongs to --algo {OWN[name]}: leave it out with {algo}")
    if algo != "dpo" and not reward and not rankings:
        raise GPTError(f"--algo {algo} wants a reward: --reward NAME or $function, or --rankings to train one from")
    if algo == "dpo" and not rankings:
        raise GPTError("--algo dpo learns straight from rankings: give --rankings NAME")
    weights = list(weights or [1.0] * len(reward))
    if len(weights) != len(reward):
        raise GPTError(f"there are {len(reward)} rewards and {len(weights)} --weights: give one of each")
    steps = steps or 60
    peak = lr or (1e-4 if algo == "dpo" else 3e-4) * (1.0 if lora else 0.1)
    return RLRecipe(
        algo=algo,
        policy=policy,
        rankings=rankings,
        reward=list(reward),
        weights=weights,
        prompts=list(prompts),
        lora=lora,
        steps=steps,
        prompts_per_step=prompts_per_step,
        samples=samples,
        max_tokens=max_tokens,
        lr=peak,
        value_lr=value_lr or 3 * peak,
        warmup=0.05,
        decay=0.3,
        max_norm=1.0,
        kl=0.0 if algo == "dpo" else kl,
        kl_target=kl_target,
        kl_limit=kl_limit,
        clip=clip,
        epochs=epochs or (4 if algo == "ppo" else 1),
        gamma=gamma,
        lam=lam,
        beta=beta,
        held_out=held_out,
        seed=seed,
        eval_every=eval_every or max(1, steps // 6),
        checkpoint_every=checkpoint_every,
        dtype=known_dtype(dtype),
        **own,
    )
