"""Rankings: for one prompt, several completions and the order that a person, or a judge, put them in.

`rankings/NAME.jsonl` has one ranking a line, written at the moment it is given: what was asked cost a
person's time, so nothing of it waits in memory. A vote for the best is a ranking too, with two groups; a tie
has one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.session import store

_writing = threading.Lock()  # an answer may arrive on any thread of the kernel


@dataclass(frozen=True)
class Ranking:
    """One answer.

    completions: K mappings with `model`, `text` and `seed`.
    order: groups of places in `completions`, the best first; those in one group were not told apart.
    shown: the order in which they stood before whoever answered, for whoever looks into position bias.
    time: when, in unix seconds.
    """

    prompt: str
    completions: tuple[dict, ...]
    order: tuple[tuple[int, ...], ...]
    shown: tuple[int, ...] = ()
    by: str = "person"
    time: float = 0.0

    @property
    def key(self) -> tuple:
        """What was ranked: the prompt, and whose text each completion is. Seeds, clocks and the answer are
        not in it."""
        return key(self.prompt, self.completions)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every (better, worse) pair of places that the order implies: what a reward model learns from."""
        groups = self.order
        return [
            (b, w) for i, best in enumerate(groups) for worse in groups[i + 1 :] for b in best for w in worse
        ]


def key(prompt: str, completions: Sequence[Mapping]) -> tuple:
    """What stays the same when the same completions are ranked again."""
    return (prompt, *((each["model"], each["text"]) for each in completions))


def to_line(ranking: Ranking) -> str:
    return json.dumps(asdict(ranking), ensure_ascii=False) + "\n"


def from_line(line: str) -> Ranking:
    """The ranking of one line of a file. Raises ValueError, KeyError or TypeError when it is none."""
    found = json.loads(line)
    completions = tuple(found["completions"])
    order = tuple(tuple(group) for group in found["order"])
    if sorted(place for group in order for place in group) != list(range(len(completions))):
        raise ValueError("the order does not name each completion once")
    for each in completions:
        each["model"], each["text"]
    return Ranking(
        found["prompt"],
        completions,
        order,
        tuple(found.get("shown", ())),
        found.get("by", "person"),
        found["time"],
    )


def mend(file) -> None:
    """End the last line of an open file: one that a kill left torn is cut off, a whole one gets its
    newline."""
    file.seek(0)
    written = file.read()
    rest = written[written.rfind(b"\n") + 1 :]
    if not rest:
        return
    try:
        from_line(rest.decode())
        file.write(b"\n")
    except (ValueError, KeyError, TypeError):
        file.truncate(len(written) - len(rest))


class Rankings(Sequence):
    """The rankings of one file, oldest first; always what the disk holds now. `add` and `withdraw` are
    thread-safe."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.stem

    def read(self) -> list[Ranking]:
        """All of them; a last line that a kill left torn is left out.

        Raises GPTError for a damaged line anywhere else: an answer of a person is not skipped in silence.
        """
        if not self.path.exists():
            return []
        found, text = [], self.path.read_text(encoding="utf-8")
        lines = text.split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found.append(from_line(line))
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):  # no newline after it: torn
                    break
                raise GPTError(
                    f"rankings {self.name}: line {number} of {self.path} is damaged: mend or delete it"
                ) from error
        return found

    def add(self, ranking: Ranking) -> None:
        """Keep one more. It is on the disk when this returns."""
        with _writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                mend(file)
                file.write(to_line(ranking).encode())
                file.flush()
                os.fsync(file.fileno())

    def put(self, ranking: Ranking) -> None:
        """Keep it in the place of an earlier ranking of the same completions, if there is one."""
        if ranking.key in self.latest():
            with _writing:
                self.write([*(old for old in self.read() if old.key != ranking.key), ranking])
        else:
            self.add(ranking)

    def withdraw(self, what: tuple) -> bool:
        """Take back every ranking of that `Ranking.key`; False when there is none."""
        with _writing:
            before = self.read()
            kept = [ranking for ranking in before if ranking.key != what]
            if len(kept) < len(before):
                self.write(kept)
            return len(kept) < len(before)

    def write(self, rankings: Sequence[Ranking]) -> None:
        """Write the file anew, whole or not at all."""
        store.write_text(self.path, "".join(to_line(ranking) for ranking in rankings))

    def latest(self) -> dict[tuple, Ranking]:
        """The last ranking of each `Ranking.key`."""
        return {ranking.key: ranking for ranking in self.read()}

    def __getitem__(self, place):
        return self.read()[place]

    def __len__(self) -> int:
        return len(self.read())

    def __repr__(self) -> str:
        return f"<rankings {self.name}: {len(self)}>"


class AllRankings(Mapping):
    """Every file of rankings under the store, by name."""

    def folder(self) -> Path:
        return store.home() / "rankings"

    def named(self, name: str) -> Rankings:
        """The rankings of that name, which may be still to come."""
        return Rankings(self.folder() / f"{store.check_name(name)}.jsonl")

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder().glob("*.jsonl"))

    def __getitem__(self, name: str) -> Rankings:
        found = self.named(name)
        if not found.path.exists():
            raise GPTError(f"there are no rankings {name}{nearest(name, self.names())}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
