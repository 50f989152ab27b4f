"""`zoo list`, `zoo show`, `zoo plugins`: what is installed (torch-free)."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from zoo.catalogue import Catalogue, Plugin, catalogue, filter_specs
from zoo.cli.model_card import recipe_row, recipes_with, tree
from zoo.cli.output import add_verb, print_json, print_table
from zoo.config import field_types, spelt, type_name
from zoo.errors import UnknownName, ZooError, suggest, suggest_id
from zoo.specs import (
    SPEC_KINDS,
    DatasetSpec,
    HeadSpec,
    MixerSpec,
    ModelFamilySpec,
    ModelSpec,
    Spec,
    StemSpec,
    TaskSpec,
)

KINDS = [cls.kind for cls in SPEC_KINDS]


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "list", list_, "List components of one kind.", "zoo list models 'aaren/*' causal=always"
    )
    parser.add_argument("kind", nargs="?", default="models", help=f"one of: {', '.join(map(plural, KINDS))}")
    parser.add_argument(
        "filters", nargs="*", default=[], metavar="PATTERN|FIELD=VALUE", help="keep only what matches"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = add_verb(
        verbs,
        "show",
        show,
        "Show one component: what it is, claims and takes.",
        "zoo show aaren/encoder",
    )
    parser.add_argument("name", help="plugin/name, or the short name")
    parser.add_argument("--kind", help="where several kinds share the name")
    parser.add_argument(
        "--tree",
        action="store_true",
        help="of a model: build it, and draw its modules, shapes and parameters",
    )
    parser.add_argument("params", nargs="*", default=[], metavar="KEY=VALUE", help="of the model to draw")
    parser.add_argument("--data", metavar="DATASET", help="what it is built for (--tree)")
    parser.add_argument("--width", type=int, default=128, metavar="D", help="how wide it is (--tree; 128)")
    parser.add_argument("--levels", type=int, metavar="N", help="how deep the tree goes (--tree; all)")
    parser.add_argument("--json", action="store_true", help="print JSON")

    parser = add_verb(verbs, "plugins", plugins, "List plugins, loaded or not.", "zoo plugins -v")
    parser.add_argument("name", nargs="?", help="show one plugin whole")
    parser.add_argument("-v", "--verbose", action="store_true", help="with tracebacks")
    parser.add_argument("--time", action="store_true", help="with import times and heavy imports")
    parser.add_argument("--json", action="store_true", help="print JSON")


def list_(options: argparse.Namespace) -> int:
    found = catalogue()
    kind, filters = options.kind.replace("-", "_").removesuffix("s"), options.filters
    if kind not in KINDS:
        # `zoo list 'aaren/*'` and `zoo list causal=always` mean models.
        if not any(mark in options.kind for mark in "*?/="):
            raise ZooError(
                f"there is no kind {options.kind!r}.{suggest(options.kind, map(plural, KINDS))} "
                f"To look for names: zoo list models '*{options.kind}*'"
            )
        kind, filters = "model", [options.kind, *filters]
    patterns = [text for text in filters if "=" not in text] or ["*"]
    specs = [_refined(found, spec) for spec in found.listed(kind, patterns[0])]
    for text in patterns[1:]:
        specs = list(filter_specs(specs, text))
    for text in filters:
        field, equals, value = text.partition("=")
        if equals:
            _check_value(specs, field, value)
            specs = [spec for spec in specs if _has(spec, field, value)]
    if options.json:
        print_json([_plain(spec) for spec in specs])
        return 0
    if not specs:
        print(f"no {plural(kind)} match", file=sys.stderr)
        return 0
    extra = columns(specs[0])
    print_table(
        [kind, *(title for title, _ in extra), "summary"],
        ([spec.id, *(_cell(spec, name) for _, name in extra), _summary(spec)] for spec in specs),
    )
    if not filters:
        others = [f"{plural(k)} ({len(found.specs(k))})" for k in KINDS if k != kind and found.specs(k)]
        print(f"\nalso: zoo list {', '.join(others)}")
    return 0


def show(options: argparse.Namespace) -> int:
    found = catalogue()
    hits = _find(found, options.name, options.kind)
    spec = _refined(found, hits[0])
    if options.tree or options.params:
        return tree(spec, options)
    recipes = recipes_with(found, spec) if isinstance(spec, (ModelSpec, MixerSpec)) else []
    if options.json:
        print_json({**_plain(spec), "parameters": _parameters(spec), "recipes": recipes})
        return 0
    print(f"{spec.kind.replace('_', '-')} {spec.id}\n{spec.summary}\n")
    width = max(len(label) for label, _ in _facts(spec))
    for label, text in _facts(spec):
        print(f"{label:<{width}}  {text}")
    rows = _parameters(spec)
    if rows:
        print()
        print_table(
            ["parameter", "type", "default", "what it is"],
            ([r["name"], r["type"], r["default"], r["help"]] for r in rows),
        )
    if recipes:
        print()
        print_table(["recipe", "measured on test", "title"], map(recipe_row, recipes))
    if isinstance(spec, ModelSpec):
        print(f"\nIts modules: zoo show {spec.id} --tree")
    for other in hits[1:]:
        print(f"also called so: {other.kind} {other.id}: zoo show {other.id} --kind {other.kind}")
    return 0


def plugins(options: argparse.Namespace) -> int:
    rows = catalogue().plugins
    if options.name:
        rows = [p for p in rows if options.name in (p.id, p.distribution)]
        if not rows:
            names = [p.id for p in catalogue().plugins]
            raise UnknownName(f"unknown plugin {options.name!r}.{suggest(options.name, names)}")
    if options.json:
        print_json([_plugin_to_dict(plugin, verbose=options.verbose) for plugin in rows])
        return 0
    timing = ["ms", "heavy imports"] if options.time else []
    print_table(
        ["plugin", "distribution", "status", "components", *timing, "reason"],
        (
            [
                plugin.id,
                f"{plugin.distribution} {plugin.version}",
                plugin.status,
                len(plugin.specs),
                *([f"{plugin.import_ms:.0f}", ", ".join(plugin.heavy_imports) or "-"] if timing else []),
                "; ".join(plugin.remarks()),
            ]
            for plugin in rows
        ),
    )
    if options.name:
        for plugin in rows:
            print(f"module {plugin.value} {plugin.file}")
            for spec in plugin.specs:
                print(f"  {spec.kind:<12} {spec.id}  {spec.summary}")
    if options.verbose or options.name:
        for plugin in rows:
            if plugin.traceback:
                print(f"\n{plugin.id}:\n{plugin.traceback}", end="")
    return 0


_COLUMNS: dict[type, tuple[tuple[str, str], ...]] = {
    ModelSpec: (
        ("accepts", "accepts"),
        ("causal", "causal"),
        ("streams", "streaming"),
        ("state", "state"),
        ("cost", "cost"),
    ),
    MixerSpec: (("causal", "causal"), ("streams", "streaming"), ("state", "state"), ("cost", "cost")),
    StemSpec: (("from", "accepts"), ("to", "returns")),
    HeadSpec: (("from", "accepts"), ("to", "answers")),
    TaskSpec: (("answers", "answers"), ("monitor", "monitor")),
    DatasetSpec: (("inputs", "inputs"), ("targets", "targets"), ("data", "origin")),
}


def columns(spec: Spec) -> tuple[tuple[str, str], ...]:
    """(title, field) of what a list shows of components of this kind."""
    return next((shown for cls, shown in _COLUMNS.items() if isinstance(spec, cls)), ())


def plural(kind: str) -> str:
    return f"{kind.replace('_', '-')}s"


def _find(found: Catalogue, name: str, kind: str | None) -> list[Spec]:
    """Every component of this name, of one kind or of all."""
    if kind is not None:
        return [found.get(kind.replace("-", "_"), name)]
    hits, errors = [], []
    for each in KINDS:
        try:
            hits.append(found.get(each, name))
        except UnknownName as error:
            errors.append(error)
    ambiguous = [error for error in errors if "ambiguous" in str(error)]
    if ambiguous:
        raise ambiguous[0]
    if not hits and found.family(name) is not None:
        found.get("model", name)  # raises, with names of the family that are close
    if not hits:
        ids = {spec.id for each in KINDS for spec in found.specs(each)}
        sentences = [f"nothing is called {name!r}.", *found.lost(name)]
        hint = suggest_id(name, ids) or " 'zoo list' shows what there is."
        if any(plugin.id == name for plugin in found.plugins):
            hint = f" It is a plugin: 'zoo plugins {name}' shows what it brings."
        raise UnknownName(" ".join(sentences) + hint)
    return hits


def _refined(found: Catalogue, spec: Spec) -> Spec:
    """A model's claims at its default parameters."""
    return found.default_claims(spec) if isinstance(spec, ModelSpec) else spec


