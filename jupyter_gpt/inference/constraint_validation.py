"""Whether answers kept the rule they were held to, said of each: `valid`, `value`, and a note where one did not.

An answer that ended by itself is valid. One that was cut off (by its longest length, by a stop text inside it, by
hand, or because no token of the vocabulary could go on) is told to be.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.rules import Rule


def settle(samples: Sequence[Completion], rule: Rule, stopped: Sequence[bool]) -> None:
    """Judge finished `samples` of one prompt; `stopped` says which of them a stop text ended, or their server."""
    broken = []
    for sample, by_text in zip(samples, stopped, strict=True):
        problem = rule.problem(sample.text)
        sample.valid = problem is None
        if problem is None:
            sample.value = rule.value(sample.text)
            continue
        how = "stopped by hand" if sample.interrupted else "cut off"
        if sample.finish_reason == "stop":
            how = (
                "not kept" if sample.remote else "cut off by a stop text" if by_text else "cut off, as no token goes on"
            )
            sample.finish_reason = "stop" if by_text else "length"
        broken.append(f"{how}: not valid ({problem})")
        if len(samples) == 1 or sample is not samples[0]:
            sample.notes = (*sample.notes, broken[-1])
    if broken and len(samples) > 1:  # the first stands for all of them
        samples[0].notes += (f"{len(broken)} of {len(samples)} not valid, the first of them {broken[0]}",)
