"""A stage's options, declared once.

The options of a stage are one pydantic model. From each field (its type, default, bounds and description) come the
magic's parsing, `--help`, Tab completion, the one-line error, `recipe.yaml`, and the signature and docstring of the
Python function.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from jupyter_gpt.arguments import ELSEWHERE, WrongArgument, fitted
from jupyter_gpt.errors import GPTError, as_keywords, keyword_messages, nearest


def finite(value: float) -> float:
    """Raises ValueError for infinity and NaN."""
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[float, AfterValidator(finite)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
ProperShare = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Rank = Annotated[int, Field(ge=0)]
WHERE = ("detach", "devices", "shard", "on", "nodes")  # a run is made: they decide nothing of its numbers
NAMES = (
    "name",
    "out",
    "beside",
    "background",
    "overwrite",
    "dry_run",
    "variables",
    "log_to",
    "callbacks",
    *WHERE,
)  # not part of a recipe


def option(default: Any = ..., description: str = "", metavar: str = "", **more: Any) -> Any:
    """A field that is an option.

    `more`: group, the heading that `--help` lists it under (default: the `group` of the class it stands in); place,
    whether (or by what word in capitals) it is a bare word of the magic (keyword: but not of Python); flag, its name in
    the magic where that differs; positional, whether it is given by place in Python; complete, whose names complete it
    ("models", "runs", "corpora", "rankings", "files"); hints, some of its values; variable, whether a `$variable` is
    handed over as the object it is; lines, whether a text file stands for its lines; only, "python" or "magic" where
    the other has it not, "none" where a subclass has no such option; body, whether it is the body of the cell; recipe,
    False where `recipe.yaml` does not keep it.
    """
    return Field(default, description=description, json_schema_extra={"metavar": metavar, **more})


class Options(BaseModel):
    """The options of one stage. The docstring of a subclass is the summary, and after an empty line more about it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), defer_build=True
    )
    magic: ClassVar[str] = ""  # as it is typed: "%%sft"
    body_help: ClassVar[str] = ""  # what the body of the cell may hold
    body_sketch: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_python(cls, values: Any) -> Any:
        """Values as the annotations have them: a numpy number as Python's, a column as a list, a model as its name."""
        hints = cls.hints()
        return {key: fitted(key, value, hints[key]) if key in hints else value for key, value in values.items()}

    @classmethod
    @functools.cache
    def hints(cls) -> dict[str, Any]:
        """The type of each field, without its bounds."""
        found = typing.get_type_hints(cls)
        return {name: found[name] for name in cls.model_fields}

    @classmethod
    def details(cls, name: str) -> dict[str, Any]:
        """The further arguments of `option` for a field."""
        extra = cls.model_fields[name].json_schema_extra
        owner = next((each for each in cls.__mro__ if name in inspect.get_annotations(each)), cls)
        group = owner.__dict__.get("group")
        return {**({"group": group} if group else {}), **(extra if isinstance(extra, dict) else {})}

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The options, checked. Raises GPTError, one line that says what is wrong and what would be right."""
        unknown = next((name for name in values if name not in cls.model_fields), None)
        if unknown is not None:
            here = next((each for each in ELSEWHERE.get(unknown, "").split() if each in cls.model_fields), None)
            likely = f" (did you mean {here}?)" if here else nearest(unknown, cls.model_fields)
            raise WrongArgument(f"{cls.called()} has no option {unknown}{likely}")
        try:
            found = cls(**values)
        except ValidationError as error:
            raise problem(error, cls) from None
        found.check_together()
        return found

    def check_together(self) -> None:
        """Raises GPTError for options that contradict each other."""

    @classmethod
    def called(cls) -> str:
        """The Python function's name: `gpt.sft`."""
        return cls.magic if cls.magic.startswith("gpt.") else f"gpt.{cls.magic.split()[-1].lstrip('%')}"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like any other."""
        return type(self).of(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @property
    def chosen(self) -> dict[str, Any]:
        """The fields that were set, as keywords."""
        return {name: getattr(self, name) for name in self.model_fields_set if name != "out"}

    @property
    def given(self) -> dict[str, Any]:
        """What the user chose: the fields that were set, without those that only say who and where."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in NAMES}

    @classmethod
    def signature(cls) -> inspect.Signature:
        """The signature of the Python function: places first, then every other option by its name."""
        found = []
        for name, field in cls.model_fields.items():
            details = cls.details(name)
            if details.get("only") in ("magic", "none"):
                continue
            placed = details.get("positional") or (details.get("place") and not details.get("keyword"))
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if placed else inspect.Parameter.KEYWORD_ONLY
            if details.get("many") and details.get("positional"):
                kind = inspect.Parameter.VAR_POSITIONAL
            default = field.default_factory() if field.default_factory else field.default  # pyright: ignore
            open_ended = default is PydanticUndefined or kind is inspect.Parameter.VAR_POSITIONAL
            default = inspect.Parameter.empty if open_ended else default
            found.append(inspect.Parameter(name, kind, default=default, annotation=cls.hints()[name]))
        groups = list(getattr(cls, "groups", ()))

        def order(each: inspect.Parameter) -> tuple:
            group = cls.details(each.name).get("group")
            if each.kind is not each.KEYWORD_ONLY:
                return each.kind, each.default is not each.empty
            return each.kind, groups.index(group) if group in groups else len(groups)

        found.sort(key=order)
        return inspect.Signature(found)

    @classmethod
    def docstring(cls) -> str:
        """The docstring of the Python function: what it does, and every option."""
        lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Args:"]
        for name in cls.signature().parameters:
            lines.append(f"    {name}: {cls.model_fields[name].description or ''}")
        return as_keywords("\n".join(lines))


