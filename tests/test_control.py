"""Offline reinforcement learning: recorded episodes as tokens, a task that plays, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import zoo
from zoo.data.episodes_specs import CartPoleConfig, PendulumConfig
from zoo.kinds import Actions, Episodes, kind_from_dict, kind_to_dict
from zoo.layers.decisions import ActionsHead, EpisodeTokens
from zoo.layers.heads_config import ActionsHeadConfig
from zoo.layers.stems_config import EpisodesStemConfig
from zoo.plugin import ConfigError
from zoo.tasks.config import ControlConfig
from zoo.tasks.control import Control

pytest.importorskip("gymnasium", reason="needs the extra 'rl'")

from zoo.data import episodes as recorded_episodes
from zoo.data.episodes import Arena, EncodeEpisodes, EpisodeWindows, Standardise

CHOICES, TORQUE = Actions(count=2, names=("left", "right")), Actions(count=1, limit=2.0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return tmp_path


def encoder(targets: Actions, *, steps: int = 3) -> EncodeEpisodes:
    kind = Episodes(state=2, action=targets.count, steps=steps, horizon=6)
    scale = Standardise(mean=torch.zeros(2).double(), deviation=torch.full((2,), 2.0).double())
    return EncodeEpisodes(kind, targets, scale, unit=10.0)


def test_an_episode_as_tokens() -> None:
    states = np.array([[2.0, 4.0], [6.0, 8.0]])
    tokens = encoder(CHOICES)(states, np.array([1, 0]), np.array([5.0, 10.0]))
    expected = [
        [0, 0, 1.5, 0],  # 15 to go, in units of 10
        [1, 0, 1, 2],
        [2, 0, 0, 1],  # the second choice
        [0, 1, 1.0, 0],
        [1, 1, 3, 4],
        [2, 1, 1, 0],
    ]
    assert tokens.tolist() == expected
    assert encoder(TORQUE)(states, np.array([[-2.0], [1.0]]), np.zeros(2))[2::3, 2].tolist() == [-1, 0.5]


@pytest.mark.parametrize("targets", [CHOICES, TORQUE], ids=["choices", "values"])
def test_windows_ask_for_the_action_at_each_state(targets: Actions) -> None:
    encode = encoder(targets)
    actions = np.array([1, 0, 1, 1]) if targets.choices else np.array([[1.0], [-2.0], [0.5], [2.0]])
    tokens = encode(np.arange(8.0).reshape(4, 2), actions, np.ones(4))
    windows = EpisodeWindows([tokens, tokens[:3]], encode.inputs, targets)
    assert len(windows) == 5
    batch = windows.__getitems__([0, 2, 4])
    assert batch["length"].tolist() == [9, 6, 3] and batch["input"].shape == (3, 9, 4)
    for row, first in enumerate((0, 2, 0)):
        steps = int(batch["length"][row]) // 3
        asked = ~batch["target"][row, :, 0].isnan()
        assert asked.nonzero().flatten().tolist() == [3 * i + 1 for i in range(steps)]
        given = torch.from_numpy(actions[first : first + steps]).float().reshape(steps, -1)
        assert torch.equal(batch["target"][row][asked], given)
    assert windows[2]["input"].shape == (6, 4) and "length" not in windows.__getitems__([0, 1])


def test_recordings_repeat_themselves_and_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = zoo.create_dataset("cartpole", episodes=10)
    (kept,) = (cache / "episodes").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-100])  # damaged: recorded again
    second = zoo.create_dataset("cartpole", episodes=10)
    assert torch.equal(first.train[3]["input"], second.train[3]["input"])

    def fails(*_: Any) -> None:
        raise AssertionError("recorded although it was kept")

    monkeypatch.setattr(recorded_episodes, "_record", fails)
    third = zoo.create_dataset("cartpole", episodes=10, steps=5, stride=3)  # the same episodes, cut otherwise
    assert third.train[0]["input"].shape == (15, 6)
    assert torch.equal(third.train[0]["input"], first.train[0]["input"][:15])


def test_the_expert_is_worth_imitating(cache: Path) -> None:
    references = zoo.create_dataset("pendulum", episodes=30).arena.references
    assert references["random"] < references["behaviour"] < references["best_recorded"] <= 0


@pytest.mark.parametrize("config", [CartPoleConfig(episodes=10), PendulumConfig(episodes=10)])
def test_who_plays_well_gets_the_return(cache: Path, config: Any) -> None:
    """The expert, who reads its state from the tokens, plays as well as recorded; a fixed action does not."""
    name = {"CartPole-v1": "cartpole", "Pendulum-v1": "pendulum"}[config.environment]
    arena: Arena = zoo.create_dataset(name, episodes=10).arena
    scale, expert = arena.encode.scale, getattr(recorded_episodes, f"_{name}_expert")
    seen: list[torch.Tensor] = []

    def act(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens)
        states = scale.inverse(tokens[:, -1, 2 : 2 + config.state]).double().numpy()
        return torch.as_tensor(np.stack([expert(state) for state in states]))

    returns = arena.play(act, episodes=3, target_return=100.0)
    assert returns.min() > arena.references["behaviour"]
    assert (returns == arena.play(act, episodes=3, target_return=100.0)).all()
    longest = seen[config.steps + 3]
    assert longest.shape[1] == 3 * config.steps - 1 and longest[0, :, 0].tolist()[:4] == [0, 1, 2, 0]
    assert (
        longest[0, -1, 1] == config.steps + 3 and longest[0, 0, 1] == 4
    )  # the time of the episode, not of the window
    fixed = torch.zeros(3, dtype=torch.int64) if config.targets.choices else torch.zeros(3, 1)
    still = arena.play(lambda tokens: fixed[: len(tokens)], episodes=3, target_return=100.0)
    assert still.max() < returns.min()
    assert seen[0][0, 0, 2] == pytest.approx(100.0 / config.unit)


class ScriptedArena:
    """Records what a task asks of it."""

    references: ClassVar[dict[str, float]] = {"random": 10.0, "behaviour": 40.0, "best_recorded": 110.0}

    def play(self, act: Any, *, episodes: int, target_return: float, seed: int) -> np.ndarray:
        self.asked = episodes, target_return
        assert act(torch.zeros(2, 5, 6)).shape == (2,)
        return np.array([50.0, 70.0])


@pytest.mark.parametrize(("given", "asked"), [(None, 110.0), (80.0, 80.0)])
def test_scores_of_playing_stand_beside_those_of_others(given: float | None, asked: float) -> None:
    task = Control(ControlConfig(episodes=7, target_return=given), targets=CHOICES)
    arena, model = ScriptedArena(), torch.nn.Linear(6, 2)
    scores = task.play(model, arena)
    assert arena.asked == (7, asked)
    expected = {"return": 60.0, "return_deviation": 10.0, "score": 50.0}
    assert scores == pytest.approx(expected)


def test_values_are_learnt_within_their_limit() -> None:
    task = Control(ControlConfig(), targets=TORQUE)
    target = torch.tensor([[[torch.nan], [1.0], [torch.nan], [torch.nan], [-2.0]]])
    outputs = torch.tensor([[[9.0], [0.5], [9.0], [9.0], [-1.0]]])
    batch = {"target": target}
    assert float(task.loss(outputs, batch)) == pytest.approx((0.25 + 1) / 2) and task.count(batch) == 2
    metrics = task.metrics()
    task.update(metrics, outputs, batch, task.loss(outputs, batch))
    assert float(metrics.compute()["error"]) == pytest.approx(0.75)
    assert task.predict(outputs) == [{"0": -1.0}]
    head = ActionsHead(ActionsHeadConfig(), targets=TORQUE, width=4)
    assert head(1e4 * torch.randn(2, 3, 4)).abs().max() <= 2
    assert (
        ActionsHead(ActionsHeadConfig(), targets=CHOICES, width=4)(1e4 * torch.randn(2, 3, 4)).abs().max() > 2
    )


def test_predictions_are_named_and_of_the_last_kept_token() -> None:
    task = Control(ControlConfig(), targets=CHOICES)
    outputs = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    assert task.predict(outputs, mask) == ["left", "right"]


def test_what_does_not_fit_is_refused() -> None:
    stem = EpisodeTokens(EpisodesStemConfig(), inputs=encoder(CHOICES).inputs, width=8)
    good = encoder(CHOICES).empty(2, 1)
    for column, value, message in (
        (0, 3, r"roles must lie within 0\.\.2, got 0 to 3"),
        (1, 6, "time steps must lie"),
    ):
        bad = good.clone()
        bad[0, 4, column] = value
        with pytest.raises(ValueError, match=message):
            stem(bad)
    with pytest.raises(ValueError, match=r"expected episodes \(B, N, 4\)"):
        stem(good[..., :3])
    with pytest.raises(ConfigError, match="names"):
        Actions(count=3, names=("a",))
    with pytest.raises(zoo.ZooError, match="sees both directions"):
        zoo.create_model("core/transformer", dataset="cartpole", causal=False)
    with pytest.raises(zoo.ZooError, match="'core/mlp_net' cannot do task 'core/control'"):
        zoo.create_model("core/mlp_net", dataset="cartpole")


def test_kinds_survive_json() -> None:
    for kind in (CHOICES, TORQUE, encoder(CHOICES).inputs):
        assert kind_from_dict(kind_to_dict(kind)) == kind
    assert str(CHOICES) == "one of 2 actions per state" and str(TORQUE) == "1 action value per state"


@pytest.mark.parametrize("model", ["aaren/encoder", "core/transformer"])
def test_any_token_model_acts_token_by_token(model: str) -> None:
    """In steps of one token it decides as over the whole window: an episode can be played as a stream."""
    torch.manual_seed(0)
    acting = zoo.create_model(
        model, inputs=encoder(CHOICES, steps=6).inputs, targets=CHOICES, width=16, depth=2
    ).eval()
    tokens = encoder(CHOICES, steps=6)(np.random.rand(6, 2), np.array([0, 1, 1, 0, 1, 0]), np.ones(6))[None]
    with torch.no_grad():
        state, outputs = acting.initial_state(1), []
        for token in tokens.split(1, dim=1):
            y, state = acting.step(token, state)
            outputs.append(y)
        torch.testing.assert_close(torch.cat(outputs, 1), acting(tokens))


def test_a_recipe_trains_and_plays(cache: Path, tmp_path: Path) -> None:
    recipe = {
        "schema": 1,
        "model": {"name": "aaren/encoder", "width": 16, "params": {"depth": 1, "positions": "none"}},
        "data": {"name": "core/cartpole", "batch_size": 16, "params": {"episodes": 10, "steps": 4}},
        "task": {"params": {"episodes": 2, "target_return": 200}},
        "trainer": {"max_steps": 3, "eval_every_steps": 3},
        "output": {"dir": str(tmp_path / "runs")},
    }
    result = zoo.train(recipe, quiet=True)
    assert 8 <= result.metrics["test/return"] <= 500
    assert {"test/loss", "test/error", "test/score"} <= result.metrics.keys()
    beside = {
        name: scores["test/return"] for name, scores in result.baselines.items() if "test/return" in scores
    }
    assert beside["random"] < beside["behaviour"] < beside["best recorded"]
