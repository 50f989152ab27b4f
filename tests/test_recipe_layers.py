"""Layers: what wins when files and overrides disagree, and that its origin says so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.recipe.errors import in_order
from zoo.recipe.layers import Layers
from zoo.recipe.source import Node, plain, walk

LEAVES = st.sampled_from(["value", "list"])
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda below: st.dictionaries(st.sampled_from("abc"), below, min_size=1, max_size=3), max_leaves=6
)
FILES = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abc"), TREES, min_size=1, max_size=3), st.lists(st.integers(0, 9))
    ),
    min_size=1,
    max_size=5,
)


def write(tree: Any, name: str, indent: str = "") -> str:
    """YAML in which every value is the name of its layer."""
    if isinstance(tree, dict):
        return "".join(f"\n{indent}{key}: {write(child, name, indent + '  ')}" for key, child in tree.items())
    return f"[{name}, {name}]" if tree == "list" else name


def tree_of(layers: Layers, path: Path, *overrides: str) -> Node:
    return layers.merged([*layers.file(path), layers.overrides(overrides)])


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, child in tree.items():
        yield from leaves(child, f"{path}.{key}" if path else key)


def put(winners: dict[str, str], path: str, layer: str) -> None:
    """The obvious form of merging: a later value at a path replaces all that lies above or below it."""
    for other in list(winners):
        if f"{other}.".startswith(f"{path}.") or f"{path}.".startswith(f"{other}."):
            del winners[other]
    winners[path] = layer


@settings(max_examples=80, deadline=None)
@given(FILES, st.lists(st.sampled_from(["a", "a.b", "b.c", "c.a.b"]), max_size=3, unique=True))
def test_the_origin_names_the_layer_whose_value_won(
    files: list[tuple[dict[str, Any], list[int]]], keys: list[str]
) -> None:
    # File i includes only later ones, so that there is no loop.
    includes = [
        sorted({i + 1 + n for n in wanted if i + 1 + n < len(files)}) for i, (_, wanted) in enumerate(files)
    ]
    overrides = [f"{key}=by_hand_{number}" for number, key in enumerate(keys, start=1)]
    winners: dict[str, str] = {}

    def apply(index: int) -> None:
        for other in includes[index]:
            apply(other)
        for path, _ in leaves(files[index][0]):
            put(winners, path, f"layer_{index}")

    apply(0)
    by_hand: dict[str, str] = {}
    for text in overrides:
        put(by_hand, *text.split("="))
    for path, layer in by_hand.items():
        put(winners, path, layer)

    with tempfile.TemporaryDirectory() as folder:
        for index, (tree, _) in enumerate(files):
            listed = ", ".join(f"layer_{other}.yaml" for other in includes[index])
            text = f"include: [{listed}]" + write(tree, f"layer_{index}")
            Path(folder, f"layer_{index}.yaml").write_text(text)
        layers = Layers({})
        root = tree_of(layers, Path(folder, "layer_0.yaml"), *overrides)
    assert layers.mistakes == []
    assert {
        path: leaf[0] if isinstance(leaf, list) else leaf for path, leaf in leaves(plain(root))
    } == winners
    for path, node in walk(root):
        if isinstance(node.value, str):
            source = node.origin.source
            if node.value.startswith("by_hand"):
                number = int(node.value.rpartition("_")[2])
                assert source.name == f"command line override ({overrides[number - 1]})"
                continue
            assert Path(source.name).stem == node.value
            line = source.line(node.origin.line)[node.origin.column - 1 :]
            key = path.rpartition(".")[2]
            assert line.startswith(node.value if key.isdigit() else f"{key}: ")


def merged(tmp_path: Path, base: str, top: str, *overrides: str) -> tuple[Any, Layers]:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "top.yaml").write_text("include: [base.yaml]\n" + top)
    layers = Layers({})
    return plain(tree_of(layers, tmp_path / "top.yaml", *overrides)), layers


NET = (
    "model: {name: toy/net, preset: tiny, params: {depth: 3}, stem: {name: core/patches, params: {patch: 2}}}"
)


def test_another_name_drops_the_parameters_of_the_earlier_one(tmp_path: Path) -> None:
    data, layers = merged(
        tmp_path, NET, "model: {name: toy/other, params: {width: 1}, stem: {name: core/flat}}"
    )
    assert data["model"] == {"name": "toy/other", "params": {"width": 1}, "stem": {"name": "core/flat"}}
    assert len(layers.notes) == 3
    assert "model.params of toy/net" in layers.notes[0] and "base.yaml:1:38" in layers.notes[0]


@pytest.mark.parametrize("name", ["toy/net", "net"])
def test_the_same_name_keeps_them(tmp_path: Path, name: str) -> None:
    data, layers = merged(tmp_path, NET, f"model: {{name: {name}, params: {{heads: 2}}}}")
    assert data["model"]["params"] == {"depth": 3, "heads": 2}
    assert layers.notes == []


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_are_one_layer_whatever_their_order(tmp_path: Path, order: int) -> None:
    both = ["model.params.size=7", "model.name=toy/other"][::order]
    data, _ = merged(tmp_path, NET, "seed: 1", *both)
    assert data["model"]["name"] == "toy/other"
    assert data["model"]["params"] == {"size": 7}


def test_of_settings_that_exclude_each_other_the_later_layer_wins(tmp_path: Path) -> None:
    data, layers = merged(tmp_path, "trainer: {max_epochs: 3, devices: 1}", "seed: 1", "trainer.max_steps=5")
    assert data["trainer"] == {"devices": 1, "max_steps": 5}
    assert "gives way" in layers.notes[0]
    data, layers = merged(tmp_path, "trainer: {max_epochs: 3}", "trainer: {max_steps: null}")
    assert data["trainer"] == {"max_epochs": 3, "max_steps": None}
    assert layers.notes == []


def test_null_removes_and_lists_replace(tmp_path: Path) -> None:
    data, _ = merged(
        tmp_path,
        "callbacks: {ema: {decay: 0.9}, progress: {}}\noutput: {tags: [a, b]}",
        "callbacks: {progress: null}\noutput: {tags: [c]}",
        "callbacks.ema=null",
    )
    assert data == {"callbacks": {"ema": None, "progress": None}, "output": {"tags": ["c"]}}
    data, _ = merged(tmp_path, "callbacks: {ema: null}", "seed: 1", "callbacks.ema.decay=0.5")
    assert data["callbacks"] == {"ema": {"decay": 0.5}}


def test_a_mapping_stands_in_the_file_nearest_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("trainer: {devices: 1}\noptim: {lr: 1}")
    (tmp_path / "top.yaml").write_text("include: [base.yaml]\ntrainer: {max_steps: 3}")
    places = dict(walk(tree_of(Layers({}), tmp_path / "top.yaml", "optim.lr=2", "trainer.devices=2")))
    assert Path(places["trainer"].origin.source.name).name == "top.yaml"
    assert Path(places["optim"].origin.source.name).name == "base.yaml"
    assert places["optim.lr"].origin.source.name.startswith("command line override (")


def test_values_of_overrides_are_yaml() -> None:
    layers = Layers({})
    texts = ["a.b=1e-3", "a.c=[x, 2]", "a.d={e: null}", "f=g=h", "i=", "j='no'", "a.b=4", "k=${a.b}"]
    assert plain(layers.overrides(texts)) == {
        "a": {"b": 4, "c": ["x", 2], "d": {"e": None}},
        "f": "g=h",
        "i": None,
        "j": "no",
        "k": "${a.b}",
    }
    assert layers.mistakes == []


def test_included_twice_by_different_ways_is_no_loop(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("seed: 1")
    for name in "bc":
        (tmp_path / f"{name}.yaml").write_text("include: [d.yaml]")
    (tmp_path / "a.yaml").write_text("include: [b.yaml, c.yaml]")
    layers = Layers({})
    assert plain(tree_of(layers, tmp_path / "a.yaml")) == {"seed": 1}
    assert layers.mistakes == []


def test_packaged_files_are_included_by_plugin_and_name(tmp_path: Path) -> None:
    (tmp_path / "_small.yaml").write_text("seed: 7")
    (tmp_path / "a.yaml").write_text("include: ['pkg:toy/_small.yaml']")
    layers = Layers({"toy/_small.yaml": tmp_path / "_small.yaml"})
    assert plain(tree_of(layers, tmp_path / "a.yaml")) == {"seed": 7}


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x00", b"\xef\xbb\xbf"])
def test_files_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    layers = Layers({})
    assert layers.file(tmp_path / "a.yaml") == []
    assert len(in_order(layers.mistakes)) == 1 and layers.incomplete


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    root = tree_of(Layers({}), tmp_path / "a.yaml")
    assert plain(root) == {"a": 1, "b": 2}
    assert dict(walk(root))["b"].origin.line == 2


@pytest.mark.parametrize("name", ["a\\0b", "x" * 300, "..", "missing/file.yaml", "~"])
def test_odd_names_of_includes(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(f'include: ["{name}"]\nseed: 1')
    layers = Layers({})
    layers.file(tmp_path / "a.yaml")
    assert [mistake.path for mistake in layers.mistakes] == ["include.0"]
