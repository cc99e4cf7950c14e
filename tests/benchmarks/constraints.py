"""Constraints: are all answers valid that end by themselves, do they end, and what does holding them cost?

    python tests/benchmarks/constraints.py [--samples 20] [--room 1500] [--steps 80] [--no-cost]

1. A small model, trained here for half a minute on stories, is sampled at temperature 1.5 under 50 schemas, patterns,
   choices and grammars, 20 samples each. Every answer that ends by itself is checked by others: jsonschema, `re`,
   `ast`. Owed: all of them valid; at least 99% end by themselves; one that is cut off says so.
2. SmolLM2 on the CPU (from the user's cache): the share of a decode step that masks and bookkeeping take (owed: under
   10%), and the same JSON by guidance, if it is installed, on the same weights in turn.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

WORD, NAME = {"type": "string", "pattern": "^[a-z]{1,12}$"}, {"type": "string", "minLength": 1, "maxLength": 20}
YEAR = {"type": "integer", "minimum": 1900, "maximum": 2100}


def record(properties: dict, optional: tuple[str, ...] = ()) -> dict:
    """An object with these members and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def several(items: dict, most: int = 4, **more) -> dict:
    return {"type": "array", "items": items, "maxItems": most, **more}


SCHEMAS = [
    {"type": "boolean"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "null"},
    {"type": "string"},
    WORD,
    NAME,
    YEAR,
    {"type": "number", "minimum": -1, "maximum": 1},
    {"type": "integer", "multipleOf": 5},
    {"enum": [1, "two", None, [3]]},
    {"const": {"kind": "fixed", "n": 1}},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    several(WORD, minItems=1),
    several({"type": "integer"}),
    several(several(YEAR, 2), 3),
    {"type": "array", "items": WORD},
    {"type": "array", "prefixItems": [WORD, YEAR], "minItems": 2, "maxItems": 2},
    record({"name": NAME, "age": {"type": "integer", "minimum": 0, "maximum": 150}}),
    record({"title": {"type": "string"}, "year": YEAR, "tags": several(WORD)}, optional=("tags",)),
    record({"a": record({"b": record({"c": {"enum": ["deep", "deeper"]}})})}),
    record({"x": {"type": "number"}, "y": {"type": "number"}, "label": {"type": ["string", "null"], "maxLength": 8}}),
    {"anyOf": [record({"circle": YEAR}), record({"square": WORD})]},
    {"type": "object", "additionalProperties": {"type": "integer", "maximum": 99, "minimum": 0}, "maxProperties": 3},
    {
        "$defs": {"node": record({"v": YEAR, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}})},
        "$ref": "#/$defs/node",
    },
    record({"tool": {"const": "calculator"}, "arguments": record({"expression": {"type": "string", "maxLength": 24}})}),
]
REGEXES = [
    r"\d{3}-\d{4}",
    r"[a-z]+",
    r"[A-Z][a-z]{2,8}( [A-Z][a-z]{2,8}){0,2}",
    r"(yes|no|perhaps)[.!]",
    r"-?\d+(\.\d{1,3})?",
    r"#[0-9a-f]{6}",
    r"(?i)the (fox|hen) (saw|sang)",
    r"[^\n]{1,80}",
    r"(\w{1,12}, ){1,3}\w{1,12}",
    r"[é🙂ü]{2,6}",
    r"\[\d(,\d){0,9}\]",
    r"https://[a-z]{3,10}\.(org|net)/[a-z0-9]{0,12}",
    r"(?s:.){5,40}",
    r"a*b*c",
    r"\S{4} \S{4}",
]
GRAMMARS: list[tuple[str, Callable[[str], object]]] = [
    (
        'start: sum\nsum: sum "+" product | product\nproduct: product "*" atom | atom\natom: /[1-9][0-9]{0,3}/ | '
        '"(" sum ")"',
        lambda text: ast.parse(text, mode="eval"),
    ),
    ('start: "[" [item ("," item)*] "]"\nitem: /[0-9]/ | "[" /[0-9]/ "]"', lambda text: json.loads(text)),
    (
        'start: line{1,6}\nline: /[a-z]{1,9}/ "=" /[0-9]{1,4}/ "\\n"',
        lambda text: matched(r"([a-z]{1,9}=\d{1,4}\n){1,6}", text),
    ),
]
CHOICES = [["mage", "thief"], ["a", "ab", "abc", "ü🙂"]]


