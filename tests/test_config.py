"""Parameters: what each type takes, what it refuses and in which words."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import (
    Config,
    ConfigError,
    Problem,
    build,
    convert,
    describe,
    join,
    param,
    type_name,
    unknown_key,
)

Mode = Literal["up", "down", 3, True]


@dataclass(frozen=True, kw_only=True)
class Inner(Config):
    rate: float = param(0.5, "a rate", at_least=0, below=1)
    sizes: tuple[int, ...] = param((1, 2), "sizes", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Outer(Config):
    depth: int = param(4, "layers", at_least=1, at_most=100)
    scale: float | None = param(None, "scale", above=0)
    name: str = "x"
    mode: Literal["up", "down"] = param("up", "direction")
    flag: bool = False
    inner: Inner = param(factory=Inner)
    maybe: Inner | None = None
    table: dict[str, int] = param(factory=dict)
    pair: tuple[int, str] = (1, "a")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.flag and self.depth == 1:
            yield "flag", "needs a depth of 2 or more"


@dataclass(frozen=True, kw_only=True)
class Needy(Config):
    must: int = param(help="required")
    also: str


def problems(cls: type, values: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build(cls, values)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 3, 3),
        (int, np.int64(3), 3),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (str, "3", "3"),
        (bool, True, True),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (Mode, 3, 3),
        (Mode, True, True),
        (int | None, None, None),
        (int | str, "a", "a"),
        (float | int, 3, 3),
        (int | float, 3.0, 3.0),
        (bool | int, 1, 1),
        (int | Literal["auto"], "auto", "auto"),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], [], ()),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple, [1, "a"], (1, "a")),
        (list[float], (1, 2), [1.0, 2.0]),
        (list, [1, "a"], [1, "a"]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict, {"a": 1}, {"a": 1}),
        (Mapping[str, Any], {"a": 1}, {"a": 1}),
        (Inner, {"rate": 0}, Inner(rate=0)),
        (Inner, Inner(rate=0.1), Inner(rate=0.1)),
        (dict[str, tuple[int, ...]], {"a": [1]}, {"a": (1,)}),
    ],
)
def test_each_type_takes_what_it_should(annotation: Any, value: Any, expected: Any) -> None:
    converted = convert(value, annotation)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "ten", "expected a whole number, got the text 'ten'."),
        (int, 3.0, "expected a whole number, got the number 3.0."),
        (int, True, "expected a whole number, got true."),
        (int, None, "expected a whole number, got null."),
        (float, "1e-3", "expected a number, got the text '1e-3'."),
        (float, False, "expected a number, got false."),
        (str, 3, "expected a text, got the number 3."),
        (bool, 1, "expected true or false, got the number 1."),
        (bool, "yes", "expected true or false, got the text 'yes'."),
        (None, 0, "expected null, got the number 0."),
        (
            Literal["mean", "max"],
            "maen",
            "expected one of mean, max, got the text 'maen'. Did you mean 'mean'?",
        ),
        (Literal["a", True, None], "b", "expected one of a, true, null, got the text 'b'."),
        (Literal[1, 2], True, "expected one of 1, 2, got true."),
        (int | None, "x", "expected a whole number or null, got the text 'x'."),
        (
            int | None,
            "None",
            "expected a whole number or null, got the text 'None'. For no value, write null.",
        ),
        (
            Literal["fast"] | None,
            "fats",
            "expected one of fast or null, got the text 'fats'. Did you mean 'fast'?",
        ),
        (tuple[int, ...], 3, "expected a list of whole numbers, got the number 3."),
        (tuple[int, str], [1], "expected a list of 2: a whole number, a text, got the list [1]."),
        (tuple[float, ...], "0.5,1", "expected a list of numbers, got the text '0.5,1'. As a list: [0.5,1]."),
        (list[list[str]], "a", "expected a list of lists of texts, got the text 'a'."),
        (tuple, "ab", "expected a list, got the text 'ab'."),
        (dict[str, int], [1], "expected a mapping, got the list [1]."),
        (Mapping[str, int], 1, "expected a mapping, got the number 1."),
        (Inner, 3, "expected a mapping, got the number 3."),
    ],
)
def test_each_type_refuses_in_plain_words(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, annotation)
    assert caught.value.problems == [Problem("", message)]


@pytest.mark.parametrize(
    ("annotation", "value", "path", "message"),
    [
        (tuple[int, ...], [1, "a"], "1", "expected a whole number, got the text 'a'."),
        (tuple[int, ...] | None, [1, "a"], "1", "expected a whole number, got the text 'a'."),
        (list[Inner], [{"rate": 2}], "0.rate", "must be below 1, got 2.0"),
        (dict[str, int], {"k": "a"}, "k", "expected a whole number, got the text 'a'."),
        (dict[str, int], {7: 1}, "7", "expected a text, got the number 7."),
        (Inner | None, {"rat": 2}, "rat", "there is no key 'rat' here. Did you mean 'rate'?"),
        (str | Inner, {"rate": "a"}, "rate", "expected a number, got the text 'a'."),
    ],
)
def test_what_is_wrong_inside_has_its_path(annotation: Any, value: Any, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, annotation)
    assert [(p.path, p.message) for p in caught.value.problems] == [(path, message)]


def test_a_type_that_no_parameter_can_have_is_the_authors_mistake() -> None:
    with pytest.raises(TypeError, match="cannot have the type"):
        convert({1}, set[int])


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems(
        Outer,
        {
            "depht": 2,
            "depth": 0,
            "mode": "dwon",
            "name": 3,
            "inner": {"rate": 1.0, "sizes": [0, "b"]},
            "pair": [1],
            "table": {"a": None},
        },
    )
    assert found.keys() == {
        "depht",
        "depth",
        "mode",
        "name",
        "inner.rate",
        "inner.sizes.1",
        "pair",
        "table.a",
    }
    assert found["depht"] == "there is no key 'depht' here. Did you mean 'depth'?"
    assert found["depth"] == "must be at least 1, got 0"
    assert found["inner.rate"] == "must be below 1, got 1.0"
    assert "Did you mean 'down'?" in found["mode"]


def test_missing_keys_are_named() -> None:
    assert problems(Needy, {"must": "x"}) == {
        "must": "expected a whole number, got the text 'x'.",
        "also": "is required, but missing",
    }


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"depth": 0}, "depth", "must be at least 1, got 0"),
        ({"depth": 101}, "depth", "must be at most 100, got 101"),
        ({"scale": 0}, "scale", "must be above 0, got 0.0"),
        ({"scale": math.nan}, "scale", "must be a number, got nan"),
        ({"inner": {"rate": 1}}, "inner.rate", "must be below 1, got 1.0"),
        ({"inner": {"sizes": [3, 0]}}, "inner.sizes.1", "must be at least 1, got 0"),
        ({"flag": True, "depth": 1}, "flag", "needs a depth of 2 or more"),
    ],
)
def test_bounds_and_rules(values: dict[str, Any], path: str, message: str) -> None:
    assert problems(Outer, values) == {path: message}


def test_bounds_hold_in_python_too_and_name_the_config() -> None:
    with pytest.raises(
        ConfigError, match=r"Outer\.depth: must be at least 1, got 0; Outer\.name: expected a text"
    ):
        Outer(depth=0, name=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Outer\.flag: needs a depth"):
        Outer(flag=True, depth=1)


def test_bounds_allow_null_and_the_edges() -> None:
    assert build(Outer, {"scale": None, "depth": 100, "inner": {"rate": 0}}).depth == 100


def test_unknown_keys_know_what_people_write() -> None:
    assert "Did you mean 'depth'?" in unknown_key("n_layers", {"depth": int})
    assert unknown_key("zzz", {}, Outer) == "there is no key 'zzz' here. It takes no parameters."
    assert "There is: depth." in unknown_key("zzz", {"depth": int})


def test_not_a_mapping_at_all() -> None:
    assert problems(Outer, [1]) == {"": "expected a mapping, got the list [1]."}


def test_long_values_are_cut() -> None:
    assert len(describe("x" * 1000)) < 100
    assert len(describe(list(range(1000)))) < 100


def test_type_names() -> None:
    assert type_name(dict[str, int]) == "a mapping"
    assert type_name(int | Literal["auto"]) == "a whole number or one of auto"
    assert type_name(tuple[int | None, ...]) == "a list of a whole number or null"


def test_join_skips_what_is_empty() -> None:
    assert join("a", "", "b") == "a.b"


words = st.text(string.ascii_letters, max_size=5)
inners = st.builds(
    Inner,
    rate=st.floats(0, 1, exclude_max=True),
    sizes=st.lists(st.integers(1, 9), max_size=3).map(tuple),
)
outers = st.builds(
    Outer,
    depth=st.integers(2, 100),
    scale=st.none() | st.floats(0, 1e6, exclude_min=True),
    name=words,
    mode=st.sampled_from(["up", "down"]),
    flag=st.booleans(),
    inner=inners,
    maybe=st.none() | inners,
    table=st.dictionaries(words, st.integers(), max_size=3),
    pair=st.tuples(st.integers(), words),
)


@settings(max_examples=60, deadline=None)
@given(outers)
def test_plain_data_and_back(config: Outer) -> None:
    assert build(Outer, asdict(config)) == config


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["depth", "scale", "inner", "maybe", "table", "pair", "mode"]), values)
)
def test_any_data_either_builds_or_is_refused_with_a_path(data: dict[str, Any]) -> None:
    try:
        config = build(Outer, data)
    except ConfigError as error:
        assert error.problems
        assert all(problem.path.partition(".")[0] in data and problem.message for problem in error.problems)
    else:
        assert build(Outer, asdict(config)) == config
