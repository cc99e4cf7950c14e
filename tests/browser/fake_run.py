"""A run that trains nothing: it emits events on a thread, and writes down when it was told what."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from jupyter_gpt.report.parts import bold
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.loop import METRICS

TEXT = " there was a small <b>bold</b> fox. She had a red kite and a plan."


class FakeRun:
    """`steps` steps in `seconds`, sampled from `samples` times; where `until` names a file, it ends when that is there,
    and takes it away. `record` is a JSON file of what it was told. Stopped, it evaluates for `closing` seconds, or
    until it is stopped again. With `diverges` its loss does.
    """

    kind = "pretrain"

    def __init__(
        self,
        seconds: float,
        record: str = "told.json",
        steps: int = 400,
        name: str = "storyteller",
        seed: int = 0,
        closing: float = 0.0,
        diverges: bool = False,
        samples: int = 6,
        until: str | None = None,
    ):
        self.name, self.steps, self.seconds, self.record = name, steps, seconds, Path(record)
        self.status, self.recipe, self.events = "running", {}, []
        self._closing, self._diverges = closing, diverges
        self._samples, self._until = samples, until and Path(until)
        self._random, self._told = random.Random(seed), []
        self._going, self._sample = threading.Event(), threading.Event()
        self._going.set()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def step(self) -> int:
        return next((event["step"] for event in reversed(self.events) if event["event"] == "step"), 0)

    def pause(self) -> None:
        self._going.clear()
        self.status = "paused"
        self._tell("pause")

    def unpause(self) -> None:
        self.status = "running"
        self._going.set()
        self._tell("unpause")

    def stop(self) -> None:
        self.status = "stopping" if self._closing and self.status != "stopping" else "stopped"
        self._going.set()
        self._tell("stop")

    def sample_now(self) -> None:
        self._sample.set()
        self._tell("sample")

    def wait(self, tick: Callable[[], None] | None = None) -> None:
        while self._thread.is_alive():
            self._thread.join(0.1)
            if tick:
                tick()

    def _tell(self, what: str) -> None:
        self._told.append(what)
        written = self.record.with_suffix(".new")
        written.write_text(json.dumps(self._told))
        written.replace(self.record)

    def _emit(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, "time": time.time(), **fields})

    def _work(self) -> None:
        stages = {"collecting stories": "documents", "tokenizer": "documents", "tokenizing": "tokens"}
        for stage, unit in stages.items():
            for done in range(0, 4001, 1000):
                self._emit("progress", stage=stage, done=done, total=4000, unit=unit)
                time.sleep(0.03)
        self._emit(
            "start",
            parameters=5_900_000,
            device="cpu",
            dtype="bfloat16",
            tokens_per_step=2048,
            steps=self.steps,
            step=0,
            peak_flops=None,
            flops_per_token=3.5e7,
            metrics=[asdict(metric) for metric in METRICS],
        )
        step = 0
        while step < self.steps and self.status not in ("stopping", "stopped"):
            step += 1
            self._step(step)
            time.sleep(self.seconds / self.steps)
            self._going.wait()
            if self._until and self._until.exists():
                break
        until = time.time() + self._closing
        while self.status == "stopping" and time.time() < until:
            time.sleep(0.01)
        if self.status == "stopping":
            self._evaluate(step, 1.9)
        self.status = "finished" if self.status == "running" else "stopped"
        causes = ["diverged"] if self._diverges else []
        self._emit("end", status=self.status, step=step, seconds=0.0, error=None, alarms=causes)
        if self._until:
            self._until.unlink(missing_ok=True)

    def _step(self, step: int) -> None:
        pause = self.seconds / self.steps
        curve = 1.9 + 1.6 * math.exp(-step / 150) + 4.8 * math.exp(-step / 18)
        if self._diverges and step > 50:
            curve += 34544 * math.exp(-(step - 50) / 40)
        lr = 3e-3 * min(1, step / (0.1 * self.steps), (self.steps - step) / (0.3 * self.steps))
        speed = 2048 / pause * self._random.uniform(0.95, 1.05)
        self._emit(
            "step",
            step=step,
            loss=curve + self._random.gauss(0, 0.09),
            lr=lr,
            grad_norm=1.0,
            tokens=2048 * step,
            seconds=pause * step,
            tokens_per_second=speed,
            mfu=0.431,
        )
        if self._diverges and step == 60:
            self._emit(
                "warning",
                step=step,
                cause="diverged",
                text="the run has diverged: the training loss is 34,544, and it began at 8.13. Lower --lr (now 30)",
            )
        if step % max(1, self.steps // 10) == 0:
            self._evaluate(step, curve)
        if step % max(1, self.steps // self._samples) == 0 or self._sample.is_set():
            self._sample.clear()
            for prompt in ("Once upon a time", "The old clockmaker"):
                self._emit("sample", step=step, prompt=prompt, text=TEXT + f" It was step {step}.")

    def _evaluate(self, step: int, curve: float) -> None:
        self._emit("evaluation", step=step, val_loss=curve + 0.06, bits_per_byte=curve / 2.9, seconds=0.1)


def report(run: FakeRun) -> Report:
    """The least a report can be."""
    return Report([f"{run.name}: ", bold(run.status)], data={"name": run.name})
