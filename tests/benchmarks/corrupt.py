"""Damaged files: a small store with one of everything, each file of it damaged in seeded ways, and the cells that read
it.

    python tests/benchmarks/corrupt.py [--cells 4000] [--seed 0] [--only PART_OF_A_PATH]

Printed: how many cells ran and failed with one line, each raw error with the damage that led to it, and each line of
history (a step of a run up to its checkpoint, an answer of a person) that was whole in the damaged file and is gone
after.
"""

from __future__ import annotations

import collections
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cells

DOCUMENTS = [
    f"The {a} {b} saw {n} small birds and was {c}. It sang."
    for n in range(2, 12)
    for a in ("old", "red", "tall")
    for b in ("fox", "hen")
    for c in ("glad", "sad")
]
LAST = 8  # the last checkpoint of the run that was interrupted
TINY = (
    "--depth 1 --width 32 --heads 2 --context 32 --vocab-size 300 --batch-tokens 128 --rows 2 --seed 1 "
    "--checkpoint-every 4 --sample-every 1000"
)
CELLS = {  # of each part of the store: what reads it
    "runs": ["%gpt runs", "%gpt show cut", "%gpt resume cut", f"%%pretrain cut --steps 4 --corpus mix {TINY}\n"],
    "models": [
        "%gpt models",
        "%gpt load MODEL",
        "%%prompt MODEL --max-tokens 2 --seed 1\nThe old fox",
        "%gpt save MODEL saved",
    ],
    "indexes": [
        "%gpt indexes",
        "%gpt search docs fox --map none",
        "%gpt search docs fox --hybrid --map none",
        "%%rag docs --model story --max-tokens 2\nWho sang?",
        "%gpt index docs $docs",
    ],
    "rankings": [
        "gpt.rankings",
        "%gpt show votes",
        "gpt.rankings['votes'].notes",
        "%gpt reward r --base story --rankings votes --steps 1",
    ],
    "corpora": [f"%%pretrain x --steps 1 --corpus mix {TINY}\n"],
    "": [
        "%gpt models",
        "%%prompt far --dry-run\nHello",
        "%gpt config --templates",
        "%%prompt story --cot --dry-run\nWhat is 1 + 1?",
    ],
}


def build(ip) -> None:
    """Fill the store of JUPYTER_GPT_HOME."""
    from jupyter_gpt import gpt
    from jupyter_gpt.prompting import templates
    from jupyter_gpt.stages.rankings import Ranking

    ip.user_ns |= {"docs": DOCUMENTS, "gpt": gpt}
    cell = ip_cell(ip)
    cell("%%corpus mix\n$docs: 1")
    cell(f"%%pretrain story --steps 4 --corpus mix {TINY}\n")
    cell(f"%%pretrain cut --steps 4 --corpus mix {TINY}\n")
    interrupted(gpt.runs["cut"].folder, lambda: cell(f"%%pretrain cut --overwrite --steps 12 --corpus mix {TINY}\n"))
    cell(
        "%%sft tuned --base story --lora 2 --steps 2 --seed 1\n$docs_chat: 1",
        docs_chat=[{"prompt": f"How many birds, {n}?", "response": f"{n} birds."} for n in range(12)],
    )
    cell("%gpt index docs $docs --embedder story --chunk-tokens 24")
    cell("%gpt search docs fox --hybrid --map none")
    cell("%%prompt story --max-tokens 2\nThe old fox")
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "m")
    technique = next(iter(templates.MODULES))
    name, text = next(iter(templates.defaults(technique).items()))
    templates.replace(technique, name, text + " ")
    votes = gpt.rankings.named("votes")
    for n in range(6):
        votes.add(
            Ranking(
                f"Prompt {n}",
                ({"model": "story", "text": "a fox"}, {"model": "story", "text": f"{n} hens"}),
                ((0,), (1,)),
                (0, 1),
                time=float(n),
            )
        )


def ip_cell(ip):
    def cell(source: str, **variables) -> None:
        ip.user_ns.update(variables)
        done = cells.run(ip, source)
        if done.error is not None:
            raise done.error

    return cell


def interrupted(folder: Path, train) -> None:
    """Leave the run as a kill would: with its checkpoints, without an end."""
    from jupyter_gpt.runs import checkpoint

    real, checkpoint.shutil = checkpoint.shutil, Kept()
    try:
        train()
    finally:
        checkpoint.shutil = real
    if not (folder / "checkpoints" / f"step-{LAST:07d}").exists():
        raise RuntimeError("the interrupted run has no checkpoint to go on from")
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(line for line in lines if json.loads(line)["event"] != "end"))


class Kept:
    """`shutil` that leaves the last checkpoint where it is."""

    @staticmethod
    def rmtree(path, *args, **kwargs) -> None:
        if Path(path).name not in ("checkpoints", f"step-{LAST:07d}"):
            shutil.rmtree(path, *args, **kwargs)