def matched(regex: str, text: str) -> None:
    if not re.fullmatch(regex, text):
        raise ValueError(f"{text!r} does not match {regex}")


def rules() -> list[tuple[dict, Callable[[str], object]]]:
    """Each constraint and a check of another library's, which raises for a text that breaks it."""
    import jsonschema

    def valid(schema: dict) -> Callable[[str], object]:
        formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
        return lambda text: jsonschema.validate(json.loads(text), schema, format_checker=formats)

    def among(options: list[str]) -> Callable[[str], object]:
        return lambda text: options.index(text)

    found: list = [({"json": schema}, valid(schema)) for schema in SCHEMAS]
    found += [({"regex": regex}, lambda text, regex=regex: matched(regex, text)) for regex in REGEXES]
    found += [({"grammar": grammar}, check) for grammar, check in GRAMMARS]
    return found + [({"choice": options}, among(options)) for options in CHOICES]


def holds(check: Callable[[str], object], text: str) -> bool:
    """Whether the other library takes the text."""
    import jsonschema

    try:
        check(text)
    except (ValueError, SyntaxError, jsonschema.ValidationError):
        return False
    return True


def validity(samples: int, room: int, steps: int) -> None:
    from jupyter_gpt.session import Session

    gpt = Session()
    options = {
        "depth": 2,
        "width": 64,
        "heads": 2,
        "context": 2048,
        "vocab_size": 1024,
        "rows": 1,
        "batch_tokens": 2048,
    }
    gpt.pretrain("small", {"stories": 1.0}, steps=steps, sample_every=10**6, **options)
    loss = gpt.runs["small"].history["loss"].iloc[-1]
    asked, ended, valid, honest, wrong = rules(), 0, 0, 0, []
    began = time.perf_counter()
    for n, (given, check) in enumerate(asked):
        done = gpt.prompt("Once", model="small", samples=samples, temperature=1.5, max_tokens=room, seed=n, **given)
        own = [sample for sample in done.samples if sample.finish_reason == "stop"]
        good = [sample for sample in own if holds(check, sample.text) and sample.valid]
        cut = [sample for sample in done.samples if sample.finish_reason == "length"]
        ended, valid = ended + len(own), valid + len(good)
        honest += sum(sample.valid == holds(check, sample.text) for sample in cut)
        wrong += [(given, sample.text[:100]) for sample in own if sample not in good]
        if cut:
            print(f"  {len(cut)} of {samples} cut off at {room} tokens: {str(given)[:90]}", flush=True)
    total = samples * len(asked)
    print(
        f"a model of {loss:.2f} nats after {steps} steps; {len(asked)} rules, {total:,} answers at temperature 1.5, "
        f"at most {room} tokens, {time.perf_counter() - began:.0f} s"
    )
    print(f"valid of those that ended by themselves  {valid:,} of {ended:,}, {valid / ended:.2%}  (owed 100%)")
    print(f"ended by themselves                      {ended:,} of {total:,}, {ended / total:.2%}  (owed 99%)")
    print(f"cut off and judged as the other library  {honest} of {total - ended}")
    for given, text in wrong:
        print("  broken:", given, repr(text))


class Timed:
    """What a constraint does, with the seconds it takes."""

    spent = 0.0

    def __init__(self, sample):
        self.sample = sample

    def __getattr__(self, name: str):
        inner = getattr(self.sample, name)

        def timed(*given):
            began = time.perf_counter()
            try:
                return inner(*given)
            finally:
                Timed.spent += time.perf_counter() - began

        return timed if callable(inner) else inner


JSON = record(
    {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "city": {"type": "string", "maxLength": 40},
        "pets": several(record({"name": NAME, "kind": {"enum": ["cat", "dog"]}})),
        "story": {"type": "string", "minLength": 120, "maxLength": 200},
    }
)
ASKED = "Describe a person, their pets and their story, as JSON."


