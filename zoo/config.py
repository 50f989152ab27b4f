"""Parameters of components: frozen dataclasses that check themselves, and a strict typed builder.

One dataclass is the single source of a component's types, defaults, bounds, help texts and JSON
Schema. It lives in a torch-free module, so that a recipe is checked before anything heavy loads.

    @dataclass(frozen=True, kw_only=True)
    class SpinConfig(Config):
        depth: int = param(4, "number of layers", at_least=1)
        mode: Literal["up", "down"] = param("up", "direction")
"""

from __future__ import annotations

import dataclasses
import functools
import math
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


class ConfigError(ZooError, ValueError):
    """Every mistake found in one set of parameters."""

    def __init__(self, problems: list[Problem], *, owner: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(f"{owner}.{p}" if owner else str(p) for p in problems))


def param(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    factory: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with a help text and bounds.

    Bounds apply to the number itself, or to each item of a sequence; `None` is always allowed where
    the type allows it.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    metadata = {"help": help, **{k: v for k, v in bounds.items() if v is not None}}
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
                problems += [Problem(join(field.name, p.path), p.message) for p in error.problems]
                continue
            object.__setattr__(self, field.name, converted)
            problems += [Problem(field.name, m) for m in _out_of_bounds(converted, field.metadata)]
        if not problems:
            problems = [Problem(name, message) for name, message in self.check()]
        if problems:
            raise ConfigError(problems, owner=type(self).__name__)

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong) for rules that bind several fields; types and bounds hold by then."""
        yield from ()


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
    if not isinstance(values, Mapping):
        raise ConfigError([Problem("", f"expected a mapping of parameters, got {describe(values)}")])
    types_by_name = field_types(cls)  # type: ignore[arg-type]
    problems: list[Problem] = []
    accepted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types_by_name:
            problems.append(Problem(str(key), unknown_key(str(key), types_by_name, cls)))
            continue
        try:
            accepted[key] = convert(value, types_by_name[key])
        except ConfigError as error:
            problems += [Problem(join(key, p.path), p.message) for p in error.problems]
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
                problems += [
                    Problem(field.name, m) for m in _out_of_bounds(accepted[field.name], field.metadata)
                ]
    raise ConfigError(problems)


def unknown_key(key: str, known: Mapping[str, Any], cls: type | None = None) -> str:
    """The message for a key that does not exist, with what was probably meant."""
    meant = [name for name in SYNONYMS.get(key, ()) if name in known]
    hint = f" Did you mean {meant[0]!r}?" if meant else suggest(key, known)
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
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        choices = [str(choice) for choice in args]
        hint = suggest(value, choices, list_up_to=0) if isinstance(value, str) else ""
        raise _misfit(value, f"one of {', '.join(choices)}", hint)
    if annotation is None or annotation is type(None):
        if value is None:
            return None
        raise _misfit(value, "null")
    if origin in (tuple, list):
        return _convert_sequence(value, origin, args)
    if origin in (dict, Mapping) or annotation in (dict, Mapping) or str(origin).endswith("abc.Mapping'>"):
        return _convert_mapping(value, args)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return value if isinstance(value, annotation) else build(annotation, value)
    return _convert_scalar(value, annotation)


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    if value is None and type(None) in options:
        return None
    errors: list[ConfigError] = []
    for option in (o for o in options if o is not type(None)):
        try:
            return convert(value, option)
        except ConfigError as error:
            errors.append(error)
    nested = [e for e in errors if isinstance(value, Mapping) and any(p.path for p in e.problems)]
    if nested:
        raise nested[0]
    if len(errors) == 1:
        raise errors[0]
    raise _misfit(value, " or ".join(type_name(option) for option in options))


def _convert_sequence(value: Any, origin: type, args: tuple[Any, ...]) -> Any:
    wanted = type_name(origin[args] if args else origin)  # type: ignore[index]
    if not isinstance(value, (list, tuple)):
        raise _misfit(value, wanted)
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _misfit(list(value), wanted)
        item_types: list[Any] = list(args)
    else:
        item_types = [args[0] if args else Any] * len(value)
    items, problems = [], []
    for index, (item, item_type) in enumerate(zip(value, item_types, strict=True)):
        try:
            items.append(convert(item, item_type))
        except ConfigError as error:
            problems += [Problem(join(str(index), p.path), p.message) for p in error.problems]
    if problems:
        raise ConfigError(problems)
    return origin(items)


def _convert_mapping(value: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _misfit(value, "a mapping")
    result, problems = {}, []
    for key, item in value.items():
        try:
            result[key] = convert(item, args[1] if args else Any)
        except ConfigError as error:
            problems += [Problem(join(str(key), p.path), p.message) for p in error.problems]
    if problems:
        raise ConfigError(problems)
    return result


def _convert_scalar(value: Any, annotation: Any) -> Any:
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation is int and isinstance(value, bool):
        raise _misfit(value, "a whole number")
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise _misfit(value, type_name(annotation))


def _misfit(value: Any, wanted: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem("", f"expected {wanted}, got {describe(value)}.{hint}")])


def describe(value: Any) -> str:
    """How a value is called in a message: `the text 'ten'`, `null`, `the number 3`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()}"
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"the list {list(value)!r}"
    return repr(value)


def type_name(annotation: Any) -> str:
    """A type in the words of a recipe's author."""
    simple = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
        dict: "a mapping",
        Any: "anything",
    }
    if annotation in simple:
        return simple[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in args)
    if origin in (tuple, list):
        if not args:
            return "a list"
        if origin is tuple and args[-1] is not Ellipsis:
            return f"a list of {len(args)}: " + ", ".join(type_name(a) for a in args)
        return f"a list of {_plural(type_name(args[0]))}"
    if origin is dict:
        return "a mapping"
    if dataclasses.is_dataclass(annotation):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def _plural(name: str) -> str:
    return f"{name.removeprefix('a ')}s" if name.startswith("a ") else name


def _out_of_bounds(value: Any, bounds: Mapping[str, Any]) -> Iterator[str]:
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if math.isnan(item):
            yield "must be a number, got nan"
        elif "at_least" in bounds and item < bounds["at_least"]:
            yield f"must be at least {bounds['at_least']}, got {item}"
        elif "at_most" in bounds and item > bounds["at_most"]:
            yield f"must be at most {bounds['at_most']}, got {item}"
        elif "above" in bounds and item <= bounds["above"]:
            yield f"must be above {bounds['above']}, got {item}"
        elif "below" in bounds and item >= bounds["below"]:
            yield f"must be below {bounds['below']}, got {item}"


def join(*parts: str) -> str:
    """A dotted path from its non-empty parts."""
    return ".".join(part for part in parts if part)