def _summary(spec: Spec) -> str:
    if not isinstance(spec, ModelFamilySpec):
        return spec.summary
    count = sum("." not in name for name in spec.names())
    return f"{count:,} models, {spec.summary} (zoo list {spec.id!r})"


def _cell(spec: Spec, field: str) -> str:
    value = getattr(spec, field)
    if isinstance(spec, DatasetSpec) and spec.own and field in ("inputs", "targets"):
        return f"{value.kind}, as found"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _check_value(specs: list[Spec], field: str, value: str) -> None:
    """Refuse a value that is a misspelt one: of a field that takes one of a few."""
    if not specs or any(_has(spec, field, value) for spec in specs):
        return
    name = dict(columns(specs[0])).get(field, field)
    values = [getattr(spec, name) for spec in specs]
    known = {each for found in values if isinstance(found, tuple) for each in found}
    hint = suggest(value, known or {_cell(spec, name) for spec in specs})
    if hint:
        raise ZooError(f"no {specs[0].kind} here has {field} {value!r}.{hint}")


def _has(spec: Spec, field: str, value: str) -> bool:
    titles = dict(columns(spec))
    names = [*(f.name for f in dataclasses.fields(spec)), *titles]
    field = titles.get(field, field)
    if not hasattr(spec, field):
        hint = (
            suggest(field, names)
            or f" Those of the list: {', '.join(titles)}; 'zoo show NAME --json' has all."
        )
        raise ZooError(f"a {spec.kind} has no field {field!r} to filter by.{hint}")
    actual = getattr(spec, field)
    if isinstance(actual, tuple):
        return value in actual
    kind = getattr(actual, "kind", None)
    return value in (str(actual), _cell(spec, field), kind) or (
        isinstance(actual, bool) and value.lower() == str(actual).lower()
    )


