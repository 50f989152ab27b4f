"""The mixers: `landmark/tokens`, whose input brings landmarks, and `landmark/landmark`, which makes its own.

B batch, N tokens, D width, H heads, d channels per head, L places per block with its landmark.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.layers import Rotary, by_age, check_state, weights_by_values
from zoo.layers.init import EMBEDDING_STD, init_linear
from zoo.layers.precision import full_precision, sum_dtype
from zoo.layers.streams import Shape
from zoo_landmark.attention import PlacesAttention
from zoo_landmark.cache import turned
from zoo_landmark.config import LandmarkConfig
from zoo_landmark.grid import insert_rows, places
from zoo_landmark.padding import Packed
from zoo_landmark.stream import LandmarkState


class LandmarkTokens(PlacesAttention):
    """Attention on a sequence in which every (block + 1)-th token is a landmark; landmarks ask, too.

    Without a mask, and in a stream, the first block begins with the first token.
    """

    def __init__(
        self,
        config: LandmarkConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        """`max_tokens` sets no limit: that is what the architecture is for.

        Raises:
            ValueError: `causal` is false, or `heads` does not divide `width`.
        """
        if not causal:
            raise ValueError(
                "landmark attention is causal only: a landmark sums up a block for later tokens. "
                "Build it with causal=True, or take another mixer"
            )
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}, with at least one head")
        super().__init__(config, heads=heads, turn=rotary)
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=config.bias))
        self.out = init_linear(nn.Linear(width, width, bias=config.bias))
        self.dropout = nn.Dropout(config.dropout_prob)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D). mask: bool (B, N), True = keep; blocks hold kept tokens only."""
        self._check(x)
        if mask is not None:
            packed = Packed(mask, x)
            return packed.unpack(self(packed.pack(x)))
        q, k, v = self._project(x, 0)
        return self._merge(self._attend(q, k, v))

    def attention_probs(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """What share of its attention each token gives each, for tools that look; x as in `forward`.

        Returns:
            (B, H, N, N), rows that sum to one; zeros where `mask` is False.
        """
        self._check(x)
        if mask is not None:
            packed = Packed(mask, x)
            return packed.unpack_pairs(self.attention_probs(packed.pack(x)))
        q, k, v = self._project(x, 0)
        return weights_by_values(lambda values: self._attend(q, k, v, values), v)

    def initial_state(self, batch_size: int) -> LandmarkState:
        """The state before the first token."""
        weight = self.out.weight
        like = weight.new_zeros(batch_size, self.heads, 0, weight.shape[0] // self.heads)
        return self._empty(like)

    def step(self, x: Tensor, state: LandmarkState) -> tuple[Tensor, LandmarkState]:
        """The next tokens of streams, x: (B, C, D) -> (B, C, D), and the new state; equals `forward`.

        Streams of different ages may stand side by side; each age is computed by itself.

        Raises:
            ValueError: x has another shape, or the state belongs to another layer or number of streams.
        """
        self._check(x)
        streams, channels = (len(x), self.heads, None), self.out.in_features // self.heads
        shapes: dict[str, Shape] = dict.fromkeys(("blocks.landmarks", "keys", "values"), (*streams, channels))
        shapes |= dict.fromkeys(("blocks.keys", "blocks.values"), (*streams, self.size, channels))
        shapes["position"] = (len(x),)
        check_state(state, LandmarkState, shapes, dtype=self.out.weight.dtype)
        return by_age(self._step, x, state, state.position)

    def _step(self, x: Tensor, state: LandmarkState, age: int) -> tuple[Tensor, LandmarkState]:
        q, k, v = self._project(x, age % self.size)
        out, state = self._advance(q, k, v, state, age)
        return self._merge(out), state

    def _project(self, x: Tensor, phase: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D), `phase` places into a block -> q, k, v (B, H, N, d), keys turned by that place."""
        # Under autocast the state is of the weights' type all the same.
        projected = self.qkv(x).to(self.out.weight.dtype)
        q, k, v = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, turned(k, self.turn, self._within(phase, x.shape[1], x.device)), v

    def _merge(self, mixed: Tensor) -> Tensor:
        """(B, H, N, d) -> (B, N, D)."""
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))

    def _check(self, x: Tensor) -> None:
        width = self.out.in_features
        if x.dim() != 3 or x.shape[-1] != width:
            raise ValueError(f"x must be (B, N, {width}), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        config = self.config
        return f"heads={self.heads}, block={config.block}, window={config.window}, top_k={config.top_k}"


class LandmarkAttention(LandmarkTokens):
    """Attention that puts a landmark of its own behind every block, inside the layer.

    In the paper a landmark is a token that earlier layers have filled with what its block is about. Here
    there are none: a learned query per head reads the block once it is complete, by softmax attention within
    it, and a linear map of what it read is the landmark's key. What follows is the paper's attention.
    Landmarks take places (positions count them), but no token of the input or output.
    """

    def __init__(
        self,
        config: LandmarkConfig,
        *,
        width: int,
        heads: int,
        causal: bool,
        max_tokens: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__(
            config, width=width, heads=heads, causal=causal, max_tokens=max_tokens, rotary=rotary
        )
        self.landmark_query = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.landmark_query, std=EMBEDDING_STD)
        self.landmark_key = init_linear(nn.Linear(width, width, bias=config.bias))

    def landmarks(self, k: Tensor, v: Tensor) -> Tensor:
        """Keys (turned) and values of whole blocks, (B, H, n block, d) -> landmarks' keys (B, H, n, d)."""
        every, dtype = self.config.block, sum_dtype(k.dtype)
        keys, values = (t.to(dtype).unflatten(2, (t.shape[2] // every, every)) for t in (k, v))
        query = self.landmark_query.to(dtype).view(1, self.heads, 1, -1)
        behind = torch.tensor([every], device=k.device)  # a landmark stands behind the last token
        query = self._scaled(turned(query, self.turn, behind))
        with full_precision(k.device):
            scores = (keys @ query.unsqueeze(-1)).squeeze(-1)  # (B, H, n, block)
            read = (scores.softmax(-1).unsqueeze(-2) @ values).squeeze(-2)  # (B, H, n, d)
        made = self.landmark_key(read.to(k.dtype).transpose(1, 2).flatten(2))  # (B, n, D)
        made = made.to(k.dtype).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return turned(made, self.turn, behind.expand(made.shape[2]))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, values: Tensor | None = None) -> Tensor:
        tokens, every = q.shape[2], self.config.block
        q, k, v = self._with_landmarks(q, k, v, k[:, :, :0], v[:, :, :0])
        if values is not None:  # landmarks are made from v all the same
            values = insert_rows(values, torch.zeros_like(values[:, :, : tokens // every]), every)
        return super()._attend(q, k, v, values).index_select(2, places(tokens, every, device=q.device))

    def _advance(
        self, q: Tensor, k: Tensor, v: Tensor, state: LandmarkState, age: int
    ) -> tuple[Tensor, LandmarkState]:
        phase, tokens = age % self.size, q.shape[2]
        mine = state.of_age(age, size=self.size, window=self.config.window, max_blocks=self.config.max_blocks)
        begun = mine.keys.shape[2] - phase  # where the block that is not complete begins
        q, k, v = self._with_landmarks(q, k, v, mine.keys[:, :, begun:], mine.values[:, :, begun:])
        out, state = super()._advance(q, k, v, state, age)
        return out.index_select(2, places(tokens, self.config.block, phase, device=q.device)), state

    def _with_landmarks(
        self, q: Tensor, k: Tensor, v: Tensor, begun_k: Tensor, begun_v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, H, N, d) with landmarks between them; begun_k, begun_v: those of the block so far."""
        every, phase = self.config.block, begun_k.shape[2]
        complete = (phase + q.shape[2]) // every * every
        if complete == 0:
            return q, k, v
        blocks = (torch.cat(pair, 2)[:, :, :complete] for pair in ((begun_k, k), (begun_v, v)))
        landmarks = self.landmarks(*blocks)
        nothing = torch.zeros_like(landmarks)
        return (
            insert_rows(q, nothing, every, phase),
            insert_rows(k, landmarks, every, phase),
            insert_rows(v, nothing, every, phase),
        )

    def _within(self, phase: int, count: int, device: torch.device) -> Tensor:
        return (phase + torch.arange(count, device=device)) % self.config.block
