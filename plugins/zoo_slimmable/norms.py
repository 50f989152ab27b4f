"""Norms over the used channels. Layer and group norms need no statistics; those of batch norms depend on
the width of everything before them, and are kept by configuration. B batch, C channels, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import evaluating
from zoo_slimmable.layers import check_inputs, filled, like
from zoo_slimmable.widths import Channels, Slimmable

#: Which channels stand before a batch norm, in groups that have one width each: the encoder's, a decoder's.
#: The lists may still grow while a network is built.
Scopes = Sequence[Sequence[Channels]]


def _channels(given: int | Channels) -> Channels:
    return Channels(given) if isinstance(given, int) else given


class _Norm(Slimmable):
    produces = False
    weight: Any
    bias: Any

    def _of(self, channels: Channels) -> None:
        self.inputs = self.outputs = (channels,)

    @property
    def channels(self) -> Channels:
        """What is normalised."""
        return self.inputs[0]

    def used(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale and shift at the present width."""
        d = self.channels.active
        return None if self.weight is None else self.weight[:d], None if self.bias is None else self.bias[:d]

    def active_parameters(self) -> int:
        return self.channels.active * ((self.weight is not None) + (self.bias is not None))


class SlimmableLayerNorm(_Norm, nn.LayerNorm):  # type: ignore[misc]
    """Layer norm over the used features, which lie in the last dimension."""

    def __init__(self, channels: int | Channels, *, eps: float = 1e-5) -> None:
        channels = _channels(channels)
        super().__init__(channels.full, eps=eps)
        self._of(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., d) -> (..., d)."""
        check_inputs(self, x.shape[-1])
        return F.layer_norm(x, (self.channels.active,), *self.used(), self.eps)

    def plain(self) -> nn.LayerNorm:
        """An ordinary layer norm of the present width."""
        layer = nn.LayerNorm(
            self.channels.active, self.eps, self.weight is not None, bias=self.bias is not None, **_as(self)
        )
        return _copied(layer, self)


class SlimmableGroupNorm(_Norm, nn.GroupNorm):  # type: ignore[misc]
    """Group norm with the same channels in each group at every width, so that a group sees the same inputs.

    Args:
        channels: what is normalised.
        group: channels per group.

    Raises:
        ValueError: groups that do not divide the channels or the steps of their width.
    """

    def __init__(self, channels: int | Channels, *, group: int = 8, eps: float = 1e-5) -> None:
        channels = _channels(channels)
        step = channels.unit or channels.divisor
        if group < 1:
            raise ValueError(f"a group has at least one channel, got {group}")
        if channels.full % group or (not channels.fixed and step % group):
            raise ValueError(
                f"groups of {group} channels do not divide {channels.full} channels that are used in "
                f"steps of {step}"
            )
        super().__init__(channels.full // group, channels.full, eps=eps)
        self.group = group
        self._of(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, ...) -> (B, c, ...)."""
        check_inputs(self, x.shape[1])
        return F.group_norm(x, self.channels.active // self.group, *self.used(), self.eps)

    def plain(self) -> nn.GroupNorm:
        """An ordinary group norm of the present width."""
        count = self.channels.active
        layer = nn.GroupNorm(count // self.group, count, self.eps, self.weight is not None, **_as(self))
        return _copied(layer, self)


class SlimmableBatchNorm2d(_Norm, nn.BatchNorm2d):  # type: ignore[misc]
    """Batch norm with shared scale and shift, and statistics for each configuration (US-Nets).

    In training a batch's own statistics count. At full width running ones are kept, as in torch. At other
    widths there are none until `calibrate` takes them; they are kept in memory, not in the state dict, until
    the next pass in training or until other weights are loaded.

    Args:
        channels: what is normalised.
        scopes: the channels that stand before it; by default its own.
    """

    def __init__(
        self,
        channels: int | Channels,
        *,
        scopes: Scopes | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        channels = _channels(channels)
        super().__init__(channels.full, eps=eps, momentum=momentum)
        self._of(channels)
        self.start_statistics(((channels,),) if scopes is None else scopes)

    def start_statistics(self, scopes: Scopes) -> None:
        """Have none yet, and depend on these channels."""
        self.scopes = scopes
        self.statistics: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self.collecting: tuple[Tensor, Tensor, int] | None = None

    @property
    def configuration(self) -> tuple[int, ...]:
        """How many channels each set before this norm has: what its statistics depend on."""
        return tuple(channels.active for scope in self.scopes for channels in scope)

    @property
    def at_full_width(self) -> bool:
        """Whether everything before it is used."""
        return all(channels.is_full for scope in self.scopes for channels in scope)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, H, W) -> (B, c, H, W).

        Raises:
            ValueError: in evaluation, at a width without statistics; another number of channels.
        """
        check_inputs(self, x.shape[1])
        return self._finish(self._normalise(x))

    def _normalise(self, x: Tensor) -> Tensor:
        if self.collecting is not None:
            mean, variance, seen = self.collecting
            self.collecting = (mean, variance, seen + 1)
            # A cumulative average, as torch keeps it with momentum=None.
            return F.batch_norm(x, mean, variance, *self.used(), True, 1 / (seen + 1), self.eps)
        if self.training and self.statistics:  # they are those of the weights so far
            self.statistics.clear()
        if self.at_full_width:
            return nn.BatchNorm2d.forward(self, x)
        if self.training:
            return F.batch_norm(x, None, None, *self.used(), True, 0.0, self.eps)
        return F.batch_norm(x, *self._running(), *self.used(), False, 0.0, self.eps)

    def _finish(self, x: Tensor) -> Tensor:
        """What follows the norm."""
        return x

    def _running(self) -> tuple[Tensor, Tensor]:
        found = self.statistics.get(self.configuration)
        if found is None:
            raise ValueError(
                "batch norms have no statistics for these widths: call zoo_slimmable.calibrate(model, "
                "batches) once they are set, or use a norm without statistics"
            )
        return found

    def _load_from_state_dict(self, *given: Any) -> None:
        self.statistics.clear()
        super()._load_from_state_dict(*given)

    def plain(self) -> nn.BatchNorm2d:
        """An ordinary batch norm of the present width, with the statistics of this configuration.

        Raises:
            ValueError: there are none.
        """
        count = self.channels.active
        layer = nn.BatchNorm2d(
            count, self.eps, self.momentum, self.affine, self.track_running_stats, **_as(self)
        )
        layer = _copied(layer, self)
        at_full = self.at_full_width and self.running_mean is not None and self.running_var is not None
        mean, variance = (self.running_mean, self.running_var) if at_full else self._running()
        if layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(mean)  # type: ignore[arg-type]
            layer.running_var.copy_(variance)  # type: ignore[arg-type]
        return layer


class SwitchableBatchNorm2d(Slimmable, nn.Module):
    """Batch norms of which each width has its own, weights and statistics (S-Nets).

    Args:
        channels: what is normalised.
        widths: the widths that may be used.
        scopes: the channels before it in groups that have one width each, of which every combination has its
            own norm; by default its own channels.

    Raises:
        ValueError: no width, or one twice.
    """

    produces = False

    def __init__(
        self,
        channels: int | Channels,
        *,
        widths: Sequence[float],
        scopes: Scopes | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        channels = _channels(channels)
        if not widths or len(set(widths)) < len(widths):
            raise ValueError(f"widths must be different numbers, at least one, got {tuple(widths)}")
        self.inputs = self.outputs = (channels,)
        self.scopes = ((channels,),) if scopes is None else scopes
        self.widths = tuple(float(width) for width in widths)
        combinations = list(product(self.widths, repeat=len(self.scopes)))
        self.index = {widths: n for n, widths in enumerate(combinations)}
        # The last scope is the one that the channels themselves are in.
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(channels.count(widths[-1], strict=False), eps=eps) for widths in combinations
        )

    @property
    def used(self) -> nn.BatchNorm2d:
        """The norm of the present widths.

        Raises:
            ValueError: there is none.
        """
        asked = []
        for scope in self.scopes:
            widths = {channels.width for channels in scope if not channels.fixed} or {1.0}
            asked.append(widths.pop() if len(widths) == 1 else float("nan"))
        index = self.index.get(tuple(asked))
        if index is None:
            raise ValueError(
                f"switchable batch norms have statistics for widths {', '.join(map(str, self.widths))} of "
                "a whole encoder or decoder only; for others, and for widths by layer, use calibrated ones"
            )
        return self.norms[index]  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c, H, W) -> (B, c, H, W).

        Raises:
            ValueError: a width that is not among `widths`.
        """
        return self.used(x)

    def active_parameters(self) -> int:
        return sum(p.numel() for p in self.used.parameters())

    def plain(self) -> nn.BatchNorm2d:
        """An ordinary batch norm of the present width."""
        norm = self.used
        layer = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, **like(norm.weight))
        layer.load_state_dict(norm.state_dict())
        return layer


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Take the statistics of batch norms at the model's present width, from a few batches of training inputs.

    At full width nothing is done: running statistics are there, as in any network.

    Args:
        batches: inputs of the model, each as large as in training.

    Returns:
        How many norms have new statistics.

    Raises:
        ValueError: there are norms to calibrate, but no batch.
    """
    norms = [m for m in model.modules() if isinstance(m, SlimmableBatchNorm2d) and not m.at_full_width]
    if not norms:
        return 0
    with evaluating(model):
        for norm in norms:
            at = norm.weight if norm.weight is not None else norm.running_mean
            assert at is not None
            size = norm.channels.active
            norm.collecting = (at.new_zeros(size), at.new_ones(size), 0)
        try:
            seen = 0
            for x in batches:
                model(x)
                seen += 1
            if not seen:
                raise ValueError("calibrate needs at least one batch of inputs")
            for norm in norms:
                if norm.collecting is not None and norm.collecting[2]:
                    norm.statistics[norm.configuration] = norm.collecting[:2]
        finally:
            for norm in norms:
                norm.collecting = None
    return len(norms)


def _as(norm: nn.Module) -> dict[str, Any]:
    tensor = next((t for t in (*norm.parameters(), *norm.buffers()) if t.is_floating_point()), torch.zeros(0))
    return like(tensor)


def _copied(layer: Any, norm: _Norm) -> Any:
    weight, bias = norm.used()
    return layer if weight is None else filled(layer, weight, bias)
