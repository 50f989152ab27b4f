"""Models of equal size."""

from __future__ import annotations

import json

import pytest

from zoo.cli import main
from zoo.errors import ZooError
from zoo.layers import build_model
from zoo.matching import match, of_one_size, parse_size, size_of
from zoo.recipe import load_recipe


@pytest.mark.parametrize("model", ["core/transformer", "aaren/encoder", "transnormer/llm"])
def test_the_size_is_that_of_the_model_and_near_the_target(model: str) -> None:
    given = [f"model.name={model}", "model.params.depth=2"]
    found = match("core/sotu_small", given, target=300_000)
    loaded = load_recipe("core/sotu_small", [*given, *found.overrides])
    assert build_model(loaded.plan).num_parameters == found.size
    assert found.error < 0.1  # widths come in steps of a number per head
    wider = load_recipe("core/sotu_small", [*given, f"model.width={found.width + 8}"])
    assert abs(size_of(wider, "params") - 300_000) >= abs(found.size - 300_000)


def test_a_model_is_its_own_match() -> None:
    own = load_recipe("core/sotu_small")
    found = match("core/sotu_small", target=size_of(own, "params"))
    assert found.error == 0 and found.width == own.recipe.model.width


def test_depth_and_both() -> None:
    deep = match("core/digits", target=400_000, vary="depth")
    both = match("core/digits", target=400_000, vary="both")
    assert deep.overrides == (f"model.params.depth={deep.depth}",)
    assert both.error <= match("core/digits", target=400_000).error


def test_operations_grow_with_the_square_of_the_width() -> None:
    wide, narrow = (match("core/digits", target=t, measure="flops") for t in (16_000_000, 4_000_000))
    assert 1.6 < wide.width / narrow.width < 2.4


def test_combinations_of_one_size_leave_what_does_not_matter_alone() -> None:
    combinations = [
        (f"model.name={m}", f"seed={s}") for m in ("core/transformer", "aaren/encoder") for s in (0, 1)
    ]
    matched = of_one_size("core/digits", combinations, "params")
    sizes = {size_of(load_recipe("core/digits", each), "params") for each in matched}
    assert max(sizes) < 1.1 * min(sizes)
    assert [each[:2] for each in matched] == combinations
    with pytest.raises(ZooError, match=r"model\.width=8: matching sets the width"):
        of_one_size("core/digits", [("model.width=8",)], "params")


@pytest.mark.parametrize(
    ("text", "size"), [("1.0M", 10**6), ("50k", 50_000), ("2 G", 2 * 10**9), ("123", 123)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.0X", "-3", "0"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ZooError, match="is no size"):
        parse_size(text)


def test_the_command_prints_overrides_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", "core/digits", "--params", "100k"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("model.width=") and len(out.split()) == 1 and "parameters" in err
    assert main(["match", "core/digits", "--like", "core/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] == 0
    assert main(["match", "core/digits"]) == 2
    assert main(["match", "timm/digits", "--params", "1M", "--vary", "depth"]) == 2
    assert "has no parameter 'depth'" in capsys.readouterr().err
