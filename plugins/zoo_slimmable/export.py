"""Cut the network of the present width out of a slimmable one: plain layers with copies of the weights."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_slimmable.layers import SlimmableAttention
from zoo_slimmable.widths import Slimmable, Width, width_scope


class Attention(nn.Module):
    """What is cut out of a `SlimmableAttention`: the same, with a number of heads that does not change."""

    def __init__(self, source: SlimmableAttention) -> None:
        super().__init__()
        self.head_dim = source.head_dim
        self.num_heads = source.heads.active // source.head_dim
        self.qkv = source.qkv.plain()
        self.q_norm, self.k_norm = copy.deepcopy(source.q_norm), copy.deepcopy(source.k_norm)
        self.attn_drop, self.proj_drop = copy.deepcopy(source.attn_drop), copy.deepcopy(source.proj_drop)
        self.proj = source.proj.plain()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """x: (B, N, D) -> (B, N, D)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.attn_drop.p if self.training else 0.0
        q, k = self.q_norm(q), self.k_norm(k)
        x = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal
        )
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim)))


def export_slim(model: nn.Module, width: Width | None = None) -> nn.Module:
    """The network of a width, on its own: in evaluation it agrees with the slimmed one bit for bit.

    Args:
        model: stays as it is.
        width: the present one by default.

    Returns:
        A copy with plain layers in place of slimmable ones. It cannot be slimmed any more.

    Raises:
        ValueError: the width cannot be, or batch norms have no statistics for it (see `calibrate`).
    """
    if width is not None:
        with width_scope(model, width):
            return export_slim(model)
    done = copy.deepcopy(model)
    if isinstance(done, (Slimmable, SlimmableAttention)):
        return _plain(done)
    with torch.no_grad():
        _replace(done)
    return done


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, (Slimmable, SlimmableAttention)):
            setattr(module, name, _plain(child))
        else:
            _replace(child)
    cut = getattr(module, "cut", None)
    if callable(cut):
        cut()


def _plain(layer: nn.Module) -> nn.Module:
    made: nn.Module = Attention(layer) if isinstance(layer, SlimmableAttention) else layer.plain()  # type: ignore[operator]
    made.train(layer.training)
    for parameter in made.parameters():
        parameter.requires_grad_(any(p.requires_grad for p in layer.parameters()))
    return made