def _facts(spec: Spec) -> list[tuple[str, str]]:
    """The labelled lines of a card, without what is empty."""
    facts: list[tuple[str, str]] = []
    if spec.paper:
        facts.append(("paper", f"{spec.paper.title} ({spec.paper.year}), {spec.paper.url}"))
    if isinstance(spec, ModelSpec) and spec.base:
        given = ", ".join(f"{key}: {spelt(value)}" for key, value in spec.params.items())
        facts.append(("preset of", f"{spec.base} with {given}"))
    for title, name in columns(spec):
        facts.append((title, _cell(spec, name)))
    if isinstance(spec, DatasetSpec):
        facts += [
            ("examples", spec.examples),
            ("licence", spec.licence),
            ("source", spec.source),
            ("naive baseline", spec.baseline),
            ("known good", spec.known_good),
        ]
    if isinstance(spec, (ModelSpec, MixerSpec)) and spec.exact_when is not None:
        given = ", ".join(f"{k}={spelt(v)}" for k, v in spec.exact_when.items()) or "default parameters"
        facts.append(("equals softmax attention with", given))
    for check, reason in spec.known_limits.items():
        facts.append(("known limit", f"{check}: {reason}"))
    facts += [("status", spec.status), ("tags", ", ".join(spec.tags)), ("since", spec.since)]
    return [(label, text) for label, text in facts if text]


def _parameters(spec: Spec) -> list[dict[str, str]]:
    config = spec.config_class()
    if config is None:
        return []
    given = spec.params if isinstance(spec, ModelSpec) else {}
    types = field_types(config)  # type: ignore[arg-type]
    rows = []
    for field in dataclasses.fields(config):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        default = given.get(field.name, default)
        rows.append(
            {
                "name": field.name,
                "type": type_name(types[field.name]),
                "default": "required" if default is dataclasses.MISSING else spelt(default),
                "help": field.metadata.get("help", ""),
            }
        )
    return rows


def _plain(spec: Spec) -> dict[str, Any]:
    from zoo.kinds import kind_to_dict

    data: dict[str, Any] = {"id": spec.id, "kind": spec.kind}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(spec, DatasetSpec) and field.name in ("inputs", "targets"):
            value = kind_to_dict(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        data[field.name] = value
    return data


def _plugin_to_dict(plugin: Plugin, *, verbose: bool) -> dict[str, Any]:
    data = dataclasses.asdict(dataclasses.replace(plugin, specs=[]))
    data["specs"] = [{"kind": spec.kind, "id": spec.id} for spec in plugin.specs]
    if not verbose:
        del data["traceback"]
    return data
