"""Heads: from features to the outputs a task asks for. B batch, N tokens, D width, K outputs, C channels.

Each is `Head(config, *, targets, width)` and `head(features, *, mask=None, pre_logits=False)`. They differ in
how features become what the last linear map takes. A head with `per_token = True` answers each token by
itself: it can stream. Where several questions are asked (the kind Multi), K counts the answers to all of
them: one linear map on shared features is what a linear map per question would be.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kinds import Classes, Forecast, Labels, Multi, NextEvent, NextId, Series, Values
from zoo.layers.heads_config import (
    ForecastHeadConfig,
    ImageHeadConfig,
    NextEventHeadConfig,
    NextIdHeadConfig,
    PooledHeadConfig,
    TokenHeadConfig,
    VectorForecastHeadConfig,
    VectorHeadConfig,
)
from zoo.layers.init import HEAD_STD, init_linear
from zoo.layers.pooling import Pool


class _LinearHead(nn.Module):
    """Reduce, drop out, one linear map."""

    per_token = False

    def __init__(self, *, outputs: int, width: int, dropout_prob: float, bias: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout_prob)
        self.linear = init_linear(nn.Linear(width, outputs, bias=bias), std=HEAD_STD)

    def reduce(self, features: Tensor, *, mask: Tensor | None) -> Tensor:
        """Features of the backbone -> (..., D)."""
        return features

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: what the backbone gave, mask: bool (B, N) -> (B, K), or (B, N, K) token by token.

        pre_logits: stop before the linear map: (B, D) or (B, N, D).
        """
        reduced = self.reduce(features, mask=mask)
        return reduced if pre_logits else self.linear(self.dropout(reduced))


class PooledHead(_LinearHead):
    """Pool the kept tokens, then classes, values or both: (B, N, D) -> (B, K)."""

    def __init__(self, config: PooledHeadConfig, *, targets: Classes | Values | Multi, width: int) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)
        self.pool = Pool(config.pool, width=width)

    def reduce(self, features: Tensor, *, mask: Tensor | None) -> Tensor:
        return self.pool(features, mask=mask)


class VectorHead(_LinearHead):
    """Classes, values or both of a vector: (B, D) -> (B, K)."""

    def __init__(self, config: VectorHeadConfig, *, targets: Classes | Values | Multi, width: int) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)


class ImageHead(_LinearHead):
    """Average a feature map, then classes, values or both: (B, D, H, W) or (B, D) -> (B, K)."""

    def __init__(self, config: ImageHeadConfig, *, targets: Classes | Values | Multi, width: int) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)

    def reduce(self, features: Tensor, *, mask: Tensor | None) -> Tensor:
        if features.dim() not in (2, 4):
            raise ValueError(f"expected features (B, D) or (B, D, H, W), got shape {tuple(features.shape)}")
        return features.mean((2, 3)) if features.dim() == 4 else features


