"""What was asked of whoever ranks: for each prompt the completions, and the order they are shown in.

`rankings/NAME.questions.json` keeps them beside the answers. The same cell, run again or in a new kernel, then asks
on with the very same completions and samples nothing anew, though the model be behind a server that never says the
same thing twice; and whatever needs the rankings can tell how many are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.runs.provenance import Provenance, check
from jupyter_gpt.stages.rankings import ASKED, KEPT, Rankings, key


@dataclass(frozen=True)
class Question:
    """One prompt and K completions of it, no two with the same text.

    completions: mappings with `model`, `text`, `seed`, `finish_reason`, and `times`, how often that text was sampled.
    shown: the order in which the places are shown.
    sent: by model the exact prompt, special tokens included.
    source: what the completions came from; see `fingerprint.of`.
    """

    prompt: str
    completions: tuple[dict, ...]
    shown: tuple[int, ...]
    sent: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def key(self) -> tuple:
        """What an answer to it is found by: `Ranking.key`."""
        return key(self.prompt, self.completions)

    @property
    def open(self) -> bool:
        """Whether there is anything to tell apart."""
        return len(set(self.texts)) > 1

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.completions]

    @property
    def entries(self) -> tuple[dict, ...]:
        """The completions as a `Ranking` keeps them."""
        return tuple({name: each[name] for name in KEPT if name in each} for each in self.completions)


def settings(made: Provenance) -> dict | None:
    """The options that questions were asked with, without the prompts; None where they were not recorded."""
    requested = made.requested
    return None if requested is None else {"kind": made.kind, **{k: v for k, v in requested.items() if k != "prompts"}}


class Questions:
    """The questions last asked under the name of some rankings."""

    def __init__(self, rankings: Rankings):
        self.name = rankings.name
        self.path: Path = rankings.path.with_name(rankings.name + ASKED)

    def read(self) -> list[Question]:
        """In the order asked; none when there is no such file, or it is none of ours: they can be asked anew."""
        try:
            found = store.read_json(self.path).get("questions", [])
            return [
                Question(
                    q["prompt"], tuple(q["completions"]), tuple(q["shown"]), tuple(map(tuple, q["sent"])), q["source"]
                )
                for q in found
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return []

    @property
    def provenance(self) -> Provenance | None:
        """What asked them; None where there are none."""
        try:
            found = store.read_json(self.path)
            return Provenance.read({"kind": "rank", **found}) if found.get("questions") else None
        except (ValueError, AttributeError):
            return None

    def claim(self, prompts: Sequence[str], new: Provenance, overwrite: bool) -> None:
        """Raises GPTError where something else has asked questions under this name that would be gone.

        With the same options, further prompts beside those that were asked are no loss.
        """
        old = self.provenance
        if old is None or (settings(old) == settings(new) and {each.prompt for each in self.read()} <= set(prompts)):
            return
        check(self.name, old, new, overwrite)

    def write(self, questions: Sequence[Question], provenance: Provenance) -> None:
        """Keep these in the place of all others; whole or not at all."""
        store.write_json(self.path, {**asdict(provenance), "questions": [asdict(question) for question in questions]})
