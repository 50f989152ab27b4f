"""Recorded episodes of gymnasium's environments, and the environments themselves to play in.

T steps of an episode, K steps of a window, S numbers of a state, A of an action, C columns of `Episodes`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import Batch, Example
from zoo.data.episodes_specs import CartPoleConfig, EpisodesConfig, PendulumConfig
from zoo.data.fetch import atomic, locked
from zoo.data.scale import Standardise
from zoo.data.split import Splits
from zoo.errors import ZooError
from zoo.kinds import Actions, Episodes
from zoo.sources import cache_folder

#: Raised when the same parameters would record something else.
RECORDING = 1
#: Episodes are recorded with the seeds from here on, played with those from there on: no start is met twice.
FIRST_RECORDED, FIRST_PLAYED, FIRST_RANDOM = 1_000_000, 2_000_000, 3_000_000
#: Episodes by which the random policy is measured.
RANDOM_EPISODES = 50

#: The state -> what to do.
Policy = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Recording:
    """Episodes one after the other: states (steps, S), actions (steps,) or (steps, A), rewards, lengths."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """The sum of rewards of each episode."""
        ends = self.lengths.cumsum()
        return np.add.reduceat(self.rewards, np.concatenate([[0], ends[:-1]]))


def load_cartpole(config: CartPoleConfig) -> Splits:
    """A pole on a cart: push left or right. A reward of 1 for each step that it stands, at most 500."""
    return _load(config, _cartpole_expert)


def load_pendulum(config: PendulumConfig) -> Splits:
    """A pendulum and a weak motor: torque in [-2, 2]. Rewards count down from 0: angle, speed and effort."""
    return _load(config, _pendulum_expert)


def _cartpole_expert(state: np.ndarray) -> Any:
    position, speed, angle, turning = state
    return int(angle + 0.4 * turning + 0.02 * position + 0.06 * speed > 0)


def _pendulum_expert(state: np.ndarray) -> Any:
    cosine, sine, speed = (float(x) for x in state)
    if cosine > 0.85:
        torque = -(12 * np.arctan2(sine, cosine) + 3 * speed)
    else:  # bring the energy to that of standing still on top
        energy = 0.5 * speed**2 + 15 * (cosine - 1)
        torque = -2 * np.sign(energy * speed) if abs(speed) > 1e-3 else 2.0
    return np.array([np.clip(torque, -2, 2)], dtype=np.float32)


def _load(config: EpisodesConfig, expert: Policy) -> Splits:
    recording = recorded(config, expert)
    inputs, targets = config.kinds()
    first, second = (round(share * config.episodes) for share in (0.8, 0.9))
    starts = np.concatenate([[0], recording.lengths.cumsum()])
    scale = Standardise.fit(torch.from_numpy(recording.states[: starts[first]]).double())
    tokens = EncodeEpisodes(inputs, targets, scale, config.unit)

    def split(start: int, stop: int, stride: int) -> EpisodeWindows:
        encoded = []
        for i in range(start, stop):
            at = slice(starts[i], starts[i + 1])
            encoded.append(tokens(recording.states[at], recording.actions[at], recording.rewards[at]))
        return EpisodeWindows(encoded, inputs, targets, stride=stride)

    returns = recording.returns[:first]
    arena = Arena(
        config.environment,
        encode=tokens,
        references={
            "random": float(np.mean(_random_returns(config.environment))),
            "behaviour": float(returns.mean()),
            "best_recorded": float(returns.max()),
        },
    )
    return Splits(
        train=split(0, first, config.stride),
        # Without overlap: each step is asked for once.
        val=split(first, second, config.steps),
        test=split(second, config.episodes, config.steps),
        arena=arena,
    )


class EncodeEpisodes:
    """Steps of one episode -> its tokens, as in `Episodes`: (T, S), (T,) or (T, A), (T,) -> (3 T, C)."""

    def __init__(self, inputs: Episodes, targets: Actions, scale: Standardise, unit: float) -> None:
        self.inputs = inputs
        self.targets = targets
        self.scale = scale
        self.unit = unit

    def __call__(self, states: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> Tensor:
        to_go = torch.from_numpy(rewards[::-1].cumsum()[::-1].copy())
        tokens = self.empty(len(states))
        self.put(tokens, 0, "return", to_go[:, None])
        self.put(tokens, 0, "state", torch.from_numpy(states))
        self.put(tokens, 0, "action", torch.from_numpy(actions))
        return tokens

    def empty(self, steps: int, *lead: int) -> Tensor:
        """Tokens of so many steps, all values 0: (*lead, 3 T, C)."""
        tokens = torch.zeros(*lead, steps, 3, self.inputs.columns)
        tokens[..., 0] = torch.arange(3)
        tokens[..., 1] = torch.arange(steps)[:, None]
        return tokens.flatten(-3, -2)

    def put(self, tokens: Tensor, start: int, role: str, values: Tensor) -> None:
        """Write natural values of one role from a step on: tokens (..., 3 T, C), values (..., n, k)."""
        row = Episodes.roles.index(role)
        if role == "return":
            values = values / self.unit
        elif role == "state":
            values = self.scale(values)
        elif self.targets.limit is None:
            values = torch.nn.functional.one_hot(values.long(), self.targets.count)
        else:
            values = values / self.targets.limit
        steps = tokens.unflatten(-2, (-1, 3))[..., start : start + values.shape[-2], row, :]
        steps[..., 2 : 2 + values.shape[-1]] = values.to(tokens.dtype)


class EpisodeWindows:
    """Windows of episodes: input (3 K, C) and, at the tokens of states, the action taken there as target.

    A window starts at every `stride`-th step; near the end of an episode it is shorter than K.

    Args:
        episodes: tokens (3 T, C) of each, as `EncodeEpisodes` gives them.
    """

    def __init__(
        self, episodes: Sequence[Tensor], inputs: Episodes, targets: Actions, *, stride: int = 1
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.episodes = list(episodes)
        self.windows = [
            (episode, start)
            for episode, tokens in enumerate(self.episodes)
            for start in range(0, len(tokens) // 3, stride)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        batch = self.__getitems__([index])
        return {"input": batch["input"][0], "target": batch["target"][0]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: input (B, 3 K, C), target (B, 3 K, A), and `length` where windows differ."""
        chosen = (self.windows[index] for index in indices)
        windows = [self.episodes[i][3 * start : 3 * (start + self.inputs.steps)] for i, start in chosen]
        x = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)
        lengths = torch.tensor([len(window) for window in windows])
        batch: Batch = {"input": x, "target": self._target(x, lengths)}
        if len(lengths.unique()) > 1:
            batch["length"] = lengths
        return batch

    def _target(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The action that follows each state, NaN elsewhere: (B, 3 K, A)."""
        taken = x[:, 2::3, 2 : 2 + self.targets.count]  # (B, K, count)
        if self.targets.limit is None:
            taken = taken.argmax(-1, keepdim=True).to(x.dtype)
        else:
            taken = taken * self.targets.limit
        target = x.new_full((*x.shape[:2], taken.shape[-1]), torch.nan)
        target[:, 1::3] = taken
        return target.masked_fill(torch.arange(x.shape[1])[:, None] >= lengths[:, None, None], torch.nan)


class Arena:
    """An environment to play in.

    references: mean returns to compare with: of random actions, of those who recorded, of their best episode.
    """

    def __init__(self, environment: str, *, encode: EncodeEpisodes, references: dict[str, float]) -> None:
        self.environment = environment
        self.references = references
        self.encode = encode

    def play(
        self, act: Callable[[Tensor], Tensor], *, episodes: int, target_return: float, seed: int = 0
    ) -> np.ndarray:
        """The returns of so many episodes, (episodes,), each from a start of its own.

        act: tokens of the last steps (B, N, C), the last a state -> what to do there, (B,) or (B, A).
        target_return: what the first return token asks for; rewards are taken off it as they come.
        """
        inputs, targets = self.encode.inputs, self.encode.targets
        worlds = [gymnasium.make(self.environment) for _ in range(episodes)]
        states = np.stack([w.reset(seed=FIRST_PLAYED + seed + i)[0] for i, w in enumerate(worlds)])
        tokens = self.encode.empty(inputs.horizon, episodes)  # (B, 3 horizon, C)
        returns, playing = np.zeros(episodes), np.arange(episodes)
        for step in range(inputs.horizon):
            to_go = torch.from_numpy(target_return - returns)[playing, None, None]
            now = tokens[playing]
            self.encode.put(now, step, "return", to_go)
            self.encode.put(now, step, "state", torch.from_numpy(states[playing])[:, None])
            window = now[:, 3 * max(0, step + 1 - inputs.steps) : 3 * step + 2]
            action = act(window)
            self.encode.put(now, step, "action", action.unsqueeze(1))
            tokens[playing] = now
            left = []
            for row, choice in zip(playing, action.numpy(), strict=True):
                given = int(choice) if targets.choices else choice.astype(np.float32)
                states[row], reward, terminated, truncated, _ = worlds[row].step(given)
                returns[row] += float(reward)
                if not (terminated or truncated):
                    left.append(row)
            playing = np.array(left, dtype=np.int64)
            if len(playing) == 0:
                break
        for world in worlds:
            world.close()
        return returns


def recorded(config: EpisodesConfig, expert: Policy) -> Recording:
    """The episodes of these parameters, from the cache where they have been recorded before.

    Raises:
        ZooError: the cache cannot be written.
    """
    what = asdict(config) | {"noise": config.noise, "recording": RECORDING}
    what = {key: value for key, value in what.items() if key not in ("steps", "stride")}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder() / "episodes" / f"{config.environment}-{digest}.npz"
    found = _read(path)
    if found is not None:
        return found
    with locked(f"episodes-{path.stem}"):
        found = _read(path)
        if found is None:
            found = _record(config, expert)
            try:
                with atomic(path) as partial, partial.open("wb") as file:
                    np.savez_compressed(file, **vars(found))
            except OSError as error:
                raise ZooError(f"{path}: cannot be written: {error}") from error
    return found


def _read(path: Any) -> Recording | None:
    """What was recorded before; `None` where there is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Recording(**{name: arrays[name] for name in Recording.__dataclass_fields__})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _record(config: EpisodesConfig, expert: Policy) -> Recording:
    """Each episode by an expert who errs: actions are random with a probability of the episode's own."""
    rng = np.random.default_rng([config.seed, RECORDING])
    world = gymnasium.make(config.environment)
    world.action_space.seed(int(rng.integers(2**31)))
    states, actions, rewards, lengths = [], [], [], []
    for episode in range(config.episodes):
        noise = rng.uniform(*config.noise)
        state, _ = world.reset(seed=FIRST_RECORDED + config.seed * 100_000 + episode)
        steps, ended = 0, False
        while not ended:
            random = rng.random() < noise
            action = world.action_space.sample() if random else expert(state)
            states.append(state)
            actions.append(action)
            state, reward, terminated, truncated, _ = world.step(action)
            rewards.append(float(reward))
            steps, ended = steps + 1, terminated or truncated
        lengths.append(steps)
    world.close()
    return Recording(
        states=np.stack(states).astype(np.float32),
        actions=np.stack(actions).astype(np.int64 if config.targets.choices else np.float32),
        rewards=np.array(rewards),
        lengths=np.array(lengths),
    )


def _random_returns(environment: str) -> list[float]:
    """Returns of random actions."""
    world = gymnasium.make(environment)
    world.action_space.seed(FIRST_RANDOM)
    found = []
    for episode in range(RANDOM_EPISODES):
        world.reset(seed=FIRST_RANDOM + episode)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = world.step(world.action_space.sample())
            total, ended = total + float(reward), terminated or truncated
        found.append(total)
    world.close()
    return found
