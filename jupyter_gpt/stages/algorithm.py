"""What `--algo` names: ppo, grpo and dpo, each a module beside this one, or an object of the notebook, `--algo $mine`.

    class Mine:
        METRICS = (*rl.METRICS, Metric("surprise", "surprise", "nats per token"))

        def step(self, training):
            found = yield from training.rollout()
            ...

What it declares has its curve in the live view, in the report and in `gpt.runs[NAME].history`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs.events import Metric


class Algorithm(Protocol):
    """A module or an object that takes the steps of a run of reinforcement learning.

    It may also have `advantages(training, rollout)`, what each token would be trained with `(B, L)`, which colours the
    samples; `CRITIC = True`, and `training.critic` is trained too; and `evaluation(training)`, a generator of nothing
    that returns values of its own.
    """

    METRICS: Sequence[Metric]

    def step(self, training: Any) -> Iterator:
        """Take step `training.step + 1` of an `rl.RL`: a generator that yields None after each piece of work, so that a
        stop is felt, and returns the tokens of the step and the values that it tells, `(int, dict)`.

        A value is a float or a scalar on the device, left there. The runner looks at `loss` and `grad_norm`, the alarms
        at `kl`, `entropy`, `identical` and `spread`, where they are told.
        """
        ...


def algorithm_of(name: str, variables: Mapping) -> Algorithm:
    """The algorithm of that name. Raises GPTError, one line, for a variable that is not there or is no algorithm."""
    check_algorithm(name, variables)
    return variables[name[1:]] if name[0] == "$" else cast(Algorithm, import_module(f"jupyter_gpt.stages.{name}"))


def check_algorithm(name: str, variables: Mapping) -> None:
    """Raises GPTError for a `$name` that is no algorithm."""
    if name[0] != "$":
        return
    if name[1:] not in variables:
        known = nearest(name[1:], variables)
        raise GPTError(f"there is no variable {name[1:]}{known}: --algo {name} wants it, to resume a run too")
    found = variables[name[1:]]
    metrics = getattr(found, "METRICS", None)
    declared = isinstance(metrics, list | tuple) and all(isinstance(metric, Metric) for metric in metrics)
    if isinstance(found, type) or not declared or not callable(getattr(found, "step", None)):
        raise GPTError(
            f"--algo {name} is no algorithm: it wants METRICS, a list of Metric, and a generator step(training), "
            "of a module or an object, not of a class"
        )


def step_result(name: str, answer: object) -> tuple[int, Mapping]:
    """What a step returned. Raises GPTError where a user's own returned something else."""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping):
        return answer
    raise GPTError(f"--algo {name}: step(training) returns its tokens and values, (int, dict), not {answer!r:.60}")
