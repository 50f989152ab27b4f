"""Stems: from a kind of data to what a backbone takes. B batch, N tokens, C channels, D width.

Each is `Stem(config, *, inputs, width)` and `stem(x, *, mask=None) -> (features, mask of the tokens | None)`.
A stem with `per_token = True` makes each input step one token, without looking at others: it can stream.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kinds import Events, Ids, Image, Series, Vector
from zoo.layers.init import EMBEDDING_STD, init_embedding, init_linear
from zoo.layers.padding import front_order, kept_in_front, take_tokens
from zoo.layers.pooling import Pool
from zoo.layers.stems_config import (
    BagConfig,
    ConvolutionsConfig,
    EmbeddingConfig,
    EventsConfig,
    FeaturesConfig,
    FlattenConfig,
    LinearConfig,
    PatchesConfig,
    SeriesPoolConfig,
    StepsConfig,
)

Stemmed = tuple[Tensor, Tensor | None]
#: Added to a gap (as a share of the typical one) before its logarithm is taken.
SHORTEST_GAP = 1e-4


class Patches(nn.Module):
    """Square patches of an image, row by row, each a token; zeros fill up the right and the bottom.

    Attributes:
        grid: rows and columns of the patches. side: of a patch, in pixels.
    """

    def __init__(self, config: PatchesConfig, *, inputs: Image, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.side, self.grid = config.side(inputs), config.grid(inputs)
        self.project = init_linear(nn.Linear(inputs.channels * self.side**2, width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, C, H, W) -> (B, N, D); there is no mask."""
        _check_image(x, self.inputs)
        x = F.pad(x, (0, -x.shape[3] % self.side, 0, -x.shape[2] % self.side))
        patches = F.unfold(x, self.side, stride=self.side).transpose(1, 2)  # (B, N, C side^2)
        return self.project(patches), None


