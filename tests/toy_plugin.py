"""A plugin that only the recipe tests know, so that their error texts do not change with the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import zoo.plugin as zp

__zoo_api__ = 1


@dataclass(frozen=True, kw_only=True)
class NetConfig(zp.Config):
    depth: int = zp.param(2, "layers", at_least=1)
    heads: int = zp.param(4, "heads", at_least=1)
    dropout_prob: float = zp.param(0.0, "dropout", at_least=0, below=1)
    mode: Literal["up", "down"] = zp.param("up", "direction")
    sizes: tuple[int, ...] = zp.param((), "sizes")
    note: str = zp.param("", "a text")

    def check_width(self, width: int) -> None:
        if width % self.heads:
            raise zp.ConfigError([zp_problem("heads", f"{self.heads} heads do not divide the width {width}")])


def zp_problem(path: str, message: str) -> Any:
    from zoo.config import Problem

    return Problem(path, message)


@dataclass(frozen=True, kw_only=True)
class StemConfig(zp.Config):
    patch: int = zp.param(2, "side of a patch", at_least=1)

    def tokens(self, inputs: zp.DataKind) -> int:
        if isinstance(inputs, zp.Image):
            if inputs.height % self.patch:
                raise zp.ContractError(f"patches of {self.patch} do not tile {inputs}")
            return (inputs.height // self.patch) ** 2
        return int(getattr(inputs, "length", 1))


@dataclass(frozen=True, kw_only=True)
class TaskConfig(zp.Config):
    label_smoothing: float = zp.param(0.0, "label smoothing", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class TextConfig(zp.Config):
    length: int = zp.param(32, "symbols per example", at_least=1)

    def kinds(self) -> tuple[zp.DataKind, zp.TargetKind]:
        return zp.Ids(vocab=30, length=self.length), zp.NextId(vocab=30, unit="character")


@dataclass(frozen=True, kw_only=True)
class TwistConfig(zp.Config):
    turns: int = zp.param(1, "turns", at_least=1)
    sides: Literal["left", "right"] = zp.param("left", "sides")


_HERE = __name__


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    net = f"{_HERE}:NetConfig"
    stem = f"{_HERE}:StemConfig"
    images = zp.Image(channels=1, height=8, width=8)
    return (
        zp.ModelSpec(
            name="net",
            target=f"{_HERE}:Net",
            config=net,
            presets={"tiny": {"depth": 1}, "deep": {"depth": 12}},
        ),
        zp.ModelSpec(name="seer", target=f"{_HERE}:Net", config=net, causal="never"),
        zp.ModelSpec(name="deep_net", base="toy/net", params={"depth": 9}),
        zp.MixerSpec(name="swirl", target=f"{_HERE}:Net"),
        zp.StemSpec(name="patches", target=f"{_HERE}:Net", config=stem, accepts="image", returns="tokens"),
        zp.StemSpec(name="embed", target=f"{_HERE}:Net", config=stem, accepts="ids", returns="tokens"),
        zp.HeadSpec(name="pool", target=f"{_HERE}:Net", accepts="tokens", answers="classes"),
        zp.HeadSpec(name="next", target=f"{_HERE}:Net", accepts="tokens", answers="next_id"),
        zp.DatasetSpec(name="marks", target=f"{_HERE}:Net", inputs=images, targets=zp.Classes(count=3)),
        zp.DatasetSpec(
            name="text",
            target=f"{_HERE}:Net",
            config=f"{_HERE}:TextConfig",
            inputs=zp.Ids(vocab=30, length=32),
            targets=zp.NextId(vocab=30, unit="character"),
        ),
        zp.TransformSpec(name="twist", target=f"{_HERE}:Net", config=f"{_HERE}:TwistConfig"),
        zp.TransformSpec(name="plait", target=f"{_HERE}:Net"),
        zp.CallbackSpec(name="watch", target=f"{_HERE}:Net", config=f"{_HERE}:TwistConfig"),
        zp.TaskSpec(
            name="classify",
            target=f"{_HERE}:Net",
            config=f"{_HERE}:TaskConfig",
            answers="classes",
            monitor="val/accuracy",
            mode="max",
        ),
        zp.TaskSpec(
            name="next_symbol",
            target=f"{_HERE}:Net",
            answers="next_id",
            needs_causal=True,
            monitor="val/bits_per_{unit}",
        ),
    )