def damages(data: bytes, draw: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Every kind of damage to a file's content, once; None stands for no file, and "folder" for one in its place."""
    at = draw.randrange(len(data)) if data else 0
    flipped = bytearray(data)
    for place in (draw.randrange(len(data)) for _ in range(min(5, len(data)))):
        flipped[place] ^= 1 << draw.randrange(8)
    yield "missing", None
    yield "folder", None
    yield "empty", b""
    yield "cut short", data[:at]
    yield "flipped bits", bytes(flipped)
    yield "NULs", data[:at] + b"\0" * 40 + data[at:]
    yield "not UTF-8", data[:at] + b"\xff\xfe\xe9" + data[at:]
    yield "nested", b"[" * 100_000
    yield "another type", draw.choice([b"[]", b"null", b"7", b'"text"', b"{}", b"[[1]]", b"true"])
    text = data[: 1 << 20].decode("utf-8", "replace")
    values = list(
        re.finditer(r'(?<=: )(-?[\d.e+-]+|"(?:[^"\\]|\\.)*"|null|true|false|\[\]|\{\}|[\w./$-]+)(?=[\s,}\]]|$)', text)
    )
    if values and "\0" not in text[:1000]:
        for what, new in (
            ("a type swapped", draw.choice(['"x"', "[1]", "{}", "null", "true", "-1"])),
            ("a huge number", draw.choice(["1" + "0" * 30, "1e999", "9" * 5000, "-" + "9" * 20])),
        ):
            one = draw.choice(values)
            yield what, (text[: one.start()] + new + text[one.end() :]).encode()


def history(home: Path) -> collections.Counter:
    """The lines of history that are whole: steps of the run up to its last checkpoint, and rankings."""
    from jupyter_gpt.stages.rankings import from_line

    found = collections.Counter()
    for path in (home / "rankings" / "votes.jsonl", home / "runs" / "cut" / "events.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else []:
            try:
                if path.name == "votes.jsonl":
                    from_line(line.decode())
                else:
                    event = json.loads(line.decode())
                    if event["event"] != "step" or event["step"] > LAST:
                        continue
                found[line] += 1
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
    return found


def attack(ip, template: Path, wanted: int, seed: int, only: str = "") -> tuple[int, int, list[str], list[str]]:
    """Run `wanted` cells over damaged copies of the store `template`: how many ran, how many failed with one line, the
    faults and what was erased."""
    from jupyter_gpt import gpt

    draw, ran, lines, faults, erased = random.Random(seed), 0, 0, [], []
    paths = sorted(p.relative_to(template) for p in template.rglob("*") if p.is_file() and only in p.as_posix())
    paths = [p for p in paths if p.parts[0] != "locks"]
    todo = []
    while len(todo) < wanted:
        for path in paths:
            todo += [(path, what, data) for what, data in damages((template / path).read_bytes(), draw)]
    draw.shuffle(todo)
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        for number, (path, what, data) in enumerate(todo):
            if ran >= wanted:
                break
            home = Path(folder) / f"home{number}"
            shutil.copytree(template, home)
            target = home / path
            target.unlink()
            if what == "folder":
                target.mkdir()
            elif data is not None:
                target.write_bytes(data)
            os.environ["JUPYTER_GPT_HOME"] = str(home)
            os.chdir(home)
            before, kind = history(home), path.parts[0] if len(path.parts) > 1 else ""
            model = path.parts[1] if kind == "models" else "story"
            for source in CELLS.get(kind, CELLS[""]):
                if ("resume" in source or source.startswith("%%pretrain cut")) and draw.random() < 0.5:
                    continue
                done = cells.run(ip, source.replace("MODEL", model))
                ran, lines = ran + 1, lines + (done.error is not None)
                if done.fault:
                    faults.append(
                        f"{done.fault}: {path} {what}, {done.source.splitlines()[0]!r}, {done.seconds:.1f} s"
                        + (f", {cells.place(done.error)}" if done.error else "")
                    )
                if "--overwrite" not in source and (gone := before - history(home)) and "cut --steps" not in source:
                    erased.append(
                        f"{path} {what}, {done.source.splitlines()[0]!r}: {len(gone)} lines, such as "
                        f"{next(iter(gone))[:80]!r}"
                    )
                    before = history(home)
            for known in (gpt.runs.known, gpt.models.resident, gpt.indexes.open):
                known.clear()
            os.chdir(here)
            shutil.rmtree(home)
    return ran, lines, faults, erased


def main() -> None:
    given = cells.options(__doc__, cells=4000, only="")
    with cells.store() as (ip, folder):
        ran, lines, faults, erased = attack(ip, folder / "home", given.cells, given.seed, given.only)
    print(f"{ran} cells, {lines} failed, {len(faults)} faults, {len(erased)} erasures (seed {given.seed})")
    for found in (faults, erased):
        kinds = collections.Counter(
            re.sub(r"\d+\.\d s", "", one.partition(": ")[2].rpartition(", ")[2]) for one in found
        )
        for kind, count in kinds.most_common():
            print(
                f"{count:>5} {kind}\n      such as "
                f"{next(one for one in found if kind in re.sub(r'[0-9]+[.][0-9] s', '', one))}"
            )
    sys.exit(bool(faults or erased))


if __name__ == "__main__":
    main()
