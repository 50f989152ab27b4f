"""Offline reinforcement learning: parameters and specs of the recorded episodes (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo.config import Config, param
from zoo.kinds import Actions, Episodes
from zoo.specs import DatasetSpec, Paper


@dataclass(frozen=True, kw_only=True)
class EpisodesConfig(Config):
    """What the recorded episodes share: how many, by whom, and how a model sees them."""

    #: What a state and an action are, how long an episode lasts, and the unit that returns are counted in.
    environment: ClassVar[str] = ""
    state: ClassVar[int] = 1
    horizon: ClassVar[int] = 1
    unit: ClassVar[float] = 1.0
    targets: ClassVar[Actions]
    #: The least and the largest share of random actions; each episode has one of its own.
    noise: ClassVar[tuple[float, float]] = (0.0, 1.0)

    steps: int = param(20, "steps that a model sees at once", at_least=1)
    episodes: int = param(
        200, "recorded episodes: 8 in 10 train, 1 validates, 1 tests", at_least=10, at_most=100_000
    )
    stride: int = param(1, "steps from the start of one training window to the next", at_least=1)
    seed: int = param(0, "of the episodes recorded", at_least=0)

    def kinds(self) -> tuple[Episodes, Actions]:
        """Inputs and targets for these parameters."""
        inputs = Episodes(state=self.state, action=self.targets.count, steps=self.steps, horizon=self.horizon)
        return inputs, self.targets


@dataclass(frozen=True, kw_only=True)
class CartPoleConfig(EpisodesConfig):
    """Episodes of `CartPole-v1`; the expert leans with the pole, and half of what it does may be chance."""

    environment: ClassVar[str] = "CartPole-v1"
    state: ClassVar[int] = 4
    horizon: ClassVar[int] = 500
    unit: ClassVar[float] = 100.0
    targets: ClassVar[Actions] = Actions(count=2, names=("left", "right"))
    noise: ClassVar[tuple[float, float]] = (0.2, 1.0)


@dataclass(frozen=True, kw_only=True)
class PendulumConfig(EpisodesConfig):
    """Episodes of `Pendulum-v1`; the expert swings up by energy, then holds."""

    environment: ClassVar[str] = "Pendulum-v1"
    state: ClassVar[int] = 3
    horizon: ClassVar[int] = 200
    unit: ClassVar[float] = 500.0
    targets: ClassVar[Actions] = Actions(count=1, limit=2.0, names=("torque",))


_PAPER = Paper(title="Decision Transformer", url="https://arxiv.org/abs/2106.01345", year=2021)
_LICENCE = "generated here; the environment is gymnasium's, MIT"
_SOURCE = "recorded on first use from gymnasium, by an expert that errs, and kept in the cache"


EPISODES = (
    DatasetSpec(
        name="cartpole",
        target="zoo.data.episodes:load_cartpole",
        config="zoo.data.episodes_specs:CartPoleConfig",
        inputs=CartPoleConfig().kinds()[0],
        targets=CartPoleConfig.targets,
        licence=_LICENCE,
        source=_SOURCE,
        paper=_PAPER,
        extras=("rl",),
        tags=("offline_rl",),
        since="0.1",
        summary="Balance a pole on a cart, learnt from recorded episodes, good and bad.",
        examples="29610 / 200 / 197 windows of up to 20 steps, from 160 / 20 / 20 episodes",
        baseline="error 0.503 (always the commoner push); random pushes return 23.5 on average",
        known_good="return 500, the expert without errors, the most there is (12 episodes, here)",
    ),
    DatasetSpec(
        name="pendulum",
        target="zoo.data.episodes:load_pendulum",
        config="zoo.data.episodes_specs:PendulumConfig",
        inputs=PendulumConfig().kinds()[0],
        targets=PendulumConfig.targets,
        licence=_LICENCE,
        source=_SOURCE,
        paper=_PAPER,
        extras=("rl",),
        tags=("offline_rl",),
        since="0.1",
        summary="Swing a pendulum up and hold it, learnt from recorded episodes, good and bad.",
        examples="32000 / 200 / 200 windows of up to 20 steps, from 160 / 20 / 20 episodes",
        baseline="error 0.944 (the mean torque); random torques return -1198 on average",
        known_good="return -158, the expert without errors (12 episodes, here); recorded -511",
    ),
)
