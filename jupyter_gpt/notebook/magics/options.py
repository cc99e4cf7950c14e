"""The command line of a magic: from one `Command` come its parsing, its `--help` and its completion.

Not `argparse`: it prints and exits where a notebook needs an error of one line, wraps its help to the width of the
terminal, and words both differently in different versions of Python.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from jupyter_gpt.arguments import ELSEWHERE
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.notebook.lexer import Word, number, on_or_off, split, variable, whole

WIDTH = 88  # columns of the help
COLUMN = 26  # where its explanations begin
EXPRESSION = re.compile(r"(?<!\{)\{[A-Za-z_][^{}]*\}(?!\})")
DOUBLED = re.compile(r"\{\{([A-Za-z_][^{}]*)\}\}")
INSIDE = re.compile(r"\$([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Option:
    """One option (`--steps`) or one bare word (`NAME`, in capitals) of a magic.

    kind: turns the text into a value, or raises ValueError with what it expects; None for a switch.
    default: what the help shows; never passed on.
    choices: the only values; hints: some of the values, for completion.
    complete: whose names complete it: "models", "runs", "corpora", "rankings", "files".
    many: takes one value or more, up to the next option.  needed: required.
    kept: its value is a `$variable`, passed on as an object; with `complete`, a name is accepted too.
    literal: a `$variable` is passed on as it is written: a source, which the session looks up.
    optional: its value may be left out; `kind` is then called with "". A word that `kind` rejects is not its value.
    parted: its values may also stand in one word, separated by commas.
    lines: a word that is not quoted and names a text file stands for the lines of that file.
    """

    name: str
    help: str
    metavar: str = ""
    kind: Callable[[str], Any] | None = str
    default: object = None
    choices: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    complete: str = ""
    many: bool = False
    needed: bool = False
    kept: bool = False
    literal: bool = False
    optional: bool = False
    parted: bool = False
    lines: bool = False
    keyword: str = ""

    @property
    def key(self) -> str:
        """The keyword it becomes: `--batch-tokens` is `batch_tokens`."""
        return self.keyword or self.name.lstrip("-").replace("-", "_").lower()


@dataclass(frozen=True)
class Command:
    """A magic, or a verb of `%gpt`: its name as typed, and all that its help says."""

    name: str
    summary: str
    about: str
    groups: tuple[tuple[str, tuple[Option, ...]], ...]
    body: str = ""
    sketch: tuple[str, ...] = ("source: weight", "…")  # what the lines of a body look like
    examples: tuple[str, ...] = ()

    @property
    def flags(self) -> dict[str, Option]:
        """Its options by the name they are typed with."""
        return {option.name: option for _, options in self.groups for option in options if _dashed(option.name)}

    @property
    def places(self) -> list[Option]:
        """Its bare words, in order."""
        return [option for _, options in self.groups for option in options if not _dashed(option.name)]


def _dashed(text: str) -> bool:
    return text.startswith("--")


def due(command: Command, words: Sequence[str]) -> Option | None:
    """What comes after these words, if not an option: the value of the last one, or the bare word that is left."""
    last = command.flags.get(words[-1]) if words else None
    if last is not None and last.kind is not None:
        return last
    bare = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not _dashed(word) and not ((o := command.flags.get(before)) and o.kind is not None)
    ]
    left = command.places[len(bare) :] or [place for place in command.places[-1:] if place.many]
    return left[0] if left else None


def is_flag(word: Word) -> bool:
    """Does the word stand for an option? `-1` is a number and `-` a dash."""
    return not word.quoted and (_dashed(word.text) or (word.text[:1] == "-" and word.text[1:2].isalpha()))


def parse(command: Command, line: str, variables: Mapping[str, object] | None = None) -> dict | None:
    """The line's options by keyword, only those given; None for a line with `--help`, which is then printed.

    With `variables`, a value `$name` that is not quoted is looked up there; on a line of %gpt also `$name` and
    `{expression}` inside a word. Raises GPTError for anything that the command does not accept, with the nearest thing
    that it does.
    """
    if odd := next((character for character in line if character == "\0" or "\ud800" <= character <= "\udfff"), None):
        raise GPTError(f"{command.name}: the line contains the invalid character {odd!a}")
    words = split(line)
    if variables is not None and command.name.startswith("%gpt "):
        words = [word if word.quoted else Word(expanded(command, word.text, variables), False) for word in words]
    if any(word in (Word("--help", False), Word("-h", False)) for word in words):
        print(help_text(command))
        return None
    given, places, flags = {}, command.places, command.flags
    while words:
        word = words.pop(0)
        if not is_flag(word):
            if not places:
                raise GPTError(f"{command.name}: unexpected argument {word.text!r} (several words need quotes)")
            option = places.pop(0)
            values = [word, *(_until_flag(words) if option.many else ())]
        else:
            name, equals, value = word.text.partition("=")
            option = flags.get(name)
            if option is None:
                raise GPTError(f"{command.name} has no option {name}{_likely(name, flags)}")
            if option.key in given and not option.many:
                raise GPTError(f"{command.name} {name} is given twice")
            values = _values(command, option, Word(value, False) if equals else None, words)
        if option.parted:
            values = [each for value in values for each in _parts(value)]
        result = [item for value in values for item in _converted(command, option, value, variables)]
        given[option.key] = given.get(option.key, []) + result if option.many else result[0]
    missing = [option.name for option in (*places, *flags.values()) if option.needed and option.key not in given]
    if missing:
        raise GPTError(f"{command.name} requires {missing[0]}: {usage(command)}")
    return given


def expanded(command: Command, text: str, variables: Mapping[str, object]) -> str:
    """A word with the values of its `{expression}` and `$name`, as IPython has them on the lines of other magics. JSON
    and `{{doubled}}` braces stay braces; a word that is nothing but `$name` is left to its option. Raises GPTError for
    a name that is not there."""
    from IPython.utils.text import FullEvalFormatter

    def value(match: re.Match) -> str:
        try:
            return FullEvalFormatter().vformat(match[0], (), variables)
        except NameError as error:
            name = str(error.name)
            likely = nearest(name, (known for known in variables if not known.startswith("_")))
            raise GPTError(
                f"{command.name}: this notebook has no variable {name}{likely}; {{{match[0]}}} keeps the braces"
            ) from None
        except Exception as error:
            raise GPTError(f"{command.name}: {match[0]}: {type(error).__name__}: {str(error)[:100]}") from None

    def plain(match: re.Match) -> str:
        found = variables.get(match[1])
        return str(found) if isinstance(found, str | int | float | Path) else match[0]

    if text[:1] != "$" or not text[1:].isidentifier():
        text = INSIDE.sub(plain, text)
    return DOUBLED.sub(r"{\1}", EXPRESSION.sub(value, text))


def _likely(name: str, flags: Mapping[str, Option]) -> str:
    """The tail of a message with the likeliest option: by its name elsewhere, by its beginning, by its letters."""
    elsewhere = ELSEWHERE.get(name.lstrip("-").replace("-", "_"), "").split()
    keys = {option.key: flag for flag, option in flags.items()}
    here = [keys[key] for key in elsewhere if key in keys][:1] or [
        flag for flag in flags if flag.startswith(f"{name}-")
    ]
    if here:
        return f" (did you mean {' or '.join(here)}?)"
    found = nearest(name.lstrip("-"), [flag.lstrip("-") for flag in flags])  # that all begin with dashes says nothing
    found = found.replace(" mean ", " mean --").replace(" is ", " is --").replace(", ", ", --")
    return found or " (--help lists them)"


def _values(command: Command, option: Option, attached: Word | None, words: list[Word]) -> list[Word]:
    """Takes the words that are the option's value off the front of `words`."""
    if option.kind is None:
        if attached:
            raise GPTError(f"{command.name} {option.name} takes no value")
        return [Word("", True)]
    if attached:
        return [attached]
    if option.optional and (not words or is_flag(words[0]) or not _takes(option, words[0])):
        return [Word("", True)]
    if not words or is_flag(words[0]):
        raise GPTError(f"{command.name} {option.name} requires a value: {option.name} {_metavar(option)}")
    return _until_flag(words) if option.many else [words.pop(0)]


