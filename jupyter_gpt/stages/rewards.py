"""What completions are worth: a reward model's score, what a user's function says, or several of them, weighted.

Both read text, so a reward model may have another tokenizer than the policy. A function is called where an interrupt
can reach it (`runs/worker.py`), once a completion, and so that Stop is felt between two of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.scoring import row_of, scored
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.runs.worker import Call

LARGEST = 1e18  # of a reward: its square is still a number in fp32
SLICE = 0.25  # seconds of a user's function between two looks at the buttons of the run
Judge = Callable[[str, str], float]


@dataclass(frozen=True)
class Reward:
    """One source of reward: a `function`, or a reward `model` with its `tokenizer`; `name` as the user said it."""

    name: str
    weight: float = 1.0
    function: Any = None  # a Judge
    model: Any = None  # a Reader
    tokenizer: object = field(default=None, repr=False)


def rewarded(
    rewards: Sequence[Reward], prompts: Sequence[str], texts: Sequence[str], finished: Sequence[bool]
) -> Iterator[Call | None]:
    """The weighted sum of all rewards of each completion, a list of floats; yields `Call`s and None on the way.

    A reward model reads an end only after the completions that are `finished`, not those that were cut.

    Raises GPTError where a function answers something that is no finite number, and whatever a function raises.
    """
    total = [0.0] * len(texts)
    for reward in rewards:
        if reward.function is not None:
            found = []
            while len(found) < len(texts):
                rest = prompts[len(found) :], texts[len(found) :]
                found += yield Call(lambda reward=reward, rest=rest: answers(reward, *rest))
        else:
            most = context_of(reward.model.module)
            rows = [
                row_of(reward.name, reward.tokenizer, prompt, text, most, whole)[0]
                for prompt, text, whole in zip(prompts, texts, finished, strict=True)
            ]
            found = yield from scored(reward.model, rows)
        total = [t + reward.weight * value for t, value in zip(total, found, strict=True)]
    return total


def answers(reward: Reward, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """What a user's function says of the first completions, as many as it manages in SLICE seconds, one at least."""
    found, until = [], time.monotonic() + SLICE
    for prompt, text in zip(prompts, texts, strict=True):
        said = reward.function(prompt, text)
        try:
            value = float(said)
        except (TypeError, ValueError):
            value = math.nan
        if not abs(value) <= LARGEST:
            raise GPTError(
                f"reward {reward.name} answered {str(said)[:40]!r} for the completion {text[:40]!r} of "
                f"{prompt[:40]!r}: "
                f"a reward is a finite number, at most {LARGEST:g} in size"
            )
        found.append(value)
        if time.monotonic() > until:
            break
    return found