class Recipe:
    """Mixed into the options of a stage: everything that decides the numbers of a run, as `recipe.yaml` keeps it.

    A subclass narrows the types of what is open in the options.
    """

    def check_together(self) -> None:
        """What is derived contradicts nothing: steps stand beside the tokens they were made of."""

    @classmethod
    def from_options(cls, options: Options, **derived: Any) -> Self:
        """The recipe of these options; what they leave open has the recipe's default until it is resolved."""
        chosen = {key: value for key, value in options.as_dict().items() if value is not None and key in cls.kept()}
        return cls.of(**{**chosen, **derived})  # pyright: ignore

    @classmethod
    @functools.cache
    def kept(cls) -> frozenset[str]:
        """The fields that `recipe.yaml` has."""
        fields: Mapping = cls.model_fields  # pyright: ignore
        return frozenset(name for name in fields if name not in NAMES and cls.details(name).get("recipe", True))

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.kept()}  # pyright: ignore

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read back what `as_dict` wrote. Raises GPTError for a recipe of another version."""
        if odd := values.keys() ^ cls.kept():
            raise GPTError(
                f"this run was made by another version of jupyter_gpt (its recipe differs in: {', '.join(sorted(odd))})"
            )
        return cls.of(**values)  # pyright: ignore


def dashed(name: str) -> str:
    return name.replace("_", "-")


def label(cls: type[Options], name: str) -> str:
    """How an option is called in a message: its place in capitals, or its flag."""
    details = cls.details(name)
    place = details.get("place")
    return place if isinstance(place, str) else name.upper() if place else f"--{dashed(name)}"


def problem(error: ValidationError, cls: type[Options]) -> GPTError:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if name not in cls.model_fields:
        return GPTError(str(first["msg"]).removeprefix("Value error, "))
    flag, kind, value, context = label(cls, name), first["type"], first["input"], first.get("ctx", {})
    shown = f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value!s:.40}"
    if kind == "missing":
        return WrongArgument(f"{cls.magic} requires {flag}")
    if kind == "literal_error":
        choices = list(typing.get_args(next(iter_literals(cls.hints()[name]))))
        likely = nearest(str(value), choices) if len(choices) > 1 else ""
        return GPTError(
            f"{flag} is {' or '.join(map(str, choices))}, not {value!r:.40}{likely if 'did you mean' in likely else ''}"
        )
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(context.values()))
        words = {
            "greater_than": "above zero" if bound == 0 else f"above {bound:g}",
            "greater_than_equal": "zero or more" if bound == 0 else f"{bound:g} or more",
            "less_than": f"below {bound:g}",
            "less_than_equal": f"{bound:g} or less",
        }
        return GPTError(f"{shown} must be {words[kind]}")
    return GPTError(f"{shown} {str(first['msg']).removeprefix('Value error, ')}")


def iter_literals(hint: Any) -> Iterator[Any]:
    """The `Literal`s in a type."""
    if typing.get_origin(hint) is typing.Literal:
        yield hint
    for inner in typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType, list) else ():
        yield from iter_literals(inner)


def method(options: type[Options], function: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """`function(session, options)` as a method of the session, called with the options' own signature."""
    signature = options.signature()

    def called(self: Any, *arguments: Any, **keywords: Any) -> Any:
        with keyword_messages():
            unknown = {key: value for key, value in keywords.items() if key not in signature.parameters}
            if unknown:
                options.of(**unknown)
                raise WrongArgument(f"gpt.{called.__name__} has no option {next(iter(unknown))}")
            try:
                bound = signature.bind_partial(*arguments, **keywords)
            except TypeError as error:
                raise WrongArgument(f"gpt.{called.__name__}: {str(error).replace(chr(39), '')}") from None
            return function(self, options.of(**bound.arguments))

    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    called.__name__ = name or function.__name__
    called.__qualname__, called.__module__ = f"Session.{called.__name__}", function.__module__
    called.__doc__ = options.docstring()
    called.__signature__ = signature.replace(parameters=[self, *signature.parameters.values()])  # pyright: ignore
    return called
