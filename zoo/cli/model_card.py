"""What `zoo show` says of models: recipes that use one, what they reached, and its tree of modules."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from zoo.catalogue import Catalogue, catalogue
from zoo.cli.output import print_json, print_table
from zoo.contract import Plan, resolve
from zoo.errors import ContractError, UnknownName, ZooError, one_line
from zoo.quantities import number
from zoo.specs import MixerSpec, ModelSpec, Spec

#: What a model is drawn for where nothing is said: the first that fits.
_DATA = ("core/digits", "core/wine", "core/sotu_small")


def recipes_with(found: Catalogue, spec: ModelSpec | MixerSpec) -> list[dict[str, Any]]:
    """The recipes whose file names this model or mixer, each with its claim and its record (torch-free)."""
    from zoo.recipe import list_recipes
    from zoo.records import path_of, read_record

    rows = []
    for file in list_recipes("*", found):
        said = file.said()
        if not any(_means(found, name, spec) for name in _named(said.get("model"), spec.kind)):
            continue
        record = read_record(path_of(file.path))
        rows.append(
            {
                "name": file.name,
                "title": str(said.get("title", "")),
                "expect": said.get("expect"),
                "metric": record.metric if record else None,
                "measured": record.values() if record else {},
            }
        )
    return rows


def recipe_row(recipe: dict[str, Any]) -> list[str]:
    """A recipe as a row: its name, what it reached, its title."""
    return [recipe["name"], _reached(recipe), recipe["title"]]


def _reached(recipe: dict[str, Any]) -> str:
    """What each seed reached, where there is a record; else what the recipe claims."""
    if recipe["measured"]:
        return f"{_short(recipe['metric'])} {', '.join(map(number, recipe['measured'].values()))}"
    expect = recipe["expect"]
    if not isinstance(expect, dict):
        return ""
    bound = "at_least" if expect.get("at_least") is not None else "at_most"
    return f"{_short(expect.get('metric'))} {bound.replace('_', ' ')} {expect.get(bound)}"


def _short(metric: Any) -> str:
    return str(metric).removeprefix("test/")


def _named(model: Any, kind: str) -> list[str]:
    """The names in the model section of a recipe that may be of this kind."""
    if not isinstance(model, dict):
        return []
    params = model.get("params")
    layers = params.get("layers") if isinstance(params, dict) else None
    names = [model.get("name")] if kind == "model" else layers if isinstance(layers, list) else []
    return [name for name in names if isinstance(name, str)]


def _means(found: Catalogue, name: str, spec: Spec) -> bool:
    if name not in (spec.id, spec.name):
        return False
    try:
        return found.get(spec.kind, name).id == spec.id
    except UnknownName:  # ambiguous
        return False


def tree(spec: Spec, options: argparse.Namespace) -> int:
    """Draw the modules of a model. This loads torch."""
    if not isinstance(spec, ModelSpec):
        raise ZooError(f"{spec.id!r} is a {spec.kind.replace('_', '-')}: only models are drawn as a tree")
    if options.levels is not None and options.levels < 1:
        raise ZooError(f"--levels must be at least 1, got {options.levels}")
    found = catalogue()
    plan = _plan(found, spec, options)
    from zoo.layers.tree import module_tree

    nodes = module_tree(plan, catalogue=found, levels=options.levels)
    if options.json:
        print_json({"describe": plan.describe(), "modules": [asdict(node) for node in nodes]})
        return 0
    print(f"{plan.describe()}\n")
    rows = []
    for node in nodes:
        times = f" x {node.count}" if node.count > 1 else ""
        shape = " x ".join(("B", *map(str, node.shape))) if node.shape is not None else ""
        name = f"{'  ' * node.level}{node.name or spec.id}{times}"
        rows.append([name, node.type, shape, f"{node.parameters:,}" if node.parameters else ""])
    print_table(["module", "class", "gives", "parameters"], rows)
    return 0


def _plan(found: Catalogue, spec: ModelSpec, options: argparse.Namespace) -> Plan:
    """For the data that were named, or the first of a few that fit.

    Raises:
        ZooError: it does not fit them, or no such parameters.
    """
    model = found.part("model", spec.id, _values(options.params))
    names = [options.data] if options.data else list(_DATA)
    for name in names:
        try:
            return resolve(found, model=model, width=options.width, dataset=found.part("dataset", name))
        except ContractError:
            if name == names[-1]:
                raise
    raise AssertionError("unreachable")


def _values(given: list[str]) -> dict[str, Any]:
    """`depth=2 layers=[aaren]` as data."""
    import yaml

    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ZooError(f"a parameter of the model reads key=value, e.g. depth=2; got {text!r}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ZooError(f"{key}: {value!r} cannot be read: {one_line(error)}") from None
    return values
