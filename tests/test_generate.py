"""Decoders, and text from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zoo.catalogue import catalogue
from zoo.cli import main
from zoo.decoders import pick
from zoo.decoders.config import MirostatConfig, SampleConfig, TopHConfig
from zoo.decoders.samplers import Greedy, Mirostat, Sample, TopH
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.training import generate, generation, train

RECIPE: dict[str, Any] = {
    "schema": 1,
    "model": {
        "name": "core/transformer",
        "width": 32,
        "params": {"depth": 1, "heads": 2, "positions": "rope"},
    },
    "data": {"name": "core/sotu_small", "batch_size": 4, "params": {"length": 32}},
    "trainer": {"max_steps": 5, "eval_every_steps": 5},
    "callbacks": {"progress": None},
}
ZIPF = (torch.arange(1, 3001, dtype=torch.float64) ** -1.1).log().log_softmax(-1)


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- decoders ------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6).filter(any), st.floats(0, 1, exclude_max=True)
)
def test_a_symbol_is_drawn_by_its_weight(weights: list[float], chance: float) -> None:
    table = torch.tensor([weights], dtype=torch.float64)
    chosen = int(pick(table, torch.arange(len(weights)).unsqueeze(0), torch.tensor([chance])))
    assert weights[chosen] > 0


def test_frequencies_are_the_probabilities() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2])
    chosen, _ = Sample(SampleConfig()).step(probs.log().expand(20_000, 3), None, draws(20_000))
    assert torch.allclose(chosen.bincount(minlength=3) / 20_000, probs, atol=0.015)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (SampleConfig(top_k=2), {0, 1}),
        (SampleConfig(top_p=0.5), {0}),
        (SampleConfig(top_p=0.51), {0, 1}),
        (SampleConfig(min_p=0.5), {0, 1}),
        (SampleConfig(top_k=3, top_p=0.9, min_p=0.1), {0, 1, 2}),
        (SampleConfig(top_p=1e-9), {0}),
    ],
)
def test_what_a_sample_may_be(config: SampleConfig, kept: set[int]) -> None:
    logits = torch.tensor([0.5, 0.26, 0.2, 0.04]).log().expand(3_000, 4)
    chosen, _ = Sample(config).step(logits, None, draws(3_000))
    assert set(chosen.tolist()) == kept


def test_greedy_and_a_cold_sample_agree() -> None:
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    cold, _ = Sample(SampleConfig(temperature=1e-3)).step(logits, None, draws(50))
    assert torch.equal(Greedy().step(logits, None, draws(50))[0], cold)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("target", [4.0, 6.0])
def test_mirostat_holds_the_surprise(version: Any, target: float) -> None:
    rows, logits = 32, ZIPF.expand(32, -1)
    decoder = Mirostat(MirostatConfig(target=target, version=version))
    state, seen = decoder.initial_state(rows), []
    for step in range(150):
        chosen, state = decoder.step(logits, state, draws(rows, step))
        seen.append(-ZIPF[chosen].mean() / torch.tensor(2.0).log())
    assert abs(float(torch.stack(seen[50:]).mean()) - target) < 0.25


def test_a_target_out_of_reach_leaves_mirostat_at_the_likeliest() -> None:
    decoder = Mirostat(MirostatConfig(target=0.5))
    state = decoder.initial_state(4)
    for step in range(400):
        chosen, state = decoder.step(ZIPF.expand(4, -1), state, draws(4, step))
    assert chosen.tolist() == [0] * 4 and bool((state > -2).all())


def test_top_h_keeps_the_longest_prefix_within_its_share_of_the_entropy() -> None:
    probs = ZIPF[:50].softmax(-1)
    whole = -(probs * probs.log()).sum()
    longest = 1
    for size in range(1, 51):
        part = probs[:size] / probs[:size].sum()
        if -(part * part.log()).sum() <= 0.4 * whole:
            longest = size
    chosen, _ = TopH(TopHConfig()).step(ZIPF[:50].expand(20_000, -1), None, draws(20_000))
    assert 1 < longest == int(chosen.max()) + 1
    official, _ = TopH(TopHConfig(rule="official")).step(ZIPF[:50].expand(20_000, -1), None, draws(20_000))
    assert int(official.max()) > int(chosen.max())


# -- text ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    result = train(load_recipe(RECIPE | {"output": {"dir": str(folder)}}), quiet=True)
    assert result.run is not None
    return result.run.path


def test_the_same_seed_gives_the_same_text_and_another_another(run: Path) -> None:
    first, again, other = ("".join(generate(run, "The ", symbols=40, seed=s)) for s in (1, 1, 2))
    assert len(first) == 40 and first == again != other


def test_a_stream_gives_what_the_whole_text_gives(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = "".join(generate(run, "Fellow", symbols=20, decoder="greedy"))

    def refuse(*_: Any) -> Any:
        raise ValueError("it does not stream")

    notes: list[str] = []
    monkeypatch.setattr(generation, "_Stream", refuse)
    assert "".join(generate(run, "Fellow", symbols=20, decoder="greedy", say=notes.append)) == streamed
    assert notes == ["each symbol reads the last 32 again: it does not stream"]


@pytest.mark.parametrize("name", [spec.id for spec in catalogue().specs("decoder")])
def test_every_decoder_writes(name: str, run: Path) -> None:
    assert len("".join(generate(run, symbols=12, decoder=name))) == 12


def test_a_text_longer_than_it_was_trained_on(run: Path) -> None:
    assert len("".join(generate(run, "x" * 50, symbols=70))) == 70


def test_bytes_come_as_whole_characters() -> None:
    ids = list("a\N{EURO SIGN}b".encode())
    decode = lambda given: bytes(given.tolist()).decode(errors="replace")  # noqa: E731
    assert list(generation._text(iter(ids), decode)) == ["a", "\N{EURO SIGN}", "b"]
    assert "".join(generation._text(iter([0xFF] * 6), decode)) == "\N{REPLACEMENT CHARACTER}" * 6


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(run), "top_p=0.9", "--prompt", "We ", "--symbols", "10"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("We ") and len(out) == 3 + 10 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["top_q=0.9"], "top_q"),
        (["top_p=2"], "top_p"),
        (["0.9"], "reads key=value"),
        (["--decoder", "smaple"], "Did you mean 'sample'"),
        (["--symbols", "0"], "at least 1"),
        (["--prompt", ""], "the prompt is empty"),
    ],
)
def test_mistakes(arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_writes_no_text_says_so(tmp_path: Path) -> None:
    wine = {
        "schema": 1,
        "model": {"name": "core/mlp_net"},
        "data": {"name": "core/wine"},
        "trainer": {"max_steps": 1},
    }
    result = train(load_recipe(wine | {"output": {"dir": str(tmp_path)}}), quiet=True)
    assert result.run is not None
    with pytest.raises(ZooError, match="it is no language model; use 'zoo predict'"):
        generate(result.run.path)
