"""Attention entropy of a model as it is: one forward in which every attention is looked at, none replaced.

Seen are calls of `F.scaled_dot_product_attention` (the zoo's softmax attention, timm, Hugging Face), of
`nn.MultiheadAttention`, and softmaxes over the last dimension of scores (B, H, N, T) (attention written out).
A module with a method `attention_probs`, which takes what its forward takes, tells itself (Aaren, Combiner).
B batch, H heads, N queries, T keys, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo_sigmareparam.functional import attention_entropy, entropy_lower_bound

#: Scores below this stand for a key that is not seen; no collapse goes so far.
_HIDDEN = -1e8
_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True, kw_only=True)
class HeadEntropies:
    """One attention, averaged over the batch and its queries; (H,) each, float32 on the CPU.

    entropy: in nats. normalized: over the logarithm of the keys that a query sees, 0 .. 1.
    bound: the least that theorem 3.1 allows, in nats; never above `entropy`.
    """

    entropy: Tensor
    normalized: Tensor
    bound: Tensor


def attention_entropies(
    model: nn.Module, forward: Callable[[], Any], *, mask: Tensor | Callable[[], Tensor | None] | None = None
) -> dict[str, HeadEntropies]:
    """The entropies of every attention in a model, by the name of the module that attends.

        attention_entropies(vit, lambda: vit(images))

    The forward is run once, without gradients and uncompiled; nothing is changed but what it changes itself,
    so call `model.eval()` before where that matters.

    Args:
        forward: calls the model.
        mask: bool (B, N), True = keep: queries that are padding do not count, where shapes agree; or what
            gives it, asked at each attention.
    """
    with ExitStack() as stack:
        running: list[tuple[str, nn.Module]] = []
        watching = _Watching(running, mask if callable(mask) else lambda: mask)
        stack.enter_context(_told_what_runs(model, running, watching.see_own))
        # Compiled modules hide their calls, and so does torch's own fast path for encoder layers.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(watching)
        forward()
    return watching.found


class _Watching(TorchFunctionMode):
    """Looks at the arguments of each attention on their way."""

    def __init__(self, running: list[tuple[str, nn.Module]], mask: Callable[[], Tensor | None]) -> None:
        super().__init__()
        self._running, self._mask = running, mask
        self.found: dict[str, HeadEntropies] = {}

    @staticmethod
    def _told(running: list[tuple[str, nn.Module]]) -> bool:
        """Whether all that happens now is inside an attention that has told what it is."""
        return any(_tells(module) for _, module in running)

    def see_own(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is about to run: where it can say what its attention is, ask it."""
        if _tells(module) and not self._told(self._running[:-1]):
            self._note(probs=module.attention_probs(*args, **kwargs))  # type: ignore[operator]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._told(self._running):
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._see_sdpa(*args, **kwargs)
        elif func is F.multi_head_attention_forward:
            return self._see_multi_head(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in _SOFTMAX and result.dim() == 4 and _dim_of(args, kwargs) in (-1, 3):
            logits = args[0] if args else kwargs["input"]
            self._note(logits=_without_stand_ins(logits))
        return result

    def _see_sdpa(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        q, k = query.float(), key.float()
        if enable_gqa:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        logits = (q @ k.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)  # (B, H, N, T)
        if is_causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(later, -math.inf)
        if attn_mask is not None:
            bias = attn_mask
            if attn_mask.dtype == torch.bool:
                bias = torch.zeros(attn_mask.shape, device=logits.device).masked_fill(~attn_mask, -math.inf)
            logits = logits + _without_stand_ins(bias).float()
        self._note(logits=_batched(logits))

    def _see_multi_head(self, func: Any, args: Any, kwargs: Any) -> Any:
        """`nn.MultiheadAttention`, which gives its probabilities when asked for them."""
        wants, average = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        given = {**kwargs, "need_weights": True, "average_attn_weights": False}
        causal_only = kwargs.get("is_causal", False) and kwargs.get("attn_mask") is None
        if causal_only:  # a hint that torch takes without a mask only where no weights are wanted
            n, t = args[0].shape[0], args[1].shape[0]
            given["attn_mask"] = torch.ones(n, t, dtype=torch.bool, device=args[0].device).triu(1)
        out, probs = func(*args, **given)
        self._note(probs=_batched(probs))
        if not wants:
            return out, None
        return out, (probs.mean(-3) if average else probs)

    def _note(self, *, probs: Tensor | None = None, logits: Tensor | None = None) -> None:
        scores = probs if probs is not None else logits
        assert scores is not None
        if scores.shape[-1] < 2:  # one key: nothing to spread over
            return
        mask = self._mask()
        if mask is not None and tuple(mask.shape) != (scores.shape[0], scores.shape[2]):
            mask = None
        name = self._free_name()
        self.found[name] = HeadEntropies(
            entropy=attention_entropy(probs, logits=logits, mask=mask).cpu(),
            normalized=attention_entropy(probs, logits=logits, mask=mask, normalized=True).cpu(),
            # A logarithm of probabilities is the logits, up to a number for each row, which no bound sees.
            bound=_bound(scores.float().log() if logits is None else logits, mask),
        )

    def _free_name(self) -> str:
        """The module that is running; the second attention in one module is `name#2`."""
        name = self._running[-1][0] if self._running else ""
        count = 1 + sum(other == name or other.startswith(f"{name}#") for other in self.found)
        return name if count == 1 else f"{name}#{count}"


def _bound(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Theorem 3.1 for the row that allows least, (H,).

    In place of |W_K W_Q^T| |X X^T| stands what it bounds, the norm of the row of logits itself, less its
    mean, which softmax does not see: the bound holds all the same and is sharper.
    """
    logits = logits.float()
    seen = logits != -math.inf
    keys = seen.sum(-1)  # (B, H, N)
    plain = logits.masked_fill(~seen, 0.0)
    mean = plain.sum(-1, keepdim=True) / keys.clamp_min(1).unsqueeze(-1)
    norms = (plain - mean).masked_fill(~seen, 0.0).norm(dim=-1)
    counts = keys > 1
    if mask is not None:
        counts = counts & mask.unsqueeze(1)
    least = torch.full_like(norms, math.inf)
    for visible in keys[counts].unique().tolist():
        rows = counts & (keys == visible)
        least[rows] = entropy_lower_bound(norms[rows], int(visible)).to(least)
    return least.amin((0, 2)).cpu()


def _batched(x: Tensor) -> Tensor:
    """(B, H, ..., N, T) -> (B', H, N, T), e.g. of blocks; without heads: one."""
    if x.dim() < 4:
        return x.reshape(-1, 1, *x.shape[-2:])
    return x.movedim(1, -3).flatten(0, -4)


def _without_stand_ins(x: Tensor) -> Tensor:
    """-inf where a mask put a very low number instead (Hugging Face the lowest there is, others -1e9)."""
    return x.masked_fill(x <= max(_HIDDEN, torch.finfo(x.dtype).min / 2), -math.inf)


def _dim_of(args: Any, kwargs: Any) -> int | None:
    dim: int | None = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return dim


def _tells(module: nn.Module) -> bool:
    return callable(getattr(module, "attention_probs", None))


@contextmanager
def _told_what_runs(
    model: nn.Module,
    running: list[tuple[str, nn.Module]],
    starts: Callable[[nn.Module, Any, Any], None],
) -> Iterator[None]:
    """Keeps a list whose last item is the module that is running, with its name, and says when one starts."""

    def enter(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        running.append((name, module))
        starts(module, args, kwargs)

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True))
        handles.append(module.register_forward_hook(lambda *_: (running.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
