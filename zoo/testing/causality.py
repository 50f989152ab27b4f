"""Who sees what: later tokens, other examples, other positions.

Inputs are changed and outputs compared; gradients are blind to what leaks through sorting or routing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.data.random_inputs import normal
from zoo.testing.check import NotApplicable
from zoo.testing.measure import CLOSE, SAME, difference, require, require_close
from zoo.testing.subject import Subject, seeded

#: With approximate causality: the change of earlier outputs, as a share of the largest.
LEAK = 0.05
#: A longer input, for what looks ahead only past the first blocks.
LONG = 300
#: Sizes of changes to later tokens, by kind of causality; tokens are of size 1.
SCALES = {"strict": (1e-3, 1.0, 1e3), "prefix": (1e-3, 1.0, 1e3), "approximate": (1.0,)}


def check_no_future(subject: Subject) -> None:
    kind = getattr(subject.claims, "causality", "strict")
    allowed = LEAK if kind == "approximate" else SAME
    for train in (False, True):
        module = subject.build(train=train)
        for n in subject.lengths(29, 110) if subject.variant else subject.lengths(13, 29, 150):
            x = subject.sample(2, n, dtype=torch.float64)
            y = _run(subject, module, x)
            for start in _cuts(n):
                if kind == "prefix" and start <= n // 2:
                    continue  # the prefix may be read both ways; it ends before the middle
                # A small leak grows with what is changed: then only ordinary tokens come in.
                for how, changed in _futures(subject, x, start, scales=SCALES[kind]):
                    told = subject.told(start)
                    leak = _leak(_run(subject, module, changed)[:, :told], y[:, :told])
                    require(
                        leak <= allowed,
                        f"{how} tokens {start}.. of {n}{' (training)' * train} changed earlier outputs by "
                        f"{leak:.2g} of the largest, allowed {allowed:.0e} ({kind})",
                    )
            if kind == "strict" and not (train and _draws(subject, module, x)):
                _require_cut_alike(subject, module, x, y, where=" (training)" * train)
    if kind == "strict" and subject.spec.kind in ("mixer", "model") and not subject.variant:
        module, n = subject.build(max_tokens=LONG), subject.lengths(LONG)[-1]
        x = subject.sample(2, n, dtype=torch.float64)
        y = _run(subject, module, x)
        for start in _cuts(n)[1:]:
            after = _run(subject, module, subject.later_changed(x, start, scale=1.0))
            leak = _leak(after[:, :start], y[:, :start])
            require(
                leak <= allowed,
                f"changing the tokens {start}.. of {n} changed earlier outputs by {leak:.2g} of the largest, "
                f"allowed {allowed:.0e} ({kind})",
            )
        _require_cut_alike(subject, module, x, y)


def _require_cut_alike(subject: Subject, module: nn.Module, x: Tensor, y: Tensor, *, where: str = "") -> None:
    """That there are later tokens at all changes nothing: their number is the future too."""
    n = x.shape[1]
    for start in _cuts(n):
        if start in subject.lengths(start):
            told = subject.told(start)
            leak = _leak(_run(subject, module, x[:, :start])[:, :told], y[:, :told])
            require(
                leak <= CLOSE,
                f"cutting off the tokens {start}.. of {n}{where} changed earlier outputs by {leak:.2g} of "
                f"the largest, allowed {CLOSE:.0e}",
            )


def _draws(subject: Subject, module: nn.Module, x: Tensor) -> bool:
    """Whether outputs depend on random numbers, as with dropout: other lengths then draw others."""
    with torch.no_grad():
        with seeded(1):
            first = subject.run(module, x)
        with seeded(2):
            return not torch.equal(subject.run(module, x), first)


def check_both_ways(subject: Subject) -> None:
    module = subject.build(causal=False)
    for n in subject.lengths(13):
        if n < 2:
            raise NotApplicable("one token has no later ones")
        x = subject.sample(2, n, dtype=torch.float64)
        y = _run(subject, module, x)
        seen = 0.0
        for start in range(1, n):
            after = _run(subject, module, subject.later_changed(x, start, scale=1.0))
            seen = max(seen, difference(after[:, :start], y[:, :start]))
        require(
            seen > SAME,
            f"built with causal=False, no output of {n} tokens depends on a later token ({seen:.2g})",
        )


def check_rows_apart(subject: Subject) -> None:
    for causal in subject.directions:
        for train in (False, True):
            module = subject.build(causal=causal, train=train)
            for n in subject.lengths(11, 67):
                x = subject.sample(3, n, dtype=torch.float64)
                y = _run(subject, module, x)
                for scale in (1.0, 1e3):
                    changed = x.clone()
                    fresh = subject.sample(3, n, seed=9, dtype=torch.float64)[1]
                    changed[1] = subject.scaled(fresh, scale)
                    after = _run(subject, module, changed)
                    what = f"changing one example by size {scale:g}{' (training)' * train}: the others"
                    require_close(after[::2], y[::2], SAME, what)
            if not train:
                for row in range(3):
                    require_close(
                        _run(subject, module, x[row : row + 1])[0], y[row], CLOSE, "an example alone"
                    )


def check_positions_apart(subject: Subject) -> None:
    module = subject.build()
    if subject.spec.kind == "stem" and not getattr(module, "per_token", False):
        raise NotApplicable("the stem does not say per_token = True")
    x = subject.sample(2, 7, dtype=torch.float64)
    for train in (False, True):
        module.train(train)
        y = _run(subject, module, x)
        for position in range(7):
            changed = subject.later_changed(x, position, scale=10.0)
            changed[:, position + 1 :] = x[:, position + 1 :]
            after = _run(subject, module, changed)
            others = [i for i in range(7) if i != position]
            require_close(after[:, others], y[:, others], SAME, f"changing position {position}: the others")
    if subject.spec.kind == "feed_forward":
        module.eval()
        y = module(x)
        wide = normal((2, 3, 7, subject.width), dtype=torch.float64)
        require(
            module(wide).shape == wide.shape, f"(..., D): {tuple(wide.shape)} -> {tuple(module(wide).shape)}"
        )
        require_close(module(x.flatten(0, 1)), y.flatten(0, 1), CLOSE, "positions as rows (B N, D)")


def _run(subject: Subject, module: nn.Module, x: Tensor) -> Tensor:
    """Outputs with the same dropout each time."""
    with torch.no_grad(), seeded(11):
        return subject.run(module, x)


def _cuts(n: int) -> list[int]:
    return sorted({t for t in (1, n // 3, n // 2 + 1, n - 1) if 0 < t < n})


def _futures(
    subject: Subject, x: Tensor, start: int, *, scales: tuple[float, ...]
) -> Iterator[tuple[str, Tensor]]:
    """x with its tokens from `start` on replaced, in several ways."""
    for seed, scale in enumerate(scales):
        yield f"changing by {scale:g} the", subject.later_changed(x, start, scale=scale, seed=seed + 1)
    turned = x.clone()
    turned[:, start:] = x[:, start:].flip(1)
    yield "turning round the", turned


def _leak(after: Tensor, before: Tensor) -> float:
    """The largest change, relative to the largest output, however small that is; inf where one is NaN."""
    if not before.numel():
        return 0.0  # no output is settled yet
    change = (after - before).abs().max().item()
    share = change / max(before.abs().max().item(), 1e-30)
    return share if share == share else float("inf")
