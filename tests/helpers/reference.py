"""The reference, a page per magic: `python tests/helpers/reference.py` writes `notebooks/reference.ipynb`.

It says what `--help` says: both are made from the options of the stages.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import annotated_types
from pydantic.fields import FieldInfo

from jupyter_gpt.models.endpoints import EndpointOptions
from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import Command, Option, command_of, usage
from jupyter_gpt.notebook.magics.verbs import VERBS
from jupyter_gpt.options import Options
from jupyter_gpt.stages.claims import ClaimOptions
from jupyter_gpt.stages.evaluate_index import EvaluateIndex
from jupyter_gpt.stages.evaluate_tasks import EvaluateTasks

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "reference.ipynb"
COMMAND = "python tests/helpers/reference.py"
PARTS = {
    "Cell magics": [cell.options for cell in CELLS.values()],
    "Verbs of %gpt": [verb.options for verb in VERBS.values()],
    "Python functions without a magic": [ClaimOptions, EndpointOptions, EvaluateIndex, EvaluateTasks],
}
ABOUT = """\
# Reference

Every magic with its options, as its `--help` prints it, generated from the options themselves. `%load_ext jupyter_gpt`
loads the magics. Each is also a Python function, `from jupyter_gpt import gpt`: `%%sft` is `gpt.sft(…)` and
`%gpt plan` is `gpt.plan(…)`, and `--batch-tokens 4096` is `batch_tokens=4096`. A number may be written 1000, 1_000,
50k or 1e6. An option without a default is off, or set by what its description says."""
OWN = """\
## Code of your own

`callbacks` are told every event of a run, `loss` takes the place of cross-entropy, and a model of your own, in the
interface of transformers, is one like any other once it is added. (An algorithm of your own is `%%rlhf --algo $mine`, a
reward `--reward $f`, a judge `--judge $f`, a tool `--tools $f`.)"""
EXAMPLE = """\
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from jupyter_gpt import gpt
from jupyter_gpt.runs.events import Evaluation


class LSTMConfig(PretrainedConfig):
    model_type = "lstm-lm"

    def __init__(self, vocab_size=512, hidden_size=64, num_hidden_layers=1, **more):
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        super().__init__(vocab_size=vocab_size, **more)


class LSTMForCausalLM(PreTrainedModel):
    config_class = LSTMConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.lstm = torch.nn.LSTM(config.hidden_size, config.hidden_size, config.num_hidden_layers, batch_first=True)
        self.head = torch.nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.table

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **_):
        return CausalLMOutput(logits=self.head(self.lstm(self.table(input_ids))[0]))


AutoConfig.register("lstm-lm", LSTMConfig)
AutoModelForCausalLM.register(LSTMConfig, LSTMForCausalLM)


def smoothed(logits, targets):  # float32 logits (N, V) and token ids (N,); returns their mean loss
    return torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)


def watch(event):  # on the main thread; an exception ends the run, with a checkpoint
    if isinstance(event, Evaluation):
        print(event.step, event.values["val_loss"])