def cost(model: str, rounds: int) -> None:
    import torch

    from jupyter_gpt.inference import engine
    from jupyter_gpt.inference.constrain import constrained, converted_of
    from jupyter_gpt.inference.engine import generate
    from jupyter_gpt.inference.sampling import Request
    from jupyter_gpt.prompting.generation import stop_ids
    from jupyter_gpt.session import Session

    found = Session().models[model]
    module, tokenizer, last = found.module, found.tokenizer, stop_ids(found)
    chat = [{"role": "user", "content": ASKED}]
    ids = tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False))
    converted_of(tokenizer)
    constrained(tokenizer, json={"type": "null"}, ends=last)  # the libraries are imported
    began = time.perf_counter()
    made = constrained(tokenizer, json=JSON, ends=last)
    print(f"compiling the schema for {len(tokenizer):,} tokens took {1000 * (time.perf_counter() - began):.1f} ms")
    plain, allowed = engine.mask_logits, []

    def watched(rows, logits):
        before, spent = time.perf_counter(), Timed.spent
        result = plain(rows, logits)
        allowed.append(time.perf_counter() - before - (Timed.spent - spent))
        return result

    for samples in (1, 16):
        shares, steps = [], []
        for seed in range(rounds):
            engine.mask_logits, Timed.spent = watched, 0.0
            allowed.clear()
            request = Request(
                ids, samples, 160, temperature=1.0, seed=seed, stop_ids=last, constraint=lambda: Timed(made())
            )
            seconds = [token.seconds for token in generate(module, [request]) if token is not None]
            engine.mask_logits = plain  # all tokens of a step have the same seconds; the first are the prefill's
            total = sum(s for s, before in zip(seconds[1:], seconds, strict=False) if s != before)
            shares.append((Timed.spent + sum(allowed)) / total)
            steps.append(1000 * total / max(1, len(allowed)))
        print(
            f"masks and bookkeeping, {samples:2} samples: {statistics.median(shares):.1%} of a decode step of "
            f"{statistics.median(steps):.0f} ms  (owed: under 10%)",
            flush=True,
        )
    peer(module, tokenizer, made, ids, last, rounds)
    print(f"{torch.get_num_threads()} threads, {module.dtype}, load {os.getloadavg()[0]:.1f}")


def peer(module, tokenizer, made, ids: tuple, last: frozenset[int], rounds: int) -> None:
    """The same JSON, greedy, by guidance on the same module, in turn."""
    try:
        import guidance
    except ImportError:
        print("guidance is not installed: no peer")
        return
    from jupyter_gpt.inference.engine import generate
    from jupyter_gpt.inference.sampling import Request

    warnings.simplefilter("ignore")
    theirs = guidance.models.Transformers(module, tokenizer, echo=False)
    prompt, times = tokenizer.decode(ids), {"guidance": [], "ours": []}
    for _ in range(rounds):
        began = time.perf_counter()
        state = theirs + prompt + guidance.json("it", schema=JSON, max_tokens=160)
        text = state["it"]
        times["guidance"].append((time.perf_counter() - began) / len(tokenizer.encode(text)))
        began = time.perf_counter()
        tokens = [
            t.id for t in generate(module, [Request(ids, 1, 160, temperature=0.0, stop_ids=last, constraint=made)]) if t
        ]
        times["ours"].append((time.perf_counter() - began) / len(tokens))
    per = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["guidance"], times["ours"], strict=True))
    print(f"the same JSON, greedy: guidance {per['guidance']:.1f} ms a token, ours {per['ours']:.1f} ms, {ratio:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--room", type=int, default=1500, help="tokens an answer may have")
    parser.add_argument("--steps", type=int, default=80, help="of the small model's training")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose decode step is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-validity", action="store_true")
    parser.add_argument("--no-cost", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("JUPYTER_GPT_HOME", tempfile.mkdtemp(prefix="constraints-"))
    if not given.no_validity:
        validity(given.samples, given.room, given.steps)
    if not given.no_cost:
        cost(given.model, given.rounds)


if __name__ == "__main__":
    main()
