"""Parameters of the generated scenes with an answer per pixel (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo.config import Config, param
from zoo.kinds import Classes, Image, Maps, Values


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(Config):
    """Shapes that hide each other. Which shape is each pixel of, and how far away is it?"""

    names: ClassVar[tuple[str, ...]] = ("background", "disc", "square", "triangle", "cross")

    side: int = param(32, "rows and columns of an image", at_least=8)
    objects: int = param(8, "the most shapes in an image; there is at least one", at_least=1)
    noise: float = param(0.08, "deviation of the noise on each pixel, of colours in [0, 1]", at_least=0)
    missing: float = param(
        0.05, "share of shapes without a label, and of pixels without a depth", at_least=0, below=1
    )
    examples: int = param(1024, "images to train on", at_least=1)
    eval_examples: int = param(256, "images in each of validation and test", at_least=1)
    seed: int = param(0, "seed of all images; each split has its own stream", at_least=0)

    def kinds(self) -> tuple[Image, Maps]:
        """Inputs and targets for these parameters."""
        parts: dict[str, Classes | Values] = {
            "shape": Classes(count=len(self.names), names=self.names),
            "depth": Values(count=1, names=("depth",), missing=True),
        }
        inputs = Image(channels=3, height=self.side, width=self.side)
        return inputs, Maps(height=self.side, width=self.side, parts=parts)