gpt.pretrain("storyteller", {"stories": 1}, depth=1, steps=20, context=64, loss=smoothed, callbacks=[watch])
tokenizer = gpt.models["storyteller"].tokenizer
gpt.models.add("mine", LSTMForCausalLM(LSTMConfig(len(tokenizer))), tokenizer)
gpt.pretrain("more", {"stories": 1}, base="mine", steps=20, context=64)
gpt.prompt("Once upon a time", model="more", max_tokens=8)"""
CODE = re.compile(r"`[^`]+`|%%?gpt \w+|%%\w+|(?<![\w-])--[a-z][\w-]*|\$\w+|\{[^}\s]*\}|\[[^\]\s]*\]")
MARKUP = re.compile(r"([\\*_<>|$`\[\]~#])")
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def markdown(text: str) -> str:
    """Prose as Markdown, for a cell of a table too: options, magics and variables as code, all other markup escaped."""
    parts, end = [], 0
    for found in CODE.finditer(text):
        parts += [MARKUP.sub(r"\\\1", text[end : found.start()]), code(found[0].strip("`"))]
        end = found.end()
    return "".join([*parts, MARKUP.sub(r"\\\1", text[end:])])


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def bounds_of(hint: typing.Any) -> Iterator[str]:
    """The bounds of a type, such as `> 0`."""
    for each in typing.get_args(hint):
        for bound in each.metadata if isinstance(each, FieldInfo) else [each]:
            for name, sign in BOUNDS.items():
                if isinstance(bound, annotated_types.BaseMetadata) and hasattr(bound, name):
                    value = getattr(bound, name)
                    yield f"{sign}\N{NO-BREAK SPACE}{'2⁶³' if value == 1 << 63 else f'{value:,}'}"
        yield from bounds_of(each)


def type_of(option: Option) -> str:
    """What is typed for an option."""
    if option.kind is None:
        return "switch"
    if option.choices:
        return " or ".join(map(code, option.choices))
    kind = {whole: "integer", number: "number"}.get(option.kind, "")
    kind = kind or ("variable" if option.kept and not option.complete else "text")
    return f"{kind}{', several' * option.many}{', may be left out' * option.optional}"


def row(stage: type[Options], option: Option, hints: dict) -> str:
    """The row of an option."""
    python = stage.magic.startswith("gpt.")
    name = option.keyword if python else option.name
    if option.kind is not None and option.metavar and name.startswith("--"):
        name = f"{name} {option.metavar}"
    about, default = option.help, option.default
    if found := re.search(r" ?\(default: ([^()]*(?:\([^()]*\)[^()]*)*)\)$", about):
        about, default = about[: found.start()], found[1]
    default = "required" if option.needed else markdown(str(default)) if default is not None else ""
    bounds = ", ".join(dict.fromkeys(bounds_of(hints[option.keyword])))
    kind = "" if python and hints[option.keyword] is typing.Any else type_of(option)
    return f"| {code(name)} | {kind} | {default} | {markdown(bounds)} | {markdown(about)} |"


def page(stage: type[Options]) -> str:
    """The page of a magic, or of a Python function."""
    command = command_of(stage)
    lines = [f"## {heading(stage)}", "", *block([call(stage, command), *(command.sketch if command.body else ())])]
    lines += ["", markdown(f"{command.summary[:1].upper()}{command.summary[1:]}."), "", markdown(command.about)]
    hints = typing.get_type_hints(stage, include_extras=True)
    for title, options in command.groups:
        lines += ["", f"**{title}**", "", "| option | type | default | bounds | description |", "|:--|:--|:--|:--|:--|"]
        lines += [row(stage, option, hints) for option in options]
    if command.body:
        lines += ["", "**Body**", "", *block(textwrap.dedent(command.body).strip().splitlines())]
    if command.examples:
        lines += ["", "**Examples**", "", *block(command.examples)]
    return "\n".join(lines)


def call(stage: type[Options], command: Command) -> str:
    if not stage.magic.startswith("gpt."):
        return usage(command)
    needed = [name for name, each in stage.signature().parameters.items() if each.default is each.empty]
    return f"{stage.magic}({', '.join([*needed, '…'])})"


def block(lines) -> list[str]:
    return ["```text", *"\n".join(lines).splitlines(), "```"]


def heading(stage: type[Options]) -> str:
    """Without per cent signs: JupyterLab finds no anchor that has them."""
    return stage.magic.lstrip("%")


def link(stage: type[Options]) -> str:
    """To its heading: the anchor of a heading is its text with hyphens for spaces."""
    return f"[{code(stage.magic)}](#{heading(stage).replace(' ', '-')})"


def contents(title: str, stages: list[type[Options]]) -> str:
    rows = [f"| {link(stage)} | {markdown(command_of(stage).summary)} |" for stage in stages]
    return "\n".join([f"**{title}**", "", "| | |", "|:--|:--|", *rows])


def notebook() -> str:
    """The text of the notebook: cells of Markdown, without code."""
    texts = ["\n\n".join([ABOUT, *(contents(title, stages) for title, stages in PARTS.items())])]
    texts += [page(stage) for stages in PARTS.values() for stage in stages]
    texts.append(f"{OWN}\n\n```python\n{EXAMPLE}\n```")
    cells = [
        {
            "cell_type": "markdown",
            "id": hashlib.sha256(text.partition("\n")[0].encode()).hexdigest()[:8],
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        for text in texts
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
    print(f"wrote {NOTEBOOK}")
