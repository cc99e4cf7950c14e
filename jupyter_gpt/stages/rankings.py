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

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs.provenance import Provenance, check

ASKED = ".questions.json"  # beside the answers: what was asked (stages/questions.py)
KEPT = ("model", "text", "seed", "finish_reason")  # of each completion
NONE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what a line that is none makes of its reader
_writing = threading.Lock()  # an answer may arrive on any thread of the kernel


@dataclass(frozen=True)
class Ranking:
    """One answer.

    completions: K mappings with KEPT: `finish_reason` is "stop" of a text that came to its end and "length" of one cut
        at its token limit; rankings of earlier versions and of files do not have it.
    order: groups of places in `completions`, the best first; those in one group were not told apart.
    shown: the order in which they stood before whoever answered, for whoever looks into position bias.
    by: who answered.
    time: when, in unix seconds.
    reason: why, in whoever's words.
    """

    prompt: str
    completions: tuple[dict, ...]
    order: tuple[tuple[int, ...], ...]
    shown: tuple[int, ...] = ()
    by: str = "person"
    time: float = 0.0
    reason: str = ""

    @property
    def key(self) -> tuple:
        """What was ranked: the prompt, and whose text each completion is. Seeds, clocks and the answer are
        not in it."""
        return key(self.prompt, self.completions)

    @property
    def finished(self) -> list[bool]:
        """Whether each completion came to its end."""
        return [finished(each) for each in self.completions]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every (better, worse) pair of places that the order implies: what a reward model learns from."""
        groups = self.order
        return [(b, w) for i, best in enumerate(groups) for worse in groups[i + 1 :] for b in best for w in worse]


def finished(completion: Mapping) -> bool:
    """Whether a completion came to its end: not if its `finish_reason` is "length". One that does not say, of an older
    ranking or a file of preferences, is taken as whole.
    """
    return completion.get("finish_reason") != "length"


def key(prompt: str, completions: Sequence[Mapping]) -> tuple:
    """What stays the same when the same completions are ranked again."""
    return (prompt, *((each["model"], each["text"]) for each in completions))


def disputed(rankings: Sequence[Ranking]) -> tuple[int, int]:
    """Of the pairs of different texts that rankings of one prompt tell apart: how many are told both ways, and all."""
    told: set[tuple[str, str, str]] = set()
    for ranking in rankings:
        texts = [each["text"] for each in ranking.completions]
        told |= {(ranking.prompt, texts[b], texts[w]) for b, w in ranking.pairs if texts[b] != texts[w]}
    both = sum((prompt, worse, better) in told for prompt, better, worse in told) // 2
    return both, len(told) - both


def to_line(ranking: Ranking) -> str:
    return json.dumps(asdict(ranking), ensure_ascii=False) + "\n"


def from_line(line: str) -> Ranking:
    """The ranking of one line of a file. Raises one of NONE when it is none."""
    found = json.loads(line)
    completions = tuple(found["completions"])
    order = tuple(tuple(group) for group in found["order"])
    if sorted(place for group in order for place in group) != list(range(len(completions))):
        raise ValueError("the order does not name each completion once")
    for each in completions:
        store.check_kinds({"text": each["text"], "model": each["model"]}, text=str, model=str)
    store.check_kinds(found, prompt=str, time=int | float, by=str, reason=str)
    return Ranking(
        found["prompt"],
        completions,
        order,
        tuple(found.get("shown", ())),
        found.get("by", "person"),
        found["time"],
        found.get("reason", ""),
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
    except NONE:
        file.truncate(len(written) - len(rest))


def scan(path: Path, name: str, read=from_line) -> tuple[list[Ranking], int | None]:
    """The rankings of a file of one a line, and the number of its last line if that was cut off in the middle.

    `read` makes the ranking of a line. Raises GPTError for a damaged line anywhere else.
    """
    try:
        found, lines = [], path.read_bytes().split(b"\n")  # a cut may be in the middle of a character
    except OSError as error:
        raise GPTError(f"rankings {name} cannot be read: {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(read(line.decode()))
        except NONE as error:
            if number == len(lines):  # no newline after it: torn
                return found, number
            raise GPTError(f"rankings {name}: line {number} of {path} is damaged: mend or delete it") from error
    return found, None


class Rankings(Sequence):
    """The rankings of one file, oldest first; always what the disk holds now. What writes is thread-safe."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.stem

    def read(self) -> list[Ranking]:
        """All of them; a last line that a kill left torn is left out, and `torn` says so.

        Raises GPTError for a damaged line anywhere else: an answer of a person is not skipped in silence.
        """
        return self.scan()[0]

    @property
    def torn(self) -> str | None:
        """What there is to say when the file ends in the middle of a line, None when it does not. The next answer
        that is kept cuts the rest of that line off."""
        found, number = self.scan()
        if number is None:
            return None
        return (
            f"rankings {self.name}: the file was cut off in the middle of its line {number}; the {len(found)} "
            f"before it {'is' if len(found) == 1 else 'are'} kept"
        )

    @property
    def notes(self) -> list[str]:
        """What whoever learns from them should know: that the file was cut off, that they contradict each other."""
        both, pairs = disputed(self.read())
        said = (
            f"rankings {self.name}: {both} of the {pairs} pairs of completions that they tell apart are ranked "
            f"both ways, "
            "so nothing can be right about them"
        )
        return [note for note in (self.torn, said if both else None) if note]

    @property
    def missing(self) -> int:
        """How many of the questions that were last asked under this name nobody has answered."""
        known = self.latest()
        return sum(bool(q.open) and q.key not in known for q in Questions(self).read())

    def need(self, count: int) -> list[Ranking]:
        """All of them, if there are `count` at least that tell completions apart; for whatever learns from them.

        Raises GPTError that says how many are there and how many are missing, and for rankings of which each is
        contradicted.
        """
        found = self.read()
        telling = sum(disputed([ranking])[1] > 0 for ranking in found)
        if telling >= count:
            both, pairs = disputed(found)
            if both == pairs:
                raise GPTError(
                    f"rankings {self.name} contradict each other: all {pairs} pairs of completions that they tell "
                    f"apart "
                    "are ranked both ways, so there is nothing to learn; take one labeller's side"
                )
            return found
        ties = f" ({len(found) - telling} more are all ties)" if len(found) > telling else ""
        rest = f"; {self.missing} of the prompts last asked are not ranked yet" if self.missing else ""
        raise GPTError(
            f"rankings {self.name}: {telling} are there{ties}, {count} are needed, {count - telling} missing{rest}: "
            f"go on ranking in the %%rank cell, or let it be filled by --judge or --rankings"
        )

    def scan(self) -> tuple[list[Ranking], int | None]:
        """All whole rankings, and the number of a torn last line if there is one."""
        if not self.path.exists():
            return [], None
        return scan(self.path, self.name)

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
        """Keep it in the place of an earlier ranking of the same completions by the same labeller, if there is one."""
        if (ranking.key, ranking.by) in {(old.key, old.by) for old in self.read()}:
            with _writing:
                rest = (old for old in self.read() if (old.key, old.by) != (ranking.key, ranking.by))
                self.write([*rest, ranking])
        else:
            self.add(ranking)

    def withdraw(self, what: tuple, by: str | None = None) -> bool:
        """Take back every ranking of that `Ranking.key`, or only those `by` one labeller; False when there is none."""
        with _writing:
            before = self.read()
            kept = [ranking for ranking in before if ranking.key != what or by not in (None, ranking.by)]
            if len(kept) < len(before):
                self.write(kept)
            return len(kept) < len(before)

    def write(self, rankings: Sequence[Ranking]) -> None:
        """Write the file anew, whole or not at all; on the disk when this returns."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        store.sweep(self.path.parent)
        with temporary.open("wb") as file:
            file.write("".join(to_line(ranking) for ranking in rankings).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)

    def latest(self, by: str | None = None) -> dict[tuple, Ranking]:
        """The last ranking of each `Ranking.key`, by anybody or by one labeller."""
        return {ranking.key: ranking for ranking in self.read() if by in (None, ranking.by)}

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
        """Those that have answers, and those that were asked for and wait for the first."""
        found = [*self.folder().glob("*.jsonl"), *self.folder().glob(f"*{ASKED}")]
        return sorted({path.name.removesuffix(ASKED).removesuffix(".jsonl") for path in found})

    def __getitem__(self, name: str) -> Rankings:
        found = self.named(name)
        if name not in self.names():
            raise GPTError(f"there are no rankings {name}{nearest(name, self.names())}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


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
