"""Parameters of components: frozen dataclasses that check themselves, and a strict typed builder.

One dataclass is the single source of a component's types, defaults, bounds and help texts. It lives
in a torch-free module, so that a recipe is checked before anything heavy loads.

A parameter is an int, float, str, bool, None, Literal, tuple, list or dict of these, another dataclass,
a union of them, or Any.

    @dataclass(frozen=True, kw_only=True)
    class SpinConfig(Config):
        depth: int = param(4, "number of layers", at_least=1)
        mode: Literal["up", "down"] = param("up", "direction")
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

from zoo.errors import ZooError, suggest

T = TypeVar("T")

#: What people write for what we call by another name, offered where the right-hand name exists.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("lr",),
    "epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "steps": ("max_steps",),
    "batchsize": ("batch_size",),
    "bs": ("batch_size",),
    "dropout": ("dropout_prob",),
    "drop_rate": ("dropout_prob",),
    "drop_path": ("drop_path_prob",),
    "num_heads": ("heads",),
    "n_heads": ("heads",),
    "num_layers": ("depth",),
    "n_layers": ("depth",),
    "dim": ("width",),
    "d_model": ("width",),
    "hidden_size": ("width",),
    "embed_dim": ("width",),
    "wd": ("weight_decay",),
    "optimizer": ("optim",),
    "scheduler": ("schedule",),
    "dataset": ("data",),
    "warmup": ("warmup_steps",),
    "grad_clip": ("gradient_clip_norm",),
    "gradient_clip_val": ("gradient_clip_norm",),
    "accumulate_grad_batches": ("accumulate_batches",),
    "mixer": ("layers",),
}


@dataclass(frozen=True)
class Problem:
    """One mistake: where (a dotted path below the config) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class UnknownKey(Problem):
    """A key that is not there: it may have its place elsewhere."""


class ConfigError(ZooError, ValueError):
    """Every mistake found in one set of parameters."""

    def __init__(self, problems: list[Problem], *, owner: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(f"{owner}.{p}" if owner else str(p) for p in problems))

    def below(self, path: str) -> list[Problem]:
        """The same mistakes, seen from a config that holds this one at `path`."""
        return [dataclasses.replace(p, path=join(path, p.path)) for p in self.problems]


def param(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    factory: Any = dataclasses.MISSING,
    path: bool = False,
) -> Any:
    """A dataclass field with a help text and bounds.

    Bounds apply to the number itself, or to each item of a sequence; `None` is always allowed where
    the type allows it. path: it names a file or folder of the user's: in a recipe's file relative to that
    file, elsewhere to the working folder.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    metadata = {"help": help, **{k: v for k, v in bounds.items() if v is not None}}
    if path:
        metadata["path"] = True
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Config:
    """Base of every parameter dataclass: bounds, choices and `check()` are enforced on construction."""

    def __post_init__(self) -> None:
        problems = []
        annotations = field_types(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            try:
                converted = convert(value, annotations[field.name])
            except ConfigError as error:
                problems += error.below(field.name)
                continue
            object.__setattr__(self, field.name, converted)
            problems += _out_of_bounds(field.name, converted, field.metadata)
        if not problems:
            problems = [Problem(name, message) for name, message in self.check()]
        if problems:
            raise ConfigError(problems, owner=type(self).__name__)

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) for rules that bind several fields; types and bounds hold by then."""
        yield from ()


