"""Interpolation: what may be referred to, and that nothing else can be reached."""

from __future__ import annotations

import json
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from zoo.recipe.errors import Mistake, Source
from zoo.recipe.interpolate import interpolate
from zoo.recipe.source import plain, read, walk


def resolve(text: str, **options: Any) -> tuple[Any, list[Mistake]]:
    mistakes: list[Mistake] = []
    root = read(Source("a.yaml", text), mistakes)
    assert root is not None and not mistakes
    return plain(interpolate(root, mistakes, **{"defaults": {}, **options})), mistakes


def test_values_keep_their_types() -> None:
    data, mistakes = resolve(
        'a: {b: 3, c: [1, x], d: 1e-3}\ne: ${a.b}\nf: ${a.c}\ng: "${a}"\n'
        'h: "${a.b}-${a.c.1}"\ni: {j: "${.k}", k: null}'
    )
    assert not mistakes
    assert data["e"] == 3 and data["f"] == [1, "x"] and data["g"] == data["a"]
    assert data["h"] == "3-x" and data["i"]["j"] is None


def test_chains_lists_and_defaults() -> None:
    data, mistakes = resolve(
        'a: ${b}\nb: ${c.0}\nc: ["${optim.lr}", "${model.width}"]\nmodel: {width: 7}',
        defaults={"optim": {"lr": 0.5}, "model": {"width": 128, "preset": None}},
    )
    assert not mistakes
    assert (data["a"], data["b"], data["c"]) == (0.5, 0.5, [0.5, 7])
    assert "optim" not in data


@pytest.mark.parametrize(
    ("text", "value"), [(r"\${a}", "${a}"), (r"\\${x}", "\\1"), (r"a\b", "a\\b"), ("$x {x}", "$x {x}")]
)
def test_escapes(text: str, value: str) -> None:
    assert resolve(f"x: 1\ny: {text}")[0]["y"] == value


def test_zoo_variables_are_read_as_the_recipe_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_A", "1e-3")
    monkeypatch.setenv("ZOO_B", "no")
    monkeypatch.setenv("ZOO_C", "${oc.env:HOME}")
    mistakes: list[Mistake] = []
    text = (
        "a: ${oc.env:ZOO_A}\nb: ${oc.env:ZOO_B}\nc: ${oc.env:ZOO_C}\n"
        "d: ${oc.env:ZOO_D,8}\ne: ${a}\nf: ${oc.env:ZOO_E,32-true}"
    )
    root = read(Source("a.yaml", text), mistakes)
    assert root is not None
    root = interpolate(root, mistakes, defaults={})
    assert plain(root) == {
        "a": 1e-3,
        "b": "no",
        "c": "${oc.env:HOME}",
        "d": 8,
        "e": 1e-3,
        "f": "32-true",
    }
    marked = {path: node.origin.variables for path, node in walk(root) if node.origin.variables}
    assert marked == {"a": ("ZOO_A",), "b": ("ZOO_B",), "c": ("ZOO_C",), "e": ("ZOO_A",)}
    assert str(dict(walk(root))["e"].origin) == "a.yaml:5:1, from ZOO_A"


ATTACKS = {
    "plain": "${oc.env:SECRET}",
    "nested resolver name": "${${r}:SECRET}",
    "computed variable name": "${oc.env:${v}}",
    "default of another": "${oc.env:ZOO_NONE,${oc.env:SECRET}}",
    "decode": "${oc.decode:'${oc.env:SECRET}'}",
    "decode of a computed text": "${oc.decode:${t}}",
    "create": "${oc.create:{x: '${oc.env:SECRET}'}}",
    "select": "${oc.select:nothing,${oc.env:SECRET}}",
    "coerce imports modules": "${oc.coerce:os.path,1}",
    "a resolver of the user's own": "${mine:1}",
    "quoted name": "${oc.env:'SECRET'}",
    "prefix in other case": "${oc.env:zoo_secret}",
    "dict values": "${oc.dict.values:m}",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_else_can_be_read(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "to be kept")
    monkeypatch.setenv("zoo_secret", "to be kept")
    OmegaConf.register_resolver("mine", lambda x: "to be kept", annotation_validation="off")
    try:
        data, mistakes = resolve(
            f"a: {json.dumps(attack)}\nr: oc.env\nv: SECRET\nt: '\\${{oc.env:SECRET}}'\nm: {{b: 1}}"
        )
    finally:
        OmegaConf.clear_resolver("mine")
    assert [mistake.path for mistake in mistakes] == ["a"]
    assert "to be kept" not in str(data) + str(mistakes[0])


def test_more_variables_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "shared")
    assert resolve("a: ${oc.env:SECRET}", allow_env=["SECRET"])[0] == {"a": "shared"}


def test_the_resolvers_of_the_process_are_left_as_they_were() -> None:
    OmegaConf.register_resolver("mine", lambda x: x, annotation_validation="off")
    try:
        before = dict(BaseContainer._resolvers)
        _, mistakes = resolve("a: ${oc.decode:1}\nb: ${c}")
        assert len(mistakes) == 2
        assert BaseContainer._resolvers == before
        assert OmegaConf.create({"a": "${mine:5}"}).a == 5
    finally:
        OmegaConf.clear_resolver("mine")


@pytest.mark.parametrize(
    "text", ["a: ${a}", "a: ${b}\nb: ${a}", "a: {b: '${a}'}", "a: '${', ", "a: ${}", "a: ${.}"]
)
def test_circles_and_fragments_are_mistakes(text: str) -> None:
    _, mistakes = resolve(text.rstrip(", "))
    assert mistakes
    assert all("Error" not in mistake.message for mistake in mistakes)
