"""The files of a model's folder, looked at before any library reads them: what they name, how large they ask to be.

Weights are safetensors inside the folder and nothing else; an index that names another file would have it read as a
pickle, which can run any code. Settings of absurd size and a chat template that never ends would take the kernel with
them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyter_gpt.errors import GPTError

SHARD = re.compile(r"[\w.-]+\.safetensors")
LARGEST = 1 << 32  # of a whole number in a configuration: no size of a model is larger
MOST_LAYERS = 4096  # and of one that counts layers, experts or heads
COUNTS = re.compile(r"layer|expert|block|head", re.IGNORECASE)
SIZES = re.compile(r"dim|size|length|token|window", re.IGNORECASE)
SECONDS, MEMORY = 10, 2 << 30  # that a chat template may take for one short conversation
RENDER = f"""import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
except (ImportError, ValueError, OSError):
    pass  # the time limit of whoever started it stands
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
turns = [("user", "Hello"), ("assistant", "Hi."), ("user", "Why?")]
messages = [dict(role=role, content=content) for role, content in turns]
try:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(sys.stdin.read())
    for piece in template.generate(messages=messages, add_generation_prompt=True, bos_token="", eos_token=""):
        pass
except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
    pass  # it asks for more than is given here, which is no harm
"""


def check_files(folder: Path, what: str) -> None:
    """Raises GPTError, one line, where an index of weights names anything but safetensors of this folder."""
    for path in folder.glob("*.index.json"):
        try:
            names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            odd = next((name for name in names if not isinstance(name, str) or not SHARD.fullmatch(name)), None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GPTError(f"{what} is damaged: its {path.name} cannot be read") from error
        if odd is not None:
            raise GPTError(
                f"{what} is refused: its {path.name} names {odd!r:.80}, and only safetensors in its folder are read"
            )
        if missing := sorted(name for name in names if not (folder / name).is_file()):
            raise GPTError(f"{what} is damaged: {missing[0]}, which its {path.name} names, is missing")


def check_links(folder: Path, names: list[str]) -> None:
    """Raises GPTError where a file to be copied is a link out of the folder; the hub's cache links to its own blobs."""
    whole = folder.resolve()
    for name in names:
        target = (folder / name).resolve()
        blobs = whole.parent.parent / "blobs"
        if (folder / name).is_symlink() and target.parent not in (whole, blobs):
            raise GPTError(f"{folder} is refused: its {name} is a link to {target}, outside the folder")


def check_settings(folder: Path, what: str) -> None:
    """Raises GPTError where a configuration asks for sizes that no model has."""
    for path in (folder / "config.json", folder / "adapter_config.json"):
        try:
            settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            numbers = list(sizes(settings))
        except (OSError, ValueError, RecursionError) as error:
            raise GPTError(f"{what} is damaged: its {path.name} cannot be read") from error
        for name, value in numbers:
            if value > (MOST_LAYERS if COUNTS.search(name) and not SIZES.search(name) else LARGEST):
                raise GPTError(f"{what} is refused: {name} {value} in its {path.name} is larger than any model's")


def sizes(settings: object, name: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration, each with the name it stands under."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from sizes(value, str(key))
    elif isinstance(settings, list):
        for value in settings:
            yield from sizes(value, name)
    elif isinstance(settings, int) and not isinstance(settings, bool):
        yield name, settings


def check_template(folder: Path, what: str) -> None:
    """Raises GPTError where the chat template takes for ever, or all memory, for one short conversation."""
    for template in templates(folder):
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", RENDER],
                input=template.encode("utf-8", "replace"),
                timeout=3 * SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            ended = done.returncode == 0
        except subprocess.TimeoutExpired:
            ended = False
        if not ended:
            raise GPTError(
                f"{what} is refused: its chat template does not end within {SECONDS} s, or takes {MEMORY >> 30} GB"
            )


def templates(folder: Path) -> Iterator[str]:
    """The chat templates in a model's folder, as text."""
    file = folder / "chat_template.jinja"
    if file.exists():
        yield file.read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # it is missing, or whoever reads it next says that it is damaged
        found = found.get("chat_template") if isinstance(found, dict) else None
        for one in found if isinstance(found, list) else [found]:
            one = one.get("template") if isinstance(one, dict) else one
            if isinstance(one, str):
                yield one
