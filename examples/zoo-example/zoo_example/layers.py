"""The mixer: a gated moving average, in one direction or in both. B batch, N tokens, D width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo.layers import check_state

from zoo_example.config import ExampleConfig
from zoo_example.functional import scan


class ExampleMixer(nn.Module):
    """A moving average of what came so far (causal), or of what stands around, let through a gate.

        h_t = a h_(t-1) + (1 - a) v_t        y_t = W silu(g_t) h_t

    v and g are linear in x; a in (0, 1) is learned, one for each channel. Where later tokens may be
    seen, h is the mean of this average and of the same one taken from the end.
    """

    def __init__(
        self, config: ExampleConfig, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        """`heads` and `max_tokens` belong to every mixer's interface; this one has no use for them."""
        super().__init__()
        self.causal = causal
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)  # so that a token which has seen nothing gives zeros
        # A channel that looks back m tokens has a = 1 - 1 / m; at the start m goes from 2 to `memory`.
        memory = 2 * (config.memory / 2) ** torch.linspace(0, 1, width)
        self.decay_logit = nn.Parameter(torch.log(memory - 1))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = keep -> (B, N, D)."""
        decay = torch.sigmoid(self.decay_logit)
        values = (1 - decay) * self.value(x)
        decays = decay.expand(1, x.shape[1], -1)
        if mask is not None:  # a token that is not kept adds nothing, and nothing fades meanwhile
            keep = mask.unsqueeze(-1)
            values, decays = values.masked_fill(~keep, 0.0), torch.where(keep, decays, 1.0)
        averages = scan(values, decays)
        if not self.causal:
            averages = (averages + scan(values.flip(1), decays.flip(1)).flip(1)) / 2
        return self._gated(x, averages)

    def initial_state(self, batch_size: int) -> Tensor:
        """The averages before the first token, (B, D).

        Raises:
            ValueError: the mixer sees later tokens.
        """
        if not self.causal:
            raise ValueError("example/example streams only when built with causal=True")
        return self.decay_logit.new_zeros(batch_size, len(self.decay_logit))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: the next C >= 1 tokens (B, C, D), state: (B, D) -> (B, C, D) and the new state.

        Raises:
            ValueError: the state is not one of this layer for so many streams.
        """
        check_state(state, Tensor, {"": (len(x), len(self.decay_logit))}, dtype=self.decay_logit.dtype)
        decay = torch.sigmoid(self.decay_logit)
        averages = scan((1 - decay) * self.value(x), decay.expand(1, x.shape[1], -1), state)
        # A copy: a view of the last average would keep all of them in memory.
        return self._gated(x, averages), averages[:, -1].clone()

    def _gated(self, x: Tensor, averages: Tensor) -> Tensor:
        return self.out(F.silu(self.gate(x)) * averages)
