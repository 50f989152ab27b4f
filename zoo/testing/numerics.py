"""Shapes, types, finite numbers, and equality with a slow and obvious form. B batch, N tokens, D width."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.kinds import Forecast, Maps, NextEvent
from zoo.testing.check import ConformanceError, NotApplicable
from zoo.testing.measure import (
    CLOSE,
    gradients_of,
    require,
    require_close,
    require_finite,
    require_same_gradients,
    weights_like,
)
from zoo.testing.subject import HeadSubject, ModelSubject, StemSubject, Subject, subject_of

#: Above the blocks that fast forms work in (commonly 16 to 128), and a prime: no block divides it.
PRIME = 131
#: How far bfloat16 (8 bits of mantissa) may be from float32, relative to the largest output.
COARSE = 0.1


def check_shapes(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal, dtype=torch.float32)
        for batch in (1, 2, 7):
            for n in subject.lengths(1, 2, 7, PRIME):
                x = subject.sample(batch, n)
                _require_shape(
                    subject, module, x, f"batch {batch}, {n} tokens" if subject.takes_tokens else ""
                )


def check_longer(subject: Subject) -> None:
    short, long = 16, 37
    if short < subject.claims.min_tokens:
        short, long = subject.claims.min_tokens, 2 * subject.claims.min_tokens + 1
    for causal in subject.directions:
        module = subject.build(causal=causal, dtype=torch.float32, max_tokens=short)
        try:
            y = subject.run(module, subject.sample(2, long))
        except (ValueError, ZooError) as error:
            require(
                "max_tokens" in str(error), f"{long} tokens are refused without naming max_tokens: {error}"
            )
            continue
        except Exception as error:
            raise ConformanceError(
                f"built for {short} tokens, {long} end in {type(error).__name__}: {error}; "
                "work, or raise a ValueError that names max_tokens"
            ) from error
        require_finite(y, f"{long} tokens where {short} were expected")
        require(y.shape[:2] == (2, long), f"{long} tokens give shape {tuple(y.shape)}")


def check_dtype(subject: Subject) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        module = subject.build(dtype=dtype)
        x = subject.sample(2, subject.lengths(11)[-1], dtype=dtype)
        y = subject.run(module, x)
        require(y.dtype == dtype, f"with weights of {dtype} outputs are {y.dtype}")
        require_finite(y, f"outputs in {dtype}")


def check_finite(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal, dtype=torch.float32, train=True)
        for n in subject.lengths(1, 11, PRIME):
            x = subject.sample(2, n)
            scaled = [subject.scaled(x, scale) for scale in (0.0, 1.0, 1e3)]
            for values, what in zip(scaled, ("zeros", "normal inputs", "inputs of size 1000"), strict=False):
                _require_finite_both_ways(subject, module, values, f"{what}, {n} tokens")


def check_autocast(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal, dtype=torch.float32)
        x = subject.sample(2, subject.lengths(33)[-1])
        expected = subject.run(module, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = subject.run(module, x)
        require(y.dtype in (torch.bfloat16, torch.float32), f"under bfloat16 autocast outputs are {y.dtype}")
        require_close(y, expected, COARSE, "under bfloat16 autocast, against float32")
        if y.requires_grad:  # not so without parameters
            y.float().square().mean().backward()
        for name, gradient in gradients_of(module).items():
            require_finite(gradient, f"under bfloat16 autocast, the gradient of {name}")


def check_reference(subject: Subject) -> None:
    module_name, _, attribute = subject.claims.reference.partition(":")
    reference = getattr(importlib.import_module(module_name), attribute)
    for causal in subject.directions:
        module = subject.build(causal=causal)
        for n in subject.lengths(*((1, 7, 29) if subject.variant else (1, 2, 7, 67, PRIME))):
            for masked in (False, True) if subject.takes_tokens else (False,):
                mask = _ragged_mask(n) if masked else None
                _require_equal_forms(
                    subject,
                    module,
                    reference,
                    n,
                    mask,
                    f"the fast form, causal={causal}, {n} tokens, {masked=}",
                )


def check_attention_probs(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal)
        tell = getattr(module, "attention_probs", None)
        if tell is None:
            raise NotApplicable("it has no attention_probs")
        for n in subject.lengths(1, 7, 67):
            x = subject.sample(2, n, dtype=torch.float64)
            for mask in (None, _ragged_mask(n)):
                what = f"attention_probs, causal={causal}, {n} tokens"
                with torch.no_grad():
                    _require_probabilities(tell(x, mask=mask), mask, n, causal=causal, what=what)


def _require_probabilities(probs: Tensor, mask: Tensor | None, n: int, *, causal: bool, what: str) -> None:
    good = probs.dim() == 4 and (probs.shape[0], *probs.shape[2:]) == (2, n, n)
    require(good, f"{what}: expected (2, heads, {n}, {n}), got {tuple(probs.shape)}")
    require(probs.min().item() >= -CLOSE, f"{what}: as low as {probs.min():.2g}")
    keep = torch.ones(2, n, dtype=torch.bool) if mask is None else mask
    sums = probs.sum(-1).transpose(1, 2)[keep]
    require_close(sums, torch.ones_like(sums), CLOSE, f"{what}: the sums of rows")
    hidden = ~keep[:, None, None].expand_as(probs)
    if causal:
        hidden = hidden | torch.ones(n, n, dtype=torch.bool).triu(1)
    unseen = probs[hidden]
    require_close(unseen, torch.zeros_like(unseen), CLOSE, f"{what}: what is not to be seen")


def check_exact(subject: Subject) -> None:
    require(
        not isinstance(subject, ModelSubject),
        "exact_when is checked on mixers; claim it there, or give the model a reference",
    )
    exact = subject_of(subject.spec, subject.catalogue, params=subject.claims.exact_when)
    for causal in exact.directions:
        module = exact.build(causal=causal)

        def softmax(module: Any, x: Tensor, *, mask: Tensor | None = None, causal: bool = causal) -> Tensor:
            return naive_softmax(module, x, mask=mask, causal=causal)

        for n in exact.lengths(1, 7, 67):
            for mask in (None, _ragged_mask(n)):
                what = f"exact_when, causal={causal}, {n} tokens, against softmax attention"
                _require_equal_forms(exact, module, softmax, n, mask, what)


def naive_softmax(module: Any, x: Tensor, *, mask: Tensor | None, causal: bool) -> Tensor:
    """Softmax attention with the weights of `module`: x (B, N, D) -> (B, N, D); zeros where no key is seen.

    The module holds linear maps called `qkv` and `out`, or `query`, `key`, `value` and `out`, and `heads`.
    """
    if hasattr(module, "qkv"):
        q, k, v = module.qkv(x).chunk(3, dim=-1)
    elif hasattr(module, "query"):
        q, k, v = module.query(x), module.key(x), module.value(x)
    else:
        raise ConformanceError(
            "exact_when needs linear maps called qkv and out, or query, key, value and out, to compare with"
        )
    q, k, v = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, N, d)
    n = x.shape[1]
    allowed = torch.ones(n, n, dtype=torch.bool)
    allowed = (allowed.tril() if causal else allowed)[None, None]
    if mask is not None:
        allowed = allowed & mask[:, None, None, :]
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf"))
    sees = allowed.any(-1, keepdim=True)  # (B or 1, 1, N, 1)
    weights = scores.masked_fill(~sees, 0.0).softmax(-1) * sees
    mixed = module.out((weights @ v).transpose(1, 2).flatten(2))
    return mixed * sees[:, 0]


def _ragged_mask(n: int) -> Tensor:
    """Two rows: padding on the right, padding on the left. bool (2, N)."""
    keep = torch.arange(n)
    cut = n // 3
    return torch.stack((keep < n - cut, keep >= cut))


def _require_equal_forms(
    subject: Subject, module: nn.Module, form: Any, n: int, mask: Tensor | None, what: str
) -> None:
    found: list[Any] = []
    expected: list[Any] = []
    for run, results in ((subject.run, found), (form, expected)):
        module.zero_grad()
        x = subject.sample(2, n, dtype=torch.float64).requires_grad_()
        y = run(module, x, mask=mask) if mask is not None else run(module, x)
        if mask is not None:
            y = y.masked_fill(~mask.unsqueeze(-1), 0.0)  # what a padded position says is not defined
        (y * weights_like(y)).sum().backward()
        results += [y, x.grad, gradients_of(module)]
    require_close(found[0], expected[0], CLOSE, f"{what}: values")
    require_close(found[1], expected[1], CLOSE, f"{what}: the gradient of the input")
    require_same_gradients(found[2], expected[2], CLOSE, what)


def _require_shape(subject: Subject, module: nn.Module, x: Tensor, what: str) -> None:
    y = subject.run(module, x)
    require_finite(y, what)
    if isinstance(subject, StemSubject):
        _require_stemmed(subject, module, x)
    elif isinstance(subject, HeadSubject):
        leading = x.shape[:2] if subject.gives_tokens else x.shape[:1]
        answer: tuple[int, ...] = (subject.targets.outputs,)
        if isinstance(subject.targets, NextEvent):
            answer = (y.shape[-2], *answer)  # as many components as it likes
        if isinstance(subject.targets, Forecast):
            answer = (subject.targets.horizon, subject.targets.channels)
        before: tuple[int, ...] = (subject.width,)
        pooled = module(x, pre_logits=True)
        if isinstance(subject.targets, Maps):  # of a width of their own
            size = (subject.targets.height, subject.targets.width)
            answer, before = (*answer, *size), (pooled.shape[1], *size)
        _equal_shapes(y, (*leading, *answer), what)
        _equal_shapes(pooled, (*leading, *before), f"{what}, pre_logits")
    elif isinstance(subject, ModelSubject) and subject.claims.accepts == "image":
        features = getattr(module, "num_features", subject.width)
        require(y.dim() in (2, 4), f"features have shape {tuple(y.shape)}, expected (B, D) or (B, D, H, W)")
        _equal_shapes(y[:, :features], (x.shape[0], features, *y.shape[2:]), what)
    else:
        features = getattr(module, "num_features", subject.width)
        _equal_shapes(y, (*x.shape[:-1], features), what)


def _require_stemmed(subject: StemSubject, module: nn.Module, x: Tensor) -> None:
    """A stem gives as many tokens as its config says, and the mask of them."""
    y, mask = module(x, mask=None)
    require(mask is None, f"without a mask the stem gives {mask!r}")
    said = subject.config.tokens(subject.inputs)
    if subject.spec.returns == "vector":  # type: ignore[attr-defined]
        require(said is None, f"the config's tokens() says {said}, but the stem gives vectors")
        _equal_shapes(y, (x.shape[0], subject.width), "the stem")
        return
    if not subject.takes_tokens or x.shape[1] == getattr(subject.inputs, "length", None):
        _equal_shapes(y, (x.shape[0], said, subject.width), "the config's tokens() and the stem")
    if subject.takes_tokens:
        keep = torch.ones(x.shape[:2], dtype=torch.bool)
        y, mask = module(x, mask=keep)
        require(
            mask is not None and mask.dtype == torch.bool and mask.shape == y.shape[:2],
            "given a mask, the stem must give a bool mask (B, N) of its tokens",
        )


def _equal_shapes(y: Tensor, expected: tuple[Any, ...], what: str) -> None:
    require(tuple(y.shape) == expected, f"{what}: shape {tuple(y.shape)}, expected {expected}")


def _require_finite_both_ways(subject: Subject, module: nn.Module, x: Tensor, what: str) -> None:
    module.zero_grad()
    if x.is_floating_point():
        x = x.clone().requires_grad_()
    y = subject.run(module, x)
    require_finite(y, f"outputs for {what}")
    y.mean().backward()
    for name, gradient in gradients_of(module).items():
        require_finite(gradient, f"the gradient of {name} for {what}")
    if x.grad is not None:
        require_finite(x.grad, f"the gradient of the input for {what}")