class Flatten(nn.Module):
    """All pixels as one vector, then a linear map."""

    def __init__(self, config: FlattenConfig, *, inputs: Image, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.project = init_linear(nn.Linear(config.flattened(inputs), width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, C, H, W) -> (B, D)."""
        _check_image(x, self.inputs)
        return self.project(x.flatten(1)), None


class Embedding(nn.Module):
    """One learned vector per symbol. A head may share it: `token_embedding`, stored smaller by `factor`.

    A factor of sqrt(width): Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.4.
    """

    per_token = True

    def __init__(self, config: EmbeddingConfig, *, inputs: Ids, width: int) -> None:
        super().__init__()
        self.factor = config.factor(width)
        self.token_embedding = init_embedding(nn.Embedding(inputs.vocab, width), std=config.init_std)
        with torch.no_grad():
            self.token_embedding.weight.div_(self.factor)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: int (B, N) -> (B, N, D), and the mask as it came."""
        return _look_up(self.token_embedding, x) * self.factor, mask


class Bag(nn.Module):
    """The mean of the kept symbols' vectors."""

    def __init__(self, config: BagConfig, *, inputs: Ids, width: int) -> None:
        super().__init__()
        self.embedding = init_embedding(nn.Embedding(inputs.vocab, width))
        self.pool = Pool("mean", width=width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: int (B, N), mask: bool (B, N) -> (B, D)."""
        return self.pool(_look_up(self.embedding, x), mask=mask), None


class Steps(nn.Module):
    """Each time step a token, by one linear map."""

    per_token = True

    def __init__(self, config: StepsConfig, *, inputs: Series, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.project = init_linear(nn.Linear(inputs.channels, width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, N, C) -> (B, N, D), and the mask as it came."""
        _check_series(x, self.inputs)
        return self.project(x), mask


class Convolutions(nn.Module):
    """Convolutions over the present and past steps, each with a GELU; strides make several steps a token.

    A layer's output i looks at the last `kernel_size` inputs up to number (i + 1) stride - 1, so that a token
    sees all the steps that it stands for and none after them. Before the first step lie zeros, as behind the
    last one where the length is no multiple of the strides. There is no norm: it would take from each window
    how large its values are (`core/gun_point`, three seeds: accuracy 0.844 with layer norms, 0.958 without).
    """

    def __init__(self, config: ConvolutionsConfig, *, inputs: Series, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.stride, self.kernel_size = config.stride, config.kernel_size
        channels = [inputs.channels] + [width] * (config.layers - 1)
        self.projections = nn.ModuleList(
            init_linear(nn.Linear(count * self.kernel_size, width)) for count in channels
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, N, C), mask: bool (B, N) -> (B, ceil(N / stride^layers), D), and the mask of the tokens.

        Kept steps move to the front first: padding on the left must not shift what a token stands for.
        """
        _check_series(x, self.inputs)
        if mask is not None:
            order = front_order(mask)
            x, mask = kept_in_front(x, mask, order), take_tokens(mask, order)
        for project in self.projections:
            x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
            behind = -x.shape[1] % self.stride
            x = F.pad(x, (0, 0, self.kernel_size - self.stride, behind))
            windows = x.unfold(1, self.kernel_size, self.stride)  # (B, N', C, kernel)
            x = F.gelu(project(windows.flatten(2)))
            if mask is not None:
                mask = F.pad(mask, (0, behind)).unflatten(1, (-1, self.stride)).any(dim=-1)  # (B, N')
        return x, mask


class EventSteps(nn.Module):
    """Each event a token: a vector of its mark, plus a linear map of its gap and its time.

    The logarithm of the gap; the time as such, and as sines and cosines of several wavelengths, as in the
    Transformer Hawkes process (Zuo et al. 2020, https://arxiv.org/abs/2002.09291, eq. 2), which adds them
    with fixed weights and knows no gaps.
    """

    per_token = True
    frequencies: Tensor

    def __init__(self, config: EventsConfig, *, inputs: Events, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.mark_embedding = init_embedding(nn.Embedding(inputs.marks, width))
        waves = config.wavelengths(inputs)
        self.register_buffer("frequencies", torch.tensor([2 * math.pi / w for w in waves]), persistent=False)
        self.project = init_linear(nn.Linear(2 + 2 * len(waves), width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, N, 3) as in `Events` -> (B, N, D), and the mask as it came."""
        _check_events(x, self.inputs)
        time, gap, mark = x.unbind(-1)  # (B, N)
        phases = time.unsqueeze(-1) * self.frequencies  # (B, N, waves)
        plain = torch.stack(
            [
                (gap / self.inputs.scale + SHORTEST_GAP).log(),
                time / (self.inputs.scale * self.inputs.length),
            ],
            dim=-1,
        )
        features = torch.cat([plain, phases.sin(), phases.cos()], dim=-1)
        return _look_up(self.mark_embedding, mark.long()) + self.project(features), mask


class SeriesPool(nn.Module):
    """Mean, deviation, minimum and maximum of each channel over the kept steps, then a linear map."""

    def __init__(self, config: SeriesPoolConfig, *, inputs: Series, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.mean, self.peak = Pool("mean", width=inputs.channels), Pool("max", width=inputs.channels)
        self.project = init_linear(nn.Linear(4 * inputs.channels, width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, N, C), mask: bool (B, N) -> (B, D)."""
        _check_series(x, self.inputs)
        mean = self.mean(x, mask=mask)  # (B, C)
        variance = self.mean((x - mean.unsqueeze(1)) ** 2, mask=mask)
        deviation = variance.clamp_min(1e-8).sqrt()  # the gradient of sqrt(0) is infinite
        statistics = (mean, deviation, -self.peak(-x, mask=mask), self.peak(x, mask=mask))
        return self.project(torch.cat(statistics, dim=1)), None


class Features(nn.Module):
    """Each feature a token: a learned vector times the value, plus another.

    The feature tokenizer of Gorishniy et al. 2021, https://arxiv.org/abs/2106.11959, section 3.3.
    """

    def __init__(self, config: FeaturesConfig, *, inputs: Vector, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.scale = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(inputs.features, width), std=EMBEDDING_STD)
        )
        self.bias = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(inputs.features, width), std=EMBEDDING_STD)
        )

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, F) -> (B, F, D)."""
        _check_vector(x, self.inputs)
        return x.unsqueeze(-1) * self.scale + self.bias, None


class Linear(nn.Module):
    """One linear map to the width of the backbone."""

    def __init__(self, config: LinearConfig, *, inputs: Vector, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.project = init_linear(nn.Linear(inputs.features, width))

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Stemmed:
        """x: (B, F) -> (B, D)."""
        _check_vector(x, self.inputs)
        return self.project(x), None


def _look_up(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """ids: int (B, N) -> (B, N, D)."""
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(f"expected ids: whole numbers (B, N), got {ids.dtype} of shape {tuple(ids.shape)}")
    try:
        return embedding(ids)
    except IndexError:
        low, high = int(ids.min()), int(ids.max())
        raise ValueError(f"ids must lie in [0, {embedding.num_embeddings}), got {low} to {high}") from None


def _check_image(x: Tensor, inputs: Image) -> None:
    expected = (inputs.channels, inputs.height, inputs.width)
    if tuple(x.shape[1:]) != expected:
        raise ValueError(f"expected images (B, {', '.join(map(str, expected))}), got shape {tuple(x.shape)}")


def _check_series(x: Tensor, inputs: Series) -> None:
    if x.dim() != 3 or x.shape[2] != inputs.channels:
        raise ValueError(f"expected series (B, N, {inputs.channels}), got shape {tuple(x.shape)}")


def _check_events(x: Tensor, inputs: Events) -> None:
    if inputs.marks > 2 / torch.finfo(x.dtype).eps:
        raise ValueError(
            f"{inputs.marks} marks cannot be told apart in {x.dtype}; use float32 inputs (a mixed precision)"
        )
    if x.dim() != 3 or x.shape[2] != len(Events.columns):
        raise ValueError(
            f"expected events (B, N, 3): {', '.join(Events.columns)}; got shape {tuple(x.shape)}"
        )
    # On an accelerator a look at the values would wait for it; there a bad gap makes the loss NaN.
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and bool((x[..., 1] < 0).any()):
        raise ValueError(f"gaps between events must be at least 0, got {float(x[..., 1].min()):g}")


def _check_vector(x: Tensor, inputs: Vector) -> None:
    if x.dim() != 2 or x.shape[1] != inputs.features:
        raise ValueError(f"expected rows (B, {inputs.features}), got shape {tuple(x.shape)}")
