"""Magic lines and bodies at random: every magic and verb, with odd options, values and bodies.

    python tests/benchmarks/fuzz.py [--cells 10000] [--seed 0]

Printed: how many cells ran and failed with one line, and each raw error, error line over 300 characters and cell over
10 s.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import tempfile
from pathlib import Path

import cells

WORDS = [
    "",
    "-",
    "--",
    "---",
    "x",
    "story",
    "docs",
    "votes",
    "mix",
    "far",
    "$docs",
    "$nothing",
    "$",
    "$f",
    "$number",
    "$none",
    "0",
    "1",
    "2",
    "-1",
    "0.5",
    "1e999",
    "nan",
    "inf",
    "9" * 40,
    "a" * 300,
    "a" * 5000,
    "é" * 80,
    "🙂",
    "\ud800",
    "\0",
    "\x1b[31m",
    "../..",
    "/",
    "~",
    ".",
    "/dev/null",
    "*",
    "**/*",
    "[",
    "{",
    "'",
    '"',
    "\\",
    "`",
    "%",
    "%%",
    "True",
    "None",
    "null",
    "[1, 2]",
    "{'a': 1}",
    "a: b: c",
    "page > -'a'",
    "page > 3 and",
    "(a+)+$",
    "(?P<x",
    "[a-z]{1000}",
    "http://127.0.0.1:9/",
    "file:///etc/passwd",
    "hf:a/b",
    "story,story",
    "step=1",
    "a=b",
    "=",
    "::",
    "$\\frac$",
    "<|im_start|>",
    "<|endoftext|>",
    "{{gen}}",
    "{{",
    "}}",
    "{% for %}",
    "int",
    "1..2",
]
BODIES = [
    "",
    "---",
    "--- \n---",
    "Hello",
    "user: hi\nassistant: ho",
    "user:\n",
    "$docs: 1",
    "$docs: x",
    "stories: -1",
    "stories: 1e999",
    "- a\n- b",
    "[",
    "{",
    "{}",
    "[]",
    "null",
    "\0",
    "\ud800",
    "a" * 5000,
    "&a [*a, *a]",
    "!!python/object:os.system x",
    "a: &x {b: *x}",
    "? a",
    "\t",
    "\\",
    "{{gen x max_tokens=2}}",
    "{{gen}}",
    "{{#if}}",
    "🙂 " * 50,
    '{"prompt": 1}',
    '{"prompt": "a", "response": "b"}',
    "\n\n\n",
    "%gpt models",
    "system: \nuser: x\nuser: y",
    "one\ntwo\none",
    "label\ttext",
    "pos\tgood\nneg\tbad",
]
SMALL = {
    "--steps": "1",
    "--max-tokens": "2",
    "--samples": "2",
    "--depth": "1",
    "--width": "16",
    "--heads": "1",
    "--vocab-size": "280",
    "--context": "16",
    "--batch-tokens": "32",
    "--tasks": "1",
    "--minutes": "0.001",
    "--epochs": "0.01",
}
ALWAYS = {"--steps", "--max-tokens", "--depth", "--width", "--heads", "--context", "--batch-tokens", "--vocab-size"}
KNOWN = {
    "models": ["story", "tuned", "far"],
    "runs": ["cut", "story"],
    "corpora": ["mix"],
    "rankings": ["votes"],
    "indexes": ["docs"],
}
SOUND = [
    "Hello",
    "$docs: 1",
    "$docs_chat: 1",
    "one\ntwo",
    "pos\tgood day\nneg\tbad day\npos\tglad fox\nneg\tsad hen",
    "Who sang?",
]
LEFT_OUT = (
    "pull",
    "serve",
    "--rerank",
    "--embedder",
    "--background",
)  # what would ask a hub, listen, or go on behind the cell


def grammar() -> list[tuple[str, list, bool]]:
    """Every magic and verb: how it is called, its options, and whether it has a body."""
    from jupyter_gpt.notebook.magics import CELLS
    from jupyter_gpt.notebook.magics.verbs import VERBS, command

    def options(found) -> list:
        return [option for _, group in found.groups for option in group if option.name not in LEFT_OUT]

    cells = [(f"%%{name}", options(magic.COMMAND), True) for name, magic in CELLS.items()]
    return cells + [(f"%gpt {verb}", options(command(verb)), False) for verb in VERBS if verb not in LEFT_OUT]


def cell(draw: random.Random, rules: list) -> str:
    """One cell: a magic with some of its options, many with sound values, small so that it ends soon."""
    magic, options, body = draw.choice(rules)
    bare = [option for option in options if not option.name.startswith("--")]
    named = {option.name: option for option in options if option.name.startswith("--")}
    words = [value(draw, option) for option in bare if option.needed or draw.random() < 0.5]
    for name in sorted({*draw.sample(sorted(named), min(len(named), draw.randrange(4))), *(named.keys() & ALWAYS)}):
        words.append(name)
        if named[name].kind is not None and draw.random() < 0.95:
            words.append(SMALL[name] if name in ALWAYS and draw.random() < 0.95 else value(draw, named[name]))
    if draw.random() < 0.05:
        words.append(draw.choice(["--hlep", "--help", "--=", "--steps=1", "-x", draw.choice(WORDS)]))
    line = " ".join([magic, *words]).replace("\n", " ")
    return f"{line}\n{draw.choice(SOUND if draw.random() < 0.5 else BODIES)}" if body else line


def value(draw: random.Random, option) -> str:
    """A value of an option: a sound one half of the time."""
    if draw.random() < 0.5:
        sound = [
            *option.choices,
            *KNOWN.get(option.complete, ()),
            *([SMALL[option.name]] if option.name in SMALL else []),
        ]
        found = draw.choice(sound or ["story", "1", "0.5"])
    else:
        found = draw.choice(WORDS)
    return f"'{found}'" if draw.random() < 0.2 else found


def attack(ip, wanted: int, seed: int) -> tuple[int, list[str]]:
    """Run `wanted` cells: how many failed with one line, and the faults. They run in an empty folder, on the store at
    hand.
    """
    draw, rules, lines, faults, here = random.Random(seed), grammar(), 0, [], Path.cwd()
    ip.user_ns |= {"f": lambda prompt, completion: 1.0, "number": 7, "none": None}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for _ in range(wanted):
                done = cells.run(ip, cell(draw, rules))
                lines += done.error is not None
                if done.fault:
                    where = f", {cells.place(done.error)}" if done.error else ""
                    faults.append(f"{done.fault}: {done.seconds:.1f} s, {done.source[:200]!r}{where}")
        finally:
            os.chdir(here)
    return lines, faults


def main() -> None:
    given = cells.options(__doc__, cells=10_000)
    with cells.store() as (ip, _):
        lines, faults = attack(ip, given.cells, given.seed)
    print(f"{given.cells} cells, {lines} failed, {len(faults)} faults (seed {given.seed})")
    for kind, count in collections.Counter(fault.split(":")[0] for fault in faults).most_common():
        print(f"{count:>5} {kind}")
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
