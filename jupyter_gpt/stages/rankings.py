"""Rankings: for one prompt, K completions and their order, best first and with ties, by a person or a judge.

`rankings/NAME.jsonl` has one ranking per line, synced to disk as soon as it is given. A vote for the best of several is
a ranking of two groups, a tie one of a single group. `NAME.questions.json` beside it has the prompts with their
completions as last presented, so a new kernel continues where the last one stopped.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs.provenance import Provenance, check

QUESTIONS = ".questions.json"
KEPT = ("model", "text", "seed", "finish_reason")  # of each completion, in a ranking on disk
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what a damaged line raises when read
_writing = threading.Lock()  # a ranking may arrive on any thread of the kernel


@dataclass(frozen=True)
class Question:
    """One prompt and its K completions, to be ranked.

    completions: mappings with `model`, `text`, `seed`, `finish_reason`, and `times`, how often that text was sampled.
    shown: the order in which the completions are presented, a permutation of their places. sent: (model, exact prompt
    with its special tokens) pairs. source: fingerprint of the models and the settings; see `fingerprint.of`.
    messages: as a `Ranking` has them.
    """

    prompt: str
    completions: tuple[dict, ...]
    shown: tuple[int, ...]
    sent: tuple[tuple[str, str], ...] = ()
    source: str = ""
    messages: tuple[dict, ...] = ()

    @property
    def asked(self) -> str | list[dict]:
        """What a model is asked: the prompt, or its messages."""
        return list(self.messages) or self.prompt

    @property
    def key(self) -> tuple:
        """Equal to the `Ranking.key` of its rankings."""
        return key(self.prompt, self.completions)

    @property
    def open(self) -> bool:
        """Whether the completions differ, so that they can be ranked."""
        return len(set(self.texts)) > 1

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.completions]

    @property
    def entries(self) -> tuple[dict, ...]:
        """The completions as a `Ranking` keeps them."""
        return tuple({name: each[name] for name in KEPT if name in each} for each in self.completions)


@dataclass(frozen=True)
class Ranking:
    """The order of one prompt's completions, by one annotator.

    prompt: a text; of a conversation its turns, a line each, as it is shown.
    messages: that conversation, perhaps with a system prompt first; empty for a prompt that is one text.
    completions: K mappings with KEPT: `finish_reason` is "length" for a completion cut at its token limit, else "stop";
        rankings of earlier versions and of imported files do not have it.
    order: groups of places in `completions`, the best first; those in one group are tied.
    shown: the order in which they were presented, for the study of position bias.
    by: the annotator or judge.  time: unix seconds.  reason: the annotator's comment.
    """

    prompt: str
    completions: tuple[dict, ...]
    order: tuple[tuple[int, ...], ...]
    shown: tuple[int, ...] = ()
    by: str = "person"
    time: float = 0.0
    reason: str = ""
    messages: tuple[dict, ...] = ()

    @property
    def asked(self) -> str | list[dict]:
        """What a model is asked: the prompt, or its messages."""
        return list(self.messages) or self.prompt

    @property
    def key(self) -> tuple:
        """What was ranked: the prompt, and each completion's model and text; not the seeds, the time or the order."""
        return key(self.prompt, self.completions)

    @property
    def finished(self) -> list[bool]:
        return [finished(each) for each in self.completions]

    @property
    def sampled(self) -> list[bool]:
        """Whether each completion is a model's, and not of a dataset."""
        return [bool(each.get("model")) for each in self.completions]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every (better, worse) pair of places that the order implies: what a reward model is trained on."""
        groups = self.order
        return [(b, w) for i, best in enumerate(groups) for worse in groups[i + 1 :] for b in best for w in worse]


def finished(completion: Mapping) -> bool:
    """Whether a completion was not cut at its token limit. One without `finish_reason` is taken as finished."""
    return completion.get("finish_reason") != "length"


def key(prompt: str, completions: Sequence[Mapping]) -> tuple:
    """The same whenever the same completions of the same prompt are ranked."""
    return (prompt, *((each["model"], each["text"]) for each in completions))


def contradictions(rankings: Sequence[Ranking]) -> tuple[int, int]:
    """How many of the pairs of different texts that the rankings order are ordered both ways; and how many pairs."""
    ordered: set[tuple[str, str, str]] = set()
    for ranking in rankings:
        texts = [each["text"] for each in ranking.completions]
        ordered |= {(ranking.prompt, texts[b], texts[w]) for b, w in ranking.pairs if texts[b] != texts[w]}
    both = sum((prompt, worse, better) in ordered for prompt, better, worse in ordered) // 2
    return both, len(ordered) - both


def values_of(record: Ranking | Question) -> dict:
    """The fields of a record as JSON has them; `messages` only where there are some."""
    values = asdict(record)
    return values if record.messages else {name: value for name, value in values.items() if name != "messages"}


def messages_in(values: Mapping) -> tuple[dict, ...]:
    """The messages of a record on disk. Raises one of DAMAGED."""
    messages = tuple(values.get("messages", ()))
    for each in messages:
        store.check_types({"role": each["role"], "content": each["content"]}, role=str, content=str)
    return messages


def to_line(ranking: Ranking) -> str:
    return json.dumps(values_of(ranking), ensure_ascii=False) + "\n"


def from_line(line: str) -> Ranking:
    """Parse one line of a rankings file. Raises one of DAMAGED."""
    values = json.loads(line)
    completions = tuple(values["completions"])
    order = tuple(tuple(group) for group in values["order"])
    if sorted(place for group in order for place in group) != list(range(len(completions))):
        raise ValueError("the order does not name each completion once")
    for each in completions:
        store.check_types({"text": each["text"], "model": each["model"]}, text=str, model=str)
    store.check_types(values, prompt=str, time=int | float, by=str, reason=str)
    shown, by, reason = tuple(values.get("shown", ())), values.get("by", "person"), values.get("reason", "")
    return Ranking(values["prompt"], completions, order, shown, by, values["time"], reason, messages_in(values))


def scan(
    path: Path, name: str, parse: Callable[[str, int], Ranking] = lambda line, _: from_line(line)
) -> tuple[list[Ranking], int | None]:
    """The rankings of a file, and the number of its last line if that line is incomplete.

    `parse` is given each line and its number. Raises GPTError for a damaged line anywhere else.
    """
    try:
        rankings, lines = [], path.read_bytes().split(b"\n")  # a cut may be inside a character
    except OSError as error:
        raise GPTError(f"rankings {name} cannot be read: {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rankings.append(parse(line.decode(), number))
        except DAMAGED as error:
            if number == len(lines):  # no newline after it: a write was cut off
                return rankings, number
            raise GPTError(f"rankings {name}: line {number} of {path} is damaged: mend or delete it") from error
    return rankings, None


class Rankings(Sequence):
    """The rankings of one file, oldest first, always as they are on disk. Writing is thread-safe."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.stem
        self.questions_path = path.with_name(path.stem + QUESTIONS)

    def scan(self) -> tuple[list[Ranking], int | None]:
        return scan(self.path, self.name) if self.path.exists() else ([], None)

    def read(self) -> list[Ranking]:
        """All of them, without an incomplete last line (see `torn`). Raises GPTError for a damaged line elsewhere."""
        return self.scan()[0]

    @property
    def torn(self) -> str | None:
        """A note that the last line is incomplete, or None. The next ranking that is added removes that line."""
        rankings, number = self.scan()
        if number is None:
            return None
        return (
            f"rankings {self.name}: the file was cut off in the middle of its line {number}; the {len(rankings)} "
            f"before it {'is' if len(rankings) == 1 else 'are'} kept"
        )

    @property
    def notes(self) -> list[str]:
        """Warnings for whatever is trained on them: an incomplete last line, contradictions."""
        both, pairs = contradictions(self.read())
        contradiction = (
            f"rankings {self.name}: {both} of the {pairs} pairs of completions that they order are ranked both "
            f"ways; no model can be right about those"
        )
        return [note for note in (self.torn, contradiction if both else None) if note]

    @property
    def missing(self) -> int:
        """How many of the questions last presented have no ranking."""
        ranked = self.latest()
        return sum(question.open and question.key not in ranked for question in self.questions())

    def need(self, count: int) -> list[Ranking]:
        """All of them, for training. Raises GPTError unless at least `count` order their completions, and when every
        pair is contradicted.
        """
        rankings = self.read()
        ordering = sum(contradictions([ranking])[1] > 0 for ranking in rankings)
        if ordering < count:
            ties = f" ({len(rankings) - ordering} more are all ties)" if len(rankings) > ordering else ""
            rest = f"; {self.missing} of the prompts last asked are not ranked yet" if self.missing else ""
            raise GPTError(
                f"rankings {self.name}: {ordering} are there{ties}, {count} are needed, {count - ordering} missing"
                f"{rest}: continue in the %%rank cell, or give it --judge or --rankings"
            )
        both, pairs = contradictions(rankings)
        if both == pairs:
            raise GPTError(
                f"rankings {self.name} contradict each other: all {pairs} pairs of completions are ranked both ways, "
                f"so there is nothing to learn; use the rankings of one annotator"
            )
        return rankings

    def add(self, ranking: Ranking) -> None:
        """Append a ranking. It is on disk when this returns."""
        with _writing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                end_last_line(file)
                file.write(to_line(ranking).encode())
                file.flush()
                os.fsync(file.fileno())

    def put_all(self, rankings: Sequence[Ranking]) -> None:
        """Add rankings in one write; each replaces the same annotator's earlier ranking of the same completions."""
        with _writing:
            kept = {(each.key, each.by): each for each in self.read()}
            new = {(each.key, each.by): each for each in rankings}
            new = {name: each for name, each in new.items() if name not in kept or kept[name].order != each.order}
            if new:
                self.write([*(each for name, each in kept.items() if name not in new), *new.values()])

    def put(self, ranking: Ranking) -> None:
        """Add a ranking, or replace the same annotator's earlier ranking of the same completions."""
        if (ranking.key, ranking.by) in {(old.key, old.by) for old in self.read()}:
            with _writing:
                rest = (old for old in self.read() if (old.key, old.by) != (ranking.key, ranking.by))
                self.write([*rest, ranking])
        else:
            self.add(ranking)

    def withdraw(self, key: tuple, by: str | None = None) -> bool:
        """Remove every ranking with that key, or only the one `by` an annotator; False when there is none."""
        with _writing:
            before = self.read()
            kept = [ranking for ranking in before if ranking.key != key or by not in (None, ranking.by)]
            if len(kept) < len(before):
                self.write(kept)
            return len(kept) < len(before)

    def write(self, rankings: Sequence[Ranking]) -> None:
        """Replace the file, whole or not at all; on disk when this returns."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        store.sweep(self.path.parent)
        with temporary.open("wb") as file:
            file.write("".join(map(to_line, rankings)).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)

    def latest(self, by: str | None = None) -> dict[tuple, Ranking]:
        """The last ranking of each key, by anybody or by one annotator."""
        return {ranking.key: ranking for ranking in self.read() if by in (None, ranking.by)}

    def questions(self) -> list[Question]:
        """The questions last presented; none where the file is missing or damaged: they can be sampled again."""
        try:
            return [
                Question(
                    q["prompt"],
                    tuple(q["completions"]),
                    tuple(q["shown"]),
                    tuple(map(tuple, q["sent"])),
                    q["source"],
                    messages_in(q),
                )
                for q in store.read_json(self.questions_path).get("questions", [])
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return []

    @property
    def provenance(self) -> Provenance | None:
        """What made the questions; None where there are none."""
        try:
            values = store.read_json(self.questions_path)
            return Provenance.read({"kind": "rank", **values}) if values.get("questions") else None
        except (ValueError, AttributeError):
            return None

    def claim(self, prompts: Sequence[str], new: Provenance, overwrite: bool) -> None:
        """Raises GPTError where the questions of another cell would be replaced.

        More prompts with the same options lose nothing, so they are allowed.
        """

        def settings(made: Provenance) -> dict | None:
            requested = made.requested
            return None if requested is None else {"kind": made.kind, **requested, "prompts": None}

        old = self.provenance
        same = old is not None and settings(old) == settings(new)
        if old is not None and not (same and {each.prompt for each in self.questions()} <= set(prompts)):
            check(self.name, old, new, overwrite)

    def present(self, questions: Sequence[Question], made: Provenance) -> None:
        """Keep these questions in the place of all others; whole or not at all."""
        content = {**asdict(made), "questions": [values_of(question) for question in questions]}
        store.write_json(self.questions_path, content)

    def __getitem__(self, place):
        return self.read()[place]

    def __len__(self) -> int:
        return len(self.read())

    def __repr__(self) -> str:
        return f"<rankings {self.name}: {len(self)}>"


def end_last_line(file) -> None:
    """Remove an incomplete last line from an open file; give a complete one its newline."""
    file.seek(0)
    content = file.read()
    rest = content[content.rfind(b"\n") + 1 :]
    if not rest:
        return
    try:
        from_line(rest.decode())
        file.write(b"\n")
    except DAMAGED:
        file.truncate(len(content) - len(rest))


class AllRankings(Mapping):
    """Every rankings file of the store, by name."""

    def folder(self) -> Path:
        return store.home() / "rankings"

    def named(self, name: str) -> Rankings:
        """The rankings of that name, which need not exist yet."""
        return Rankings(self.folder() / f"{store.check_name(name)}.jsonl")

    def names(self) -> list[str]:
        """Those with rankings, and those with questions that wait for the first."""
        paths = [*self.folder().glob("*.jsonl"), *self.folder().glob(f"*{QUESTIONS}")]
        return sorted({path.name.removesuffix(QUESTIONS).removesuffix(".jsonl") for path in paths})

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Rankings:
        if name not in self:
            file = " (`%%rank NAME --rankings FILE` imports a file)" if not store.NAME.fullmatch(name) else ""
            raise GPTError(f"there are no rankings {name:.60}{file or nearest(name, self.names())}")
        return self.named(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
