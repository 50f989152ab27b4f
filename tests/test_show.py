"""`zoo show` of models: recipes, what they reached, and the tree of modules."""

from __future__ import annotations

import json

import pytest

from zoo.catalogue import catalogue
from zoo.cli import main
from zoo.contract import resolve
from zoo.layers.model import build_model
from zoo.layers.tree import module_tree


def test_recipes_and_what_they_reached(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/mlp_net"]) == 0
    shown = capsys.readouterr().out
    assert "core/wine" in shown and "zoo show core/mlp_net --tree" in shown
    assert main(["show", "core/mlp_net", "--json"]) == 0
    recipes = {r["name"]: r for r in json.loads(capsys.readouterr().out)["recipes"]}
    assert recipes["core/wine"]["expect"]["metric"] == "test/accuracy"
    assert main(["show", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"] == []


@pytest.mark.parametrize("name", ["core/transformer", "core/mlp_net"])
def test_a_tree_counts_every_parameter_once(name: str) -> None:
    found = catalogue()
    plan = resolve(found, model=found.part("model", name), width=32, dataset=found.part("dataset", "digits"))
    nodes = module_tree(plan, catalogue=found)
    assert nodes[0].parameters == build_model(plan).num_parameters
    for level in (1, 2):
        assert len(module_tree(plan, catalogue=found, levels=level)) < len(nodes)
    top = [node for node in nodes if node.level == 1]
    assert [node.name for node in top] == ["stem", "backbone", "head"]
    assert sum(node.parameters for node in top) == nodes[0].parameters
    assert nodes[0].shape == (10,)


def test_modules_alike_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/transformer", "--tree", "depth=3", "--width", "32"]) == 0
    shown = capsys.readouterr().out
    assert "0-2 x 3" in shown and "B x 16 x 32" in shown
    assert (
        main(["show", "core/transformer", "--tree", "--data", "sotu_small", "--levels", "1", "--json"]) == 0
    )
    modules = json.loads(capsys.readouterr().out)["modules"]
    assert {node["level"] for node in modules} == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits", "--tree"], "'core/digits' is a dataset: only models are drawn"),
        (["core/transformer", "--tree", "depht=3"], "Did you mean 'depth'?"),
        (["core/transformer", "--tree", "depth"], "reads key=value"),
        (["core/transformer", "--tree", "--levels", "0"], "at least 1"),
        (["core/transformer", "--tree", "--data", "digit"], "Did you mean"),
    ],
)
def test_what_cannot_be_drawn(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", *arguments]) == 2
    assert said in capsys.readouterr().err
