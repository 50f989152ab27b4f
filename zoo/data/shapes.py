"""Scenes of shapes that hide each other, with the shape and the depth of each pixel. Made from a seed.

B images, S rows and columns. Depth is in units in which the nearest shape is 1 away. How far away a shape
is can be seen from its size, from what it hides, and from the haze, which swallows its colour; none of them
tells all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zoo.data.scale import Standardise
from zoo.data.shapes_config import ShapesConfig
from zoo.data.split import Splits, TensorSplit
from zoo.kinds import IGNORE

#: Depths of the shapes, and of the background at its top and at its bottom.
NEAREST, FARTHEST = 1.0, 3.0
TOP, BOTTOM = 5.0, 3.0
#: The radius of a shape at depth 1, as a share of the side, and how much shapes differ from it.
RADIUS, SPREAD = 0.4, 0.25
#: Share of the colour that is lost per unit of depth, on the way to a grey of this brightness.
HAZE, GREY = 0.2, 0.6
#: Places per side of the coarse colours of the background.
PATCHES = 4
#: Images that are drawn at a time, to bound memory.
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """images: float (B, 3, S, S) in [0, 1]; shape: int64 (B, S, S), 0 the background, IGNORE without a label;
    depth: float (B, 1, S, S), NaN where it was not measured.
    """

    images: np.ndarray
    shape: np.ndarray
    depth: np.ndarray


def load_shapes(config: ShapesConfig) -> Splits:
    """Images, float (3, S, S), one mean and deviation for all of train; targets as in `Scenes`."""
    counts = (config.examples, config.eval_examples, config.eval_examples)
    made = [draw(config, count, np.random.default_rng([config.seed, n])) for n, count in enumerate(counts)]
    pixels = torch.from_numpy(made[0].images)
    encode = Standardise(mean=pixels.mean(), deviation=pixels.std(correction=0))

    def split(scenes: Scenes) -> TensorSplit:
        targets = {"shape": torch.from_numpy(scenes.shape), "depth": torch.from_numpy(scenes.depth)}
        return TensorSplit(encode(torch.from_numpy(scenes.images)), targets)

    train, val, test = map(split, made)
    return Splits(train=train, val=val, test=test, encode=encode)


def draw(config: ShapesConfig, count: int, rng: np.random.Generator) -> Scenes:
    """`count` scenes."""
    sizes = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
    parts = [_draw(config, size, rng) for size in sizes]
    return Scenes(
        images=np.concatenate([part.images for part in parts]),
        shape=np.concatenate([part.shape for part in parts]),
        depth=np.concatenate([part.depth for part in parts]),
    )


def _draw(config: ShapesConfig, count: int, rng: np.random.Generator) -> Scenes:
    side = config.side
    colours, depth = _background(count, side, rng)
    shape = np.zeros((count, side, side), dtype=np.int64)
    there = rng.integers(1, config.objects + 1, (count, 1, 1))  # how many shapes an image has
    for n in range(config.objects):
        kind = rng.integers(1, len(config.names), (count, 1, 1))
        far = rng.uniform(NEAREST, FARTHEST, (count, 1, 1))
        inside = _inside(kind, *_around(count, side, far, rng)) & (n < there) & (far < depth)
        colour = rng.uniform(0, 1, (count, 3, 1, 1))
        labelled = rng.random((count, 1, 1)) >= config.missing
        depth = np.where(inside, far, depth)
        shape = np.where(inside, np.where(labelled, kind, IGNORE), shape)
        colours = np.where(inside[:, None], colour, colours)
    clear = np.exp(-HAZE * depth)[:, None]
    noise = config.noise * rng.standard_normal(colours.shape, dtype=np.float32)
    images = clear * colours + (1 - clear) * GREY + noise
    measured = rng.random(depth.shape) >= config.missing
    return Scenes(
        images=images.clip(0, 1).astype(np.float32),
        shape=shape,
        depth=np.where(measured, depth, np.nan)[:, None].astype(np.float32),
    )


def _background(count: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coarse colours (B, 3, S, S), and a depth (B, S, S) that falls from the top to the bottom."""
    coarse = rng.uniform(0.2, 0.8, (count, 3, PATCHES, PATCHES))
    at = np.arange(side) * PATCHES // side
    ramp = np.linspace(TOP, BOTTOM, side)[None, :, None]
    return coarse[:, :, at][..., at], np.broadcast_to(ramp, (count, side, side))


def _around(
    count: int, side: int, far: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies seen from a shape, turned, in units of its radius: u and v, (B, S, S) each."""
    radius = RADIUS * side / far * rng.uniform(1 - SPREAD, 1 + SPREAD, (count, 1, 1))
    pixels = np.arange(side) + 0.5
    x = pixels[None, None, :] - rng.uniform(0, side, (count, 1, 1))
    y = pixels[None, :, None] - rng.uniform(0, side, (count, 1, 1))
    turn = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    along, across = np.cos(turn) / radius, np.sin(turn) / radius
    return along * x + across * y, along * y - across * x


def _inside(kind: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which pixels a shape covers, bool (B, S, S). kind: 1 disc, 2 square, 3 triangle, 4 cross.

    Their areas are about equal.
    """
    x, y = np.abs(u), np.abs(v)
    covered = [
        u**2 + v**2 <= 1,
        np.maximum(x, y) <= 0.89,
        (v >= -0.78) & (v <= 1.56 - 3**0.5 * x),
        (np.minimum(x, y) <= 0.4) & (np.maximum(x, y) <= 1.18),
    ]
    return np.select([kind == n for n in range(1, 5)], covered)