def _takes(option: Option, word: Word) -> bool:
    try:
        (option.kind or str)(word.text)
    except ValueError:
        return False
    return True


def _parts(word: Word) -> list[Word]:
    """The words that commas part; a quoted one is whole."""
    return [word] if word.quoted else [Word(part, False) for part in word.text.split(",") if part]


def _until_flag(words: list[Word]) -> list[Word]:
    taken = []
    while words and not is_flag(words[0]):
        taken.append(words.pop(0))
    return taken


def _converted(command: Command, option: Option, word: Word, variables: Mapping[str, object] | None) -> list:
    """The values one word stands for: one, or those of a list that a `$name` holds."""
    if option.kind is None:
        return [True]
    texts = [word.text]
    named = word.text[:1] == "$" and word.text[1:].isidentifier()
    if variables is not None and named and not word.quoted and not option.literal:
        name = word.text[1:]
        if name not in variables:
            likely = nearest(name, (known for known in variables if not known.startswith("_")))
            raise GPTError(f"{command.name} {option.name}: this notebook has no variable {name}{likely}")
        value = variables[name]
        if option.kept:
            return [value]
        several = option.many and isinstance(value, Iterable) and not isinstance(value, str | Mapping)
        texts = [str(item) for item in value] if several else [str(value)]
        if not texts:
            raise GPTError(f"{command.name} {option.name}: the variable {name} is empty")
    elif option.kept and not option.complete:
        wanted = "a variable of this notebook as $name"
        raise GPTError(f"{command.name} {option.name}: expected {wanted}, got {word.text[:40]!r}")
    elif option.lines and not word.quoted and (Path(word.text).suffix == ".txt" or Path(word.text).is_file()):
        texts = _lines(f"{command.name} {option.name}", Path(word.text).expanduser())
    return [_checked(command, option, text) for text in texts]


