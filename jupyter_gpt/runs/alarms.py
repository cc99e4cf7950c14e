"""When the loss of a training goes wrong in one of the ways it goes wrong, and what to do about it, in words.

An alarm is raised when it begins, and again only after it was over. Those of the loss are found in the events alone,
whose losses have been read from the device already, so that a resumed run finds them again. Those of reinforcement
learning are in `stages/rl.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple

from jupyter_gpt.runs.events import Alarm

WINDOW, FEWEST = 10, 5  # steps whose median loss is compared, so that a spike is no alarm; the fewest that have one
FAR, ABOVE = 0.5, 0.5  # a loss that is so far above the first one, by its share and in nats, has diverged
UNTESTED = 4  # times as far where that first loss is of one batch alone, which may have been an easy one
# So far above its own best, and for so many steps, it has diverged too. Also by more than the losses of single steps
# differ: those of small batches of a mixture do, and the lowest median of many is a lucky one.
RISEN, BY, LONG = 0.25, 0.3, 20
BACK = 0.9  # the share of the first loss that ends a divergence
EXPLODED, CLIPPED = 100, 10  # times its lowest, and times the clipping, that an exploded gradient norm is
FALLEN, EARLY = 0.98, 50  # the share of the first loss that counts as fallen; the first step at which it is checked
WORSE, WORSE_BY, OFTEN = 0.05, 0.1, 3  # so far above its best, and so often in a row, a validation loss rises
GAP = 0.8  # the share of the validation loss that the training loss is under when a model overfits


class Test(NamedTuple):
    """An evaluation: its step, its validation loss, and the median training loss by then."""

    step: int
    loss: float
    training: float | None


def begun(step: int, causes: Mapping[str, str], active: Container[str]) -> list[Alarm]:
    """Alarms of those causes that were not active before this step."""
    found = {cause: text for cause, text in causes.items() if cause not in active}
    return [Alarm(step=step, cause=cause, text=text) for cause, text in found.items()]


@dataclass
class LossAlarms:
    """The state of the loss alarms of a run. `causes` are the alarms that are on, each with its message.

    start: the first loss, that of the weights before any step.  best: the lowest median so far, and its step.
    calm: the lowest median gradient norm.  risen: steps in a row far above the best.
    """

    losses: deque = field(default_factory=lambda: deque(maxlen=WINDOW))
    norms: deque = field(default_factory=lambda: deque(maxlen=WINDOW))
    tests: list[Test] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)
    start: Any = None  # a float, once there is one
    best: tuple[float, int] | None = None
    calm: Any = None
    risen: int = 0

    def see(self, event: dict, recipe: Mapping) -> list[Alarm]:
        """Take the next line of the run; the alarms that it gives cause for."""
        before = set(self.causes)
        if event["event"] == "step":
            self.see_step(event, recipe)
        elif event["event"] == "evaluation":
            self.see_test(event, recipe)
        return begun(event.get("step", 0), self.causes, before)

    def see_step(self, event: dict, recipe: Mapping) -> None:
        step, lr, steps = event["step"], f"--lr (now {recipe['lr']:g})", recipe["steps"]
        self.losses.append(event["loss"])
        self.norms.append(event["grad_norm"])
        if self.start is None or step == 1:
            self.start = max(event["loss"], self.start or 0.0)
        if len(self.losses) < FEWEST:
            return
        now, norm = median(self.losses), median(self.norms)
        if self.best is None or now < self.best[0]:
            self.best = now, step
        best, at = self.best
        low, _, high = quantiles(self.losses, n=4)
        self.risen = self.risen + 1 if now > best + max(RISEN * best, BY, high - low) else 0
        if now > self.limit:
            self.on(
                "diverged",
                f"the run has diverged: the training loss is {short(now)}, and it began at {short(self.start)}. "
                f"Lower {lr}",
            )
        elif self.risen >= max(LONG, steps / LONG):
            self.on(
                "diverged",
                f"the run has diverged: the training loss is {short(now)}, and was {short(best)} at step {at}. "
                f"Lower {lr}",
            )
        elif not self.risen and now < BACK * self.start:
            self.causes.pop("diverged", None)
        alone = "diverged" not in self.causes
        self.calm = norm if self.calm is None else min(norm, self.calm)
        exploded = norm > max(EXPLODED * self.calm, CLIPPED * recipe["clip"])
        self.when(
            alone and exploded,
            "gradient",
            f"the gradient norm is {short(norm)} before clipping, and was {short(self.calm)}: "
            f"the run is about to diverge. Lower {lr}",
        )
        stuck = self.tests and step >= max(EARLY, steps / 2) and best > FALLEN * self.start
        self.when(
            alone and stuck,
            "stuck",
            f"the training loss has not fallen: it began at {short(self.start)} and is {short(now)}. "
            f"Look at the data, and try a higher or a lower {lr}",
        )

    def see_test(self, event: dict, recipe: Mapping) -> None:
        if not self.tests and event["step"] == 0:
            self.start = event["val_loss"]
        self.tests.append(Test(event["step"], event["val_loss"], median(self.losses) if self.losses else None))
        now, best = self.tests[-1], min(self.tests, key=lambda test: test.loss)
        if now.training is None:
            return
        start = self.start or 0.0
        if now.loss > self.limit and now.training > BACK * start:
            self.on(
                "diverged",
                f"the run has diverged: the validation loss is {short(now.loss)}, and it began at {short(start)}. "
                f"Lower --lr (now {recipe['lr']:g})",
            )
        worse = best.loss + max(WORSE * best.loss, WORSE_BY)
        rising = len(self.tests) > OFTEN and all(
            test.step > best.step and test.loss > worse for test in self.tests[-OFTEN:]
        )
        fell = now.training < min(GAP * now.loss, start if best.training is None else best.training)
        self.when(
            rising and fell,
            "overfitting",
            f"the model is overfitting: the validation loss rose from {short(best.loss)} at step "
            f"{best.step} to {short(now.loss)} while the training loss fell. Use more data, or fewer --steps",
        )

    @property
    def limit(self) -> float:
        """The loss above which a run has diverged."""
        start = self.start or 0.0
        return start + max(FAR * start, ABOVE) * (1 if self.tests else UNTESTED)

    def on(self, cause: str, text: str) -> None:
        """Turn an alarm on; one that is on keeps its message."""
        self.causes.setdefault(cause, text)

    def when(self, holds: object, cause: str, text: str) -> None:
        """Have an alarm on for as long as its cause holds."""
        if holds:
            self.on(cause, text)
        else:
            self.causes.pop(cause, None)


def short(value: float) -> str:
    """`2.31`, `34,544`: three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
