"""Which checkpoints of a run stay on disk.

While it trains the newest two do, and the one at the end of the stable phase of the learning rate, from where the run
can be made longer (`stages/extend.py`). After its end only that one stays, and what `--keep` asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BEST, LAST = "best", "last"
TRAINING = 2  # checkpoints that a run which trains has: one may be damaged


def score(evaluation: Mapping) -> float | None:
    """What is lower for a better model: the validation loss, or the reward's negative; None where neither was told."""
    if evaluation.get("val_loss") is not None:
        return float(evaluation["val_loss"])
    return -float(evaluation["reward"]) if evaluation.get("reward") is not None else None


def best_of(events: Sequence[Mapping], steps: Iterable[int]) -> int | None:
    """The one of `steps` whose evaluation was the best; None where none was evaluated."""
    there = set(steps)
    told = [e for e in events if e["event"] == "evaluation" and e.get("step") in there and score(e) is not None]
    return min(told, key=lambda e: score(e) or 0.0)["step"] if told else None


@dataclass
class Retention:
    """What `keep` asks for: "best", "last", the number of newest ones, or None.

    stable: the last step of the stable phase, 0 where there is none.  steps: of the whole run.  best: the step of the
    best evaluation so far, if that is to stay, and `lowest` its score.
    """

    keep: int | str | None
    stable: int
    steps: int
    best: int | None = None
    lowest: float = math.inf

    @property
    def after(self) -> int:
        """How many of the newest stay after the end."""
        return self.keep if isinstance(self.keep, int) else 1 if self.keep == LAST else 0

    @property
    def newest(self) -> int:
        """How many of the newest stay meanwhile."""
        return max(TRAINING, self.after)

    @property
    def pinned(self) -> set[int]:
        """Steps whose checkpoints stay however old they are."""
        stable = {self.stable} if self.stable and self.keep != 0 else set()
        return stable | ({self.best} if self.best is not None else set())

    def wants(self, step: int) -> bool:
        """Whether the checkpoint of a step that has just been taken is to stay."""
        return step in self.pinned or (step == self.steps and self.after > 0)

    def improves(self, step: int, values: Mapping[str, Any]) -> bool:
        """Whether an evaluation is the best so far, of a run that keeps the best."""
        found = score(values) if self.keep == BEST else None
        if found is None or not found < self.lowest:
            return False
        self.best, self.lowest = step, found
        return True

    def recall(self, events: Sequence[Mapping], steps: Iterable[int]) -> None:
        """What a resumed run knows of its best checkpoint, if that is among those of `steps`."""
        if self.keep != BEST or (found := best_of(events, steps)) is None:
            return
        told = [e for e in events if e["event"] == "evaluation" and e.get("step") == found]
        self.best, self.lowest = found, min(each for e in told if (each := score(e)) is not None)
