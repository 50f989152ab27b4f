"""`zoo bench`: turns, growth, and what is said of a model that cannot be measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.bench import (
    BASELINE,
    QUANTITIES,
    Bench,
    Cell,
    Settings,
    baseline,
    bench,
    find_subjects,
    in_turns,
    laps,
)
from zoo.bench.charts import draw
from zoo.bench.report import exponent
from zoo.catalogue import catalogue
from zoo.cli import main
from zoo.errors import UnknownName, ZooError
from zoo.layers.attention import SoftmaxAttention
from zoo.training.memory import peak_of

TINY = {"width": 16, "depth": 1, "heads": 2}


def settings(*lengths: int, **changes: object) -> Settings:
    return Settings(**{"lengths": lengths, "repeats": 1, **TINY, **changes})  # type: ignore[arg-type]


def measured(*names: str, lengths: tuple[int, ...] = (16, 64), **changes: object) -> Bench:
    found = catalogue()
    first = baseline(found, depth=1, heads=2)
    others = find_subjects(found, names, kind=None, depth=1, heads=2) if names else []
    return bench([first, *others], settings(*lengths, **changes), found)


# -- turns ---------------------------------------------------------------------------------------


def test_all_take_turns_and_the_first_turn_does_not_count() -> None:
    told: list[str] = []
    times = in_turns({"a": lambda: told.append("a"), "b": lambda: told.append("b")}, 3)
    assert told == ["a", "b"] * 4
    assert times.keys() == {"a", "b"} and all(0 < time.wall < 1e3 for time in times.values())


def test_the_least_of_each_lap_counts() -> None:
    """A lap that sleeps in the first turns only is as short as its later ones."""
    import time

    pauses = iter([0.5, 0.5, 0.0])

    def run() -> Iterator[str]:
        yield "nothing"
        time.sleep(next(pauses))
        yield "pause"

    turns = laps({"run": run})
    first, second = next(turns)["run"], next(turns)["run"]
    assert first["pause"].wall >= 500 > second["pause"].wall
    assert first["nothing"].wall < 500


@given(
    power=st.floats(0, 3),
    factor=st.floats(1e-3, 1e6),
    lengths=st.lists(st.integers(1, 1 << 20), min_size=2, max_size=6, unique=True),
)
def test_the_exponent_of_a_power_is_that_power(power: float, factor: float, lengths: list[int]) -> None:
    assert exponent({n: factor * n**power for n in lengths}) == pytest.approx(power, abs=1e-6)


def test_one_length_has_no_exponent() -> None:
    assert exponent({64: 1.0}) is None


def test_the_peak_of_a_piece_of_work() -> None:
    import torch

    wanted = 64 << 20
    peak = peak_of(lambda: torch.ones(wanted // 4).sum().item(), torch.device("cpu"))
    assert peak is None or 0.98 * wanted <= peak < 1.5 * wanted  # None: not on Linux


# -- measuring -----------------------------------------------------------------------------------


def test_a_state_that_grows_and_one_that_does_not() -> None:
    done = measured("aaren/aaren")
    assert done.models == [BASELINE, "aaren/aaren"] and not done.notes and not done.interrupted
    assert all(cell.forward_ms and cell.backward_ms and cell.decode_us for cell in done.cells)
    state = next(quantity for quantity in QUANTITIES if quantity.key == "state_bytes")
    assert done.exponent("aaren/aaren", state) == pytest.approx(0, abs=0.05)
    grown = done.values(BASELINE, state)
    assert grown[64] > 3.5 * grown[16]
    table = done.table()
    assert [line[:2] for line in table[1:]] == [[n, m] for n in ("16", "64") for m in done.models]
    assert "x)" not in "".join(table[1]) and table[2][3].endswith("x)")
    assert "aaren/aaren" in done.markdown() and "N^" in done.markdown()
    assert json.loads(json.dumps(done.to_dict()))["exponents"]["aaren/aaren"]["state_bytes"] is not None


def test_what_sees_both_ways_has_no_decoding_and_what_cannot_says_so() -> None:
    done = measured("aaren/encoder", "transnormer/v1", lengths=(16,), causal=False)
    assert done.models == [BASELINE, "transnormer/v1"]
    assert [q.key for q in done.quantities()][:2] == ["forward_ms", "backward_ms"]
    assert "decode_us" not in [q.key for q in done.quantities()]
    assert len(done.notes) == 1 and "aaren/encoder at 16 tokens" in done.notes[0]
    assert "always causal" in done.notes[0] and not done.growth()


def test_what_is_too_slow_is_not_tried_at_greater_lengths() -> None:
    done = measured(limit=1e-9)
    assert {cell.tokens for cell in done.cells} == {16} and "no greater length" in done.notes[0]


def test_pictures_name_every_line() -> None:
    cells = [Cell(m, n, 1, forward_ms=float(n)) for m in (BASELINE, "a/b") for n in (16, 64)]
    done = Bench(settings=settings(16, 64).__dict__, circumstances={}, cells=cells)
    picture = draw(done, QUANTITIES[0])
    assert picture.count("N^1.00") == 2 and "a/b" in picture and "prefers-color-scheme" in picture


# -- the command ---------------------------------------------------------------------------------

COMMAND = ["bench", "--width", "16", "--depth", "1", "--heads", "2", "--repeats", "1"]


def test_the_command_leaves_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*COMMAND, "softmax", "--lengths", "8,16", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("core/softmax") == 3 and "N^" in printed and "width 16, depth 1" in printed
    names = {path.name for path in out.iterdir()}
    assert {"bench.json", "bench.md", "forward.svg", "backward.svg", "decode.svg", "state.svg"} <= names


def test_ctrl_c_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(text: str) -> None:
        if text.startswith("16 tokens"):
            raise KeyboardInterrupt

    monkeypatch.setattr("zoo.cli.bench._say", say)
    assert main([*COMMAND, "softmax", "--lengths", "8,16", "--out", str(tmp_path), "--json"]) == 130
    told = json.loads(capsys.readouterr().out)
    assert told["interrupted"] and [cell["tokens"] for cell in told["cells"]] == [8]
    assert (tmp_path / "bench.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "256,4x"], "'4x' is no length"),
        (["--lengths", "0"], "'0' is no length"),
        (["--width", "0"], "--width must be above 0"),
        (["--limit", "0"], "--limit must be above 0"),
        (["--device", "cpux"], "--device must be cpu, cuda"),
        (["--device", "cuda:99"], "there is no device 'cuda:99' here"),
        (["no/such"], "unknown model 'no/such'"),
        (["core/softmx"], "no model and no mixer is called 'core/softmx'. Did you mean 'core/softmax'"),
        (["core/mlp_net"], "takes a vector, no tokens"),
        (["--heads", "3", "--width", "16", "--lengths", "8"], "heads"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "softmax", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_name_that_is_both_is_the_model() -> None:
    found = catalogue()
    (model,) = find_subjects(found, ["titans/mac"], kind=None, depth=1, heads=2)
    (mixer,) = find_subjects(found, ["titans/mac"], kind="mixer", depth=1, heads=2)
    assert model.model.id == "titans/mac" and mixer.model.id == "core/transformer"
    with pytest.raises(UnknownName):
        find_subjects(found, ["core/no_such"], kind="mixer", depth=1, heads=2)
    with pytest.raises(ZooError):
        find_subjects(found, ["timm/resnet18"], kind=None, depth=1, heads=2)


def test_a_step_is_that_of_training_and_the_next_token_that_of_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: dict[str, set[bool]] = {"forward": set(), "step": set()}
    for name in modes:
        original = getattr(SoftmaxAttention, name)

        def noted(
            self: SoftmaxAttention, *args: Any, name: str = name, original: Any = original, **options: Any
        ) -> Any:
            modes[name].add(self.training)
            return original(self, *args, **options)

        monkeypatch.setattr(SoftmaxAttention, name, noted)
    measured(lengths=(16,))
    assert modes == {"forward": {True}, "step": {False}}
