"""`core/transformer`: a residual stack with a named mixer and feed-forward in each layer.

B batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from zoo.catalogue import Catalogue
from zoo.catalogue import catalogue as default_catalogue
from zoo.layers.config import TransformerConfig
from zoo.layers.drop_path import DropPath
from zoo.layers.init import scale_residual
from zoo.layers.norm import make_norm
from zoo.layers.positions import LearnedPositions, Rotary
from zoo.layers.streams import check_state
from zoo.specs import MixerSpec


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)) (pre-norm: Xiong et al. 2020, arXiv:2002.04745).

    Without `norm_first`: norm(x + mixer(x)), then norm(x + feed_forward(x)) (post-norm, Vaswani et al. 2017,
    section 5.4).
    """

    def __init__(
        self,
        *,
        mixer: nn.Module,
        feed_forward: nn.Module,
        norm: str,
        width: int,
        dropout_prob: float,
        drop_path_prob: float,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.mixer_norm = make_norm(norm, width=width)
        self.mixer: Any = mixer
        self.feed_forward_norm = make_norm(norm, width=width)
        self.feed_forward = feed_forward
        self.drop = nn.Sequential(nn.Dropout(dropout_prob), DropPath(drop_path_prob))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""
        return self._join(x, self.mixer(self._branch(x), mask=mask))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x: the next tokens (B, C, D), state: the mixer's -> (B, C, D) and the mixer's next state."""
        mixed, state = self.mixer.step(self._branch(x), state)
        return self._join(x, mixed), state

    def _branch(self, x: Tensor) -> Tensor:
        """What the mixer is given."""
        return self.mixer_norm(x) if self.norm_first else x

    def _join(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The block's output, from its input and what the mixer made of it."""
        x = x + self.drop(mixed)
        if self.norm_first:
            return x + self.drop(self.feed_forward(self.feed_forward_norm(x)))
        x = self.mixer_norm(x)
        return self.feed_forward_norm(x + self.drop(self.feed_forward(x)))


class TransformerState(NamedTuple):
    """What streams remember: tokens that each has seen, int64 (B,), and the state of each layer's mixer."""

    position: Tensor
    layers: tuple[Any, ...]


class Transformer(nn.Module):
    """The stack. Bidirectional or causal; streams where all its mixers do.

    A mixer or feed-forward whose last projection is a `nn.Linear` called `out` starts with it shrunk by
    1/sqrt(2 depth), see `zoo.layers.init`; not so with `norm_first=False`, where norms keep the scale.

    Raises:
        ConfigError: unknown mixers or parameters, heads that do not divide the width.
        ValueError: learned positions without a known number of tokens.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        width: int,
        max_tokens: int | None = None,
        causal: bool = False,
        catalogue: Catalogue | None = None,
    ) -> None:
        super().__init__()
        catalogue = catalogue or default_catalogue()
        config.check_width(width)
        self.num_features = width
        self.positions: LearnedPositions | None = None
        if config.positions == "learned":
            if max_tokens is None:
                raise ValueError(
                    "learned positions need max_tokens; give it, or use positions 'rope' or 'none'"
                )
            self.positions = LearnedPositions(max_tokens=max_tokens, width=width)
        self.dropout = nn.Dropout(config.dropout_prob)
        rotary = Rotary(head_width=width // config.heads) if config.positions == "rope" else None
        self.blocks = nn.ModuleList()
        inner = config.feed_forward_part(catalogue)
        for index, part in enumerate(config.mixer_parts(catalogue)):
            spec = cast(MixerSpec, catalogue.get("mixer", part.id))
            shape: dict[str, Any] = {"width": width, "heads": config.heads, "max_tokens": max_tokens}
            if spec.rotary:
                shape["rotary"] = rotary
            if spec.by_layer:
                shape |= {"layer": index, "depth": config.depth}
            mixer = spec.load()(part.config, causal=causal, **shape)
            feed_forward = catalogue.get("feed_forward", inner.id).load()(inner.config, width=width)
            for branch in (mixer, feed_forward) if config.norm_first else ():
                scale_residual(branch, branches=2 * config.depth)
            self.blocks.append(
                Block(
                    mixer=mixer,
                    feed_forward=feed_forward,
                    norm=config.norm,
                    width=width,
                    dropout_prob=config.dropout_prob,
                    drop_path_prob=config.drop_path_prob
                    * (index + 1)
                    / config.depth,  # eq. (4) of DropPath's paper
                    norm_first=config.norm_first,
                )
            )
        # Post-norm blocks end with a norm of their own.
        self.norm = make_norm(config.norm, width=width) if config.norm_first else nn.Identity()

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D)."""
        x = self._enter(x, mask=mask)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x)

    def forward_intermediates(
        self, x: Tensor, *, mask: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """What each layer passes on, before the final norm; as `forward`, one (B, N, D) per layer.

        indices: which layers, negative ones from the end; a number n: the last n; `None`: all.
        """
        wanted = pick_layers(indices, count=len(self.blocks))
        x = self._enter(x, mask=mask)
        passed: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            passed[index] = x = block(x, mask=mask)
        return [passed[index] for index in wanted]

    def initial_state(self, batch_size: int) -> TransformerState:
        """The state before the first token.

        Raises:
            ValueError: a mixer does not stream.
        """
        states = []
        for index, block in enumerate(self.blocks):
            make = getattr(block.mixer, "initial_state", None)
            if make is None:
                raise ValueError(f"layer {index} ({type(block.mixer).__name__}) does not stream")
            states.append(make(batch_size))
        device = next(self.parameters()).device
        return TransformerState(torch.zeros(batch_size, dtype=torch.int64, device=device), tuple(states))

    def step(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """x: the next C >= 1 tokens (B, C, D) -> (B, C, D) and the new state; equals `forward` on all tokens.

        Raises:
            ValueError: past the last learned position, or the state is of another model or number of streams.
        """
        tokens = x.shape[1]
        self.check_state(state, len(x))
        x = self._enter(x, start=state.position)
        states = []
        for block, layer_state in zip(self.blocks, state.layers, strict=True):
            x, layer_state = cast(Block, block).step(x, layer_state)
            states.append(layer_state)
        return self.norm(x), TransformerState(state.position + tokens, tuple(states))

    def check_state(self, state: object, streams: int) -> None:
        """Refuse what is no state of so many streams for so many layers; each layer looks at its own.

        Raises:
            ValueError: says what was given and what was expected.
        """
        check_state(state, TransformerState, {"position": (streams,)})
        layers = cast(TransformerState, state).layers
        if len(layers) != len(self.blocks):
            raise ValueError(
                f"state must be of {len(self.blocks)} layers, as initial_state() and step() of this stack "
                f"give it, got one of {len(layers)} layers"
            )

    def _enter(self, x: Tensor, *, mask: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """Positions and dropout, before the first layer."""
        return self.dropout(x if self.positions is None else self.positions(x, mask=mask, start=start))


def pick_layers(indices: int | Sequence[int] | None, *, count: int) -> list[int]:
    """Layer numbers in [0, count) from what `forward_intermediates` was asked for.

    Raises:
        ValueError: there is no such layer.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 0 <= indices <= count:
            raise ValueError(f"indices={indices} asks for the last {indices} layers, but there are {count}")
        return list(range(count - indices, count))
    for index in indices:
        if not -count <= index < count:
            raise ValueError(f"there is no layer {index}: layers are 0 to {count - 1}, or -{count} to -1")
    return [index % count for index in indices]