def path_fields(cls: type | None) -> tuple[str, ...]:
    """The parameters of a dataclass that name files or folders of the user's."""
    if cls is None or not dataclasses.is_dataclass(cls):
        return ()
    return tuple(field.name for field in dataclasses.fields(cls) if field.metadata.get("path"))


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass, by field name."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls` from plain data (a parsed YAML mapping).

    Raises:
        ConfigError: with *every* unknown key, wrong type, value out of bounds and missing key.
    """
    types_by_name = field_types(cls)  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        named = isinstance(values, str) and "name" in types_by_name
        raise _misfit(values, "a mapping", f" As a mapping: {{name: {values}}}." if named else "")
    problems: list[Problem] = []
    accepted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types_by_name:
            problems.append(UnknownKey(str(key), unknown_key(str(key), types_by_name, cls)))
            continue
        try:
            accepted[key] = convert(value, types_by_name[key])
        except ConfigError as error:
            problems += error.below(key)
    required = {
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    problems += [Problem(name, "is required, but missing") for name in sorted(required - set(values))]
    if not problems:
        try:
            return cls(**accepted)
        except ConfigError as error:
            problems = error.problems
    elif issubclass(cls, Config):
        # Bounds of the values that do have the right type are worth reporting in the same breath.
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name in accepted:
                problems += _out_of_bounds(field.name, accepted[field.name], field.metadata)
    raise ConfigError(problems)


def unknown_key(key: str, known: Mapping[str, Any], cls: type | None = None) -> str:
    """The message for a key that does not exist, with what was probably meant."""
    meant = [name for name in SYNONYMS.get(key, ()) if name in known]
    hint = f" Did you mean {meant[0]!r}?" if meant else suggest(key, known, list_up_to=20)
    if cls is not None and not known:
        hint = " It takes no parameters."
    return f"there is no key {key!r} here.{hint}"


def convert(value: Any, annotation: Any) -> Any:
    """`value` as the annotated type, strictly: no text becomes a number, no number becomes text.

    Allowed widening: int to float, list to tuple, mapping to a nested dataclass.

    Raises:
        ConfigError: the value does not fit; the message names what was given and what is accepted.
    """
    if annotation is Any:
        return value
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        hint = suggest(value, map(str, args), list_up_to=0) if isinstance(value, str) else ""
        raise _misfit(value, type_name(annotation), hint)
    if origin in (tuple, list):
        return _convert_sequence(value, annotation, origin, args)
    if origin in (dict, Mapping):
        return _convert_mapping(value, annotation, args)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return value if isinstance(value, annotation) else build(annotation, value)
    return _convert_scalar(value, annotation)


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    inner: ConfigError | None = None
    # The exact type first, so that `float | int` leaves 3 an int.
    for option in sorted(options, key=lambda option: option is not type(value)):
        try:
            return convert(value, option)
        except ConfigError as error:
            # Right in shape, wrong inside: that says more than "expected this or that".
            if inner is None and any(problem.path for problem in error.problems):
                inner = error
    if inner is not None:
        raise inner
    hint = ""
    if isinstance(value, str):
        choices = [str(c) for o in options if typing.get_origin(o) is Literal for c in typing.get_args(o)]
        hint = suggest(value, choices, list_up_to=0)
        if type(None) in options and value.lower() in ("none", "nil", ""):
            hint = " For no value, write null."
    elif value is True and any(map(dataclasses.is_dataclass, options)):
        hint = " For its defaults, write {}."
    raise _misfit(value, " or ".join(map(type_name, options)), hint)


def _convert_sequence(value: Any, annotation: Any, origin: type, args: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        simple = isinstance(value, str) and args[-1:] == (Ellipsis,) and args[0] in (int, float, str)
        raise _misfit(value, type_name(annotation), f" As a list: [{value}]." if simple else "")
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _misfit(value, type_name(annotation))
        item_types: list[Any] = list(args)
    else:
        item_types = [args[0] if args else Any] * len(value)
    items, problems = [], []
    for index, (item, item_type) in enumerate(zip(value, item_types, strict=True)):
        try:
            items.append(convert(item, item_type))
        except ConfigError as error:
            problems += error.below(str(index))
    if problems:
        raise ConfigError(problems)
    return origin(items)


def _convert_mapping(value: Any, annotation: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _misfit(value, type_name(annotation))
    key_type, item_type = args or (Any, Any)
    result, problems = {}, []
    for key, item in value.items():
        try:
            result[convert(key, key_type)] = convert(item, item_type)
        except ConfigError as error:
            problems += error.below(str(key))
    if problems:
        raise ConfigError(problems)
    return result


def _convert_scalar(value: Any, annotation: Any) -> Any:
    if annotation is None or annotation is type(None):
        if value is None:
            return None
    elif annotation in (int, float):
        # numpy's numbers count; a bool does not, though Python calls it an int.
        kind = numbers.Integral if annotation is int else numbers.Real
        if isinstance(value, kind) and not isinstance(value, bool):
            return annotation(value)
    elif not isinstance(annotation, type):
        raise TypeError(
            f"a parameter cannot have the type {annotation}; see zoo.config for those it can have"
        )
    elif isinstance(value, annotation):
        return value
    raise _misfit(value, type_name(annotation))


def _misfit(value: Any, wanted: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem("", f"expected {wanted}, got {describe(value)}.{hint}")])


def describe(value: Any) -> str:
    """How a value is called in a message: `the text 'ten'`, `null`, `the number 3`."""
    if value is None or isinstance(value, bool):
        return spelt(value)
    if isinstance(value, str):
        return f"the text {_short(value)}"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"the list {_short(list(value))}"
    return _short(value)


def type_name(annotation: Any) -> str:
    """A type in the words of a recipe's author."""
    simple = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        None: "null",
        type(None): "null",
        Any: "anything",
    }
    if annotation in simple:
        return simple[annotation]
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if origin is Literal:
        return f"one of {', '.join(map(spelt, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_name, args)))
    if origin in (tuple, list):
        if not args:
            return "a list"
        if origin is tuple and args[-1] is not Ellipsis:
            return f"a list of {len(args)}: {', '.join(map(type_name, args))}"
        return f"a list of {_plural(type_name(args[0]))}"
    if hasattr(annotation, "kind"):  # a kind of data or targets, which only Python can name
        return f"zoo.plugin.{annotation.__name__}"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(annotation):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def _plural(name: str) -> str:
    if name.startswith("a list"):
        return name.replace("a list", "lists", 1)
    return f"{name.removeprefix('a ')}s" if name.startswith("a ") and " or " not in name else name


def spelt(value: Any) -> str:
    """A value as a recipe spells it, for people to read."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {spelt(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spelt, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "''"


def _short(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _out_of_bounds(path: str, value: Any, bounds: Mapping[str, Any]) -> Iterator[Problem]:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _out_of_bounds(join(path, str(index)), item, bounds)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if math.isnan(value):
        yield Problem(path, "must be a number, got nan")
    elif "at_least" in bounds and value < bounds["at_least"]:
        yield Problem(path, f"must be at least {bounds['at_least']}, got {value}")
    elif "at_most" in bounds and value > bounds["at_most"]:
        yield Problem(path, f"must be at most {bounds['at_most']}, got {value}")
    elif "above" in bounds and value <= bounds["above"]:
        yield Problem(path, f"must be above {bounds['above']}, got {value}")
    elif "below" in bounds and value >= bounds["below"]:
        yield Problem(path, f"must be below {bounds['below']}, got {value}")


def join(*parts: str) -> str:
    """A dotted path from its non-empty parts."""
    return ".".join(part for part in parts if part)