def _lines(where: str, path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises GPTError where there is none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise GPTError(f"{where}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GPTError(f"{where}: {path} is not UTF-8 text: byte {error.start} cannot be read") from error
    if not lines:
        raise GPTError(f"{where}: {path} is empty")
    return lines


def _checked(command: Command, option: Option, text: str) -> object:
    if option.choices and text not in option.choices:
        likely = nearest(text, option.choices) if len(option.choices) > 1 else ""
        likely = likely if "did you mean" in likely else ""
        raise GPTError(
            f"{command.name} {option.name}: expected {' or '.join(option.choices)}, got {text[:40]!r}{likely}"
        )
    try:
        return (option.kind or str)(text)
    except ValueError as wanted:
        raise GPTError(f"{command.name} {option.name}: expected {wanted}, got {text[:40]!r}") from None


def _metavar(option: Option) -> str:
    metavar = "|".join(option.choices) or option.metavar or "VALUE"
    return f"[{metavar}]" if option.optional else metavar


def usage(command: Command) -> str:
    """`%%pretrain NAME [options]`: one line, what is needed first."""
    needed = [f"{o.name} {_metavar(o)}" for o in command.flags.values() if o.needed]
    places = [(o.name if o.needed else f"[{o.name}]") + (" …" if o.many else "") for o in command.places]
    return " ".join([command.name, *places, *needed, "[options]"])


def help_text(command: Command) -> str:
    """The manual page that `--help` prints and `%%magic?` shows."""
    lines = [f"{command.name}: {command.summary}", "", f"    {usage(command)}"]
    lines += ["    " + line for line in command.sketch if command.body]
    lines += ["", *textwrap.wrap(command.about, WIDTH)]
    for title, options in command.groups:
        if options:
            lines += ["", title, *(line for option in options for line in explanation(option))]
    if command.body:
        lines += ["", "Body", *textwrap.indent(textwrap.dedent(command.body).strip(), "  ").splitlines()]
    if command.examples:
        lines += ["", "Examples", *textwrap.indent("\n".join(command.examples), "  ").splitlines()]
    return "\n".join(lines)


def explanation(option: Option) -> list[str]:
    """The lines of the help about an option."""
    head = option.name if option.kind is None or not _dashed(option.name) else f"{option.name} {_metavar(option)}"
    head = f"  {head}" + (" …" if option.many else "")
    tail = textwrap.wrap(_with_default(option), WIDTH - COLUMN)
    if len(head) > COLUMN - 2:
        return [head, *(" " * COLUMN + line for line in tail)]
    return [head.ljust(COLUMN) + tail[0], *(" " * COLUMN + line for line in tail[1:])]


def _with_default(option: Option) -> str:
    return option.help + ("" if option.default is None else f" (default: {option.default})")


def described(command: Command) -> dict:
    """As JSON for the editor, which explains the words of a line and underlines those that `parse` would not accept."""
    return {
        "name": command.name,
        "summary": command.summary,
        "usage": usage(command),
        "options": [
            {
                "name": option.name,
                "help": _with_default(option),
                "value": "" if option.kind is None else _metavar(option),  # empty for a switch
                "number": {whole: "whole", number: "any"}.get(option.kind) if option.kind else None,
                "choices": option.choices,
                "many": option.many,
                "optional": option.optional,
                "parted": option.parted,
            }
            for _, options in command.groups
            for option in options
        ],
    }


class Magic:
    """A magic or a verb of `%gpt`: the options of a stage, imported at first use so that loading the extension is
    instant, and `does(gpt, given, ip)`, of a cell magic also with the body, which shows the result and returns it.
    """

    def __init__(self, stage: str, options: str, does: Callable | None = None):
        self.stage, self.class_name = stage, options
        if does is not None:
            self.does = does

    does: Callable

    @cached_property
    def options(self) -> type:
        module = self.stage if "." in self.stage else f"stages.{self.stage}"
        return getattr(import_module(f"jupyter_gpt.{module}"), self.class_name)

    @cached_property
    def COMMAND(self) -> Command:
        return command_of(self.options)

    def run(self, ip, line: str, *cell: str) -> None:
        """Parses the line, does the work and binds `--out`; prints the help where the line asks for it."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt import gpt

        name = given.pop("out", None)
        result = self.does(gpt, given, ip, *cell)
        if name:
            ip.push({name: result})


def command_of(stage: type) -> Command:
    """The command of a stage: its options, grouped as the stage orders them, by the descriptions of its fields."""
    summary, _, about = inspect.cleandoc(stage.__doc__ or "").partition("\n\n")
    groups: dict[str, list[Option]] = {title: [] for title in getattr(stage, "groups", ())}
    for name, field in stage.model_fields.items():
        group = stage.details(name).get("group", "Options")
        if stage.details(name).get("only") not in ("python", "none") and shown_in_magic(stage, name):
            groups.setdefault(group, []).append(_option_of(stage, name, field))
    for options in groups.values():  # bare words first, --out last
        options.sort(key=lambda option: (_dashed(option.name), option.name == "--out"))
    return Command(
        name=stage.magic,
        summary=summary,
        about=" ".join(about.split()),
        groups=tuple((title, tuple(options)) for title, options in groups.items() if options),
        body=stage.body_help,
        sketch=stage.body_sketch,
        examples=stage.examples,
    )


def place_of(stage: type, name: str) -> str:
    """The word in capitals that stands for an option without a flag; empty for any other."""
    place = stage.details(name).get("place")
    return place if isinstance(place, str) else name.upper() if place else ""


def shown_in_magic(stage: type, name: str) -> bool:
    """Whether the magic has the option: a stage that lists its groups has none of another group."""
    group, groups = stage.details(name).get("group"), getattr(stage, "groups", ())
    return group is None or not groups or group in groups


def _option_of(stage: type, name: str, field: Any) -> Option:
    details, hint = stage.details(name), stage.hints()[name]
    kinds = [each for each in typing.get_args(hint) or (hint,) if each is not type(None)] if _is_union(hint) else [hint]
    many = details.get("many", any(typing.get_origin(each) in (list, Sequence) for each in kinds))
    inner = next((typing.get_args(each)[0] for each in kinds if typing.get_origin(each) in (list, Sequence)), kinds[0])
    choices = tuple(map(str, typing.get_args(inner))) if typing.get_origin(inner) is typing.Literal else ()
    kind = details.get("kind") or {int: whole, float: number}.get(inner, str)
    if inner is bool and "kind" not in details:
        kind, choices = (None, ()) if field.default is False else (on_or_off, ("on", "off"))
    if name == "out":
        kind = variable
    default = None if field.is_required() or isinstance(field.default, bool | tuple | None) else field.default
    return Option(
        place_of(stage, name) or details.get("flag") or f"--{name.replace('_', '-')}",
        field.description or "",
        details.get("metavar") or "",
        kind,
        default=f"{default:g}" if isinstance(default, float) else default,
        choices=choices,
        hints=tuple(details.get("hints", ())),
        complete=details.get("complete", ""),
        many=many,
        needed=field.is_required() or details.get("needed", False),
        kept=details.get("variable", False),
        literal=details.get("literal", False),
        optional=details.get("optional", False),
        parted=details.get("parted", False),
        lines=details.get("lines", False),
        keyword=name,
    )


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


OUT = Option("--out", "bind the result to this variable of the notebook", "VAR", variable)
