"""Padding changes nothing: neither values nor gradients, on either side."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.testing.check import NotApplicable
from zoo.testing.measure import (
    CLOSE,
    difference,
    gradients_of,
    require,
    require_close,
    require_finite,
    require_same_gradients,
    weights_like,
)
from zoo.testing.subject import Subject


def check_padding_right(subject: Subject) -> None:
    _check_padding(subject, left=False)


def check_padding_left(subject: Subject) -> None:
    _check_padding(subject, left=True)


def check_mask_edges(subject: Subject) -> None:
    for causal in subject.directions:
        module = subject.build(causal=causal)
        n = subject.lengths(9)[-1]
        x = subject.sample(2, n, dtype=torch.float64)
        keep = torch.ones(2, n, dtype=torch.bool)
        plain = subject.run(module, x)
        require_close(subject.run(module, x, keep), plain, CLOSE, f"a mask that keeps all, causal={causal}")
        keep[1] = False
        y = subject.run(module, x, keep)
        require_finite(y, f"a row that keeps no token, causal={causal}")
        require_close(y[0], plain[0], CLOSE, "beside a row that keeps no token, the other row")
        if subject.spec.kind == "mixer":
            require(
                difference(y[1], torch.zeros_like(y[1])) <= CLOSE,
                f"a query that sees no key must give zeros, got up to {y[1].abs().max():.2g}",
            )
        y.sum().backward()
        for name, gradient in gradients_of(module).items():
            require_finite(gradient, f"with a row that keeps no token, the gradient of {name}")


def _check_padding(subject: Subject, *, left: bool) -> None:
    """Two examples of different lengths in one batch against each alone.

    Padding is not zeros but other, larger inputs, so that whoever looks at it is found out.
    """
    lengths = subject.lengths(11, 71)
    for causal in subject.directions:
        for n in lengths:
            short = max(n - 4, getattr(subject.claims, "min_tokens", 1))
            if short == n and n == 1:
                raise NotApplicable("one token leaves no room for padding")
            _check_two_rows(subject, causal=causal, n=n, short=short, left=left)


def _check_two_rows(subject: Subject, *, causal: bool, n: int, short: int, left: bool) -> None:
    side = "left" if left else "right"
    module = subject.build(causal=causal)
    full = subject.sample(2, n, dtype=torch.float64)
    padded = subject.scaled(subject.sample(2, n, seed=5, dtype=torch.float64), 30)
    rows = [full[0], full[1, :short]]
    mask = torch.zeros(2, n, dtype=torch.bool)
    places = [slice(n - len(row), n) if left else slice(0, len(row)) for row in rows]
    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        padded[index, place] = row
        mask[index, place] = True

    x = _leaf(padded)
    y = subject.run(module, x, mask)
    require_finite(y, f"with padding on the {side}")
    kept = list(y)
    if subject.gives_tokens:
        kept = [row[keep] for row, keep in zip(y, subject.kept(module, x, mask), strict=True)]
    loss = torch.stack([(k * weights_like(k)).sum() for k in kept]).sum()
    loss.backward()
    together = gradients_of(module)
    module.zero_grad()

    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        what = f"{len(row)} tokens padded to {n} on the {side}, causal={causal}"
        alone = _leaf(row.unsqueeze(0))
        single = subject.run(module, alone)[0]
        require_close(kept[index], single, CLOSE, what)
        (single * weights_like(single)).sum().backward()
        if x.grad is not None and alone.grad is not None:
            require_close(x.grad[index, place], alone.grad[0], CLOSE, f"{what}: the gradient of the input")
            outside = x.grad[index][~mask[index]]
            require(
                outside.numel() == 0 or outside.abs().max().item() <= CLOSE,
                f"{what}: padding has a gradient, so it is seen",
            )
    require_same_gradients(together, gradients_of(module), CLOSE, f"padding on the {side}")


def _leaf(x: Tensor) -> Tensor:
    return x.clone().requires_grad_(x.is_floating_point())