class LinearSkip(nn.Module):
    """Each channel's future from its own past, by one linear map for all channels, from the last value on.

    NLinear of Zeng et al. 2023, https://arxiv.org/abs/2205.13504. It starts as the forecast that the last
    value goes on.
    """

    def __init__(self, *, length: int, targets: Forecast) -> None:
        super().__init__()
        self.channels = targets.channels
        self.map = nn.Linear(length, targets.horizon)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, at least C), N at most `length`, mask: bool (B, N) -> (B, horizon, C)."""
        past = x[..., : self.channels]
        if mask is None:
            last = past[:, -1:]  # (B, 1, C)
            past = past - last
        else:
            # Kept steps move to the right, in order; what is not kept counts as the last value.
            order = mask.long().argsort(dim=1, stable=True)[..., None]  # (B, N, 1)
            past, kept = past.gather(1, order.expand_as(past)), mask[..., None].gather(1, order)
            last = past[:, -1:].masked_fill(~kept[:, -1:], 0.0)
            past = (past - last).masked_fill(~kept, 0.0)
        past = F.pad(past, (0, 0, self.map.in_features - past.shape[1], 0))  # (B, length, C)
        return self.map(past.transpose(1, 2)).transpose(1, 2) + last


class VectorForecastHead(_LinearHead):
    """All steps to come at once: (B, D) -> (B, horizon, C), and the linear skip of the inputs."""

    def __init__(
        self,
        config: VectorForecastHeadConfig | ForecastHeadConfig,
        *,
        targets: Forecast,
        width: int,
        inputs: Series,
    ) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)
        self.shape = (targets.horizon, targets.channels)
        self.skip = LinearSkip(length=inputs.length, targets=targets) if config.skip == "linear" else None

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: (B, D) or (B, N, D), mask: bool (B, N) -> (B, horizon, C); with `pre_logits` (B, D)."""
        outputs = super().forward(features, mask=mask, pre_logits=pre_logits)
        return outputs if pre_logits else outputs.unflatten(-1, self.shape)

    def direct(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor | None:
        """What is added to the outputs straight from the inputs x (B, N, C): (B, horizon, C), or nothing."""
        return None if self.skip is None else self.skip(x, mask=mask)


class PooledForecastHead(VectorForecastHead):
    """All steps to come at once, from one vector of the series: (B, N, D) -> (B, horizon, C)."""

    def __init__(self, config: ForecastHeadConfig, *, targets: Forecast, width: int, inputs: Series) -> None:
        super().__init__(config, targets=targets, width=width, inputs=inputs)
        self.pool = Pool(config.pool, width=width)

    def reduce(self, features: Tensor, *, mask: Tensor | None) -> Tensor:
        return self.pool(features, mask=mask)


class TokenHead(_LinearHead):
    """A label for each token: (B, N, D) -> (B, N, K)."""

    per_token = True

    def __init__(self, config: TokenHeadConfig, *, targets: Labels, width: int) -> None:
        super().__init__(outputs=targets.outputs, width=width, dropout_prob=config.dropout_prob)


class NextIdHead(_LinearHead):
    """Scores of the next symbol at each position: (B, N, D) -> (B, N, K)."""

    per_token = True

    def __init__(self, config: NextIdHeadConfig, *, targets: NextId, width: int) -> None:
        super().__init__(
            outputs=targets.vocab, width=width, dropout_prob=config.dropout_prob, bias=config.bias
        )
        self.tied = config.tied
        self.factor = 1.0

    def reduce(self, features: Tensor, *, mask: Tensor | None) -> Tensor:
        return features * self.factor

    def connect(self, stem: nn.Module | None) -> None:
        """Share the stem's embedding, where `tied` asks for it.

        Raises:
            ValueError: the stem has no `token_embedding`, or one of another shape.
        """
        if not self.tied:
            return
        embedding = getattr(stem, "token_embedding", None)
        if not isinstance(embedding, nn.Embedding):
            name = type(stem).__name__
            raise ValueError(
                f"tied=True shares the stem's token_embedding, but stem {name} has none; use tied=False"
            )
        if embedding.weight.shape != self.linear.weight.shape:
            ours, theirs = tuple(self.linear.weight.shape), tuple(embedding.weight.shape)
            raise ValueError(
                f"tied=True: the stem's embedding is {theirs}, but the answer needs {ours}; use tied=False"
            )
        # Embeddings are larger than a head's weights: without this the first scores would be far from equal.
        self.factor = getattr(stem, "factor", 1.0) * embedding.embedding_dim**-0.5
        self.linear.weight = embedding.weight


class NextEventHead(_LinearHead):
    """Log-normal distributions of the gap until the next event, mixed: (B, N, D) -> (B, N, components, K).

    Of each component: the logit of its weight, mean and (before a softplus) deviation of the logarithm of
    the gap, and the logits of its marks; `zoo.tasks.event_mixture` reads them. Shchur, Bilos and
    Guennemann 2020, https://arxiv.org/abs/1909.12127, section 3. Deviation: there marks do not depend on the
    gap (`joint=False`); here each component has its own, a mixture of (log-normal x categorical).
    """

    per_token = True

    def __init__(self, config: NextEventHeadConfig, *, targets: NextEvent, width: int) -> None:
        components, marks = config.components, targets.marks
        # Three numbers of each component side by side, then the logits of marks.
        distributions = components if config.joint else 1
        outputs = 3 * components + distributions * marks
        super().__init__(outputs=outputs, width=width, dropout_prob=config.dropout_prob)
        self.components, self.marks = components, marks
        self.typical = math.log(targets.scale)
        with torch.no_grad():  # components that start alike would stay alike
            self.linear.bias[components : 2 * components] = torch.linspace(-3, 1, components + 2)[1:-1]

    def forward(self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """features: (B, N, D) -> (B, N, components, 3 + marks); with `pre_logits` (B, N, D)."""
        outputs = super().forward(features, mask=mask, pre_logits=pre_logits)
        if pre_logits:
            return outputs
        numbers, marks = outputs.split([3 * self.components, outputs.shape[-1] - 3 * self.components], dim=-1)
        weight, mean, deviation = numbers.unflatten(-1, (3, self.components)).unbind(-2)
        gaps = torch.stack([weight, mean + self.typical, deviation], dim=-1)  # (B, N, components, 3)
        marks = marks.unflatten(-1, (-1, self.marks)).expand(*gaps.shape[:-1], self.marks)
        return torch.cat([gaps, marks], dim=-1)
