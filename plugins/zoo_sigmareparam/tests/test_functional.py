"""Power iteration, the reparametrised weight, attention entropy and its bound, against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from zoo_sigmareparam import (
    attention_entropy,
    entropy_lower_bound,
    power_iterate,
    reference,
    sigma_reparam_weight,
    spectral_sigma,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(rows: int, columns: int, values: list[float]) -> Tensor:
    left, _ = torch.linalg.qr(drawn(rows, len(values)))
    right, _ = torch.linalg.qr(drawn(columns, len(values), seed=1))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


WEIGHTS = {
    "tall": drawn(9, 4),
    "wide": drawn(4, 9),
    "square": drawn(6, 6),
    "tiny gap": with_singular_values(6, 5, [5.0, 4.99, 1.0]),
    "rank 1": with_singular_values(5, 6, [3.0]),
    "one row": drawn(1, 7),
    "one column": drawn(7, 1),
}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_power_iteration_is_the_references_step_by_step(weight: Tensor) -> None:
    u = expected = drawn(weight.shape[1], seed=2)
    for _ in range(12):
        u, v = power_iterate(weight, u)
        expected, expected_v = reference.one_iteration(weight, expected)
        torch.testing.assert_close(u, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(v, expected_v, rtol=0, atol=1e-14)
    at_once, _ = power_iterate(weight, drawn(weight.shape[1], seed=2), 12)
    torch.testing.assert_close(at_once, u, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_weight_and_gradients_are_the_references_before_convergence(weight: Tensor) -> None:
    gamma, u = torch.tensor(1.7, dtype=torch.float64), drawn(weight.shape[1], seed=2)
    results = []
    for ours in (True, False):
        w, g = weight.clone().requires_grad_(), gamma.clone().requires_grad_()
        if ours:
            made = sigma_reparam_weight(w, g, *power_iterate(w, u))
        else:
            made, _ = reference.reparametrised(w, g, u, training=True)
        (made * drawn(*weight.shape, seed=3)).sum().backward()
        results.append((made.detach(), w.grad, g.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_gradients_are_the_closed_form() -> None:
    weight, gamma, cotangent = drawn(5, 7).requires_grad_(), torch.tensor(0.8).double(), drawn(5, 7, seed=4)
    gamma.requires_grad_()
    u, v = power_iterate(weight, drawn(7, seed=2))
    (sigma_reparam_weight(weight, gamma, u, v) * cotangent).sum().backward()
    sigma, inner = spectral_sigma(weight, u, v).detach(), (cotangent * weight).sum().detach()
    torch.testing.assert_close(gamma.grad, inner / sigma)
    by_hand = gamma / sigma * (cotangent - inner / sigma * torch.outer(v, u))
    torch.testing.assert_close(weight.grad, by_hand.detach())


@pytest.mark.parametrize("maps", [1, 2])
def test_second_derivatives_and_vmap(maps: int) -> None:
    weight, gamma = torch.randn(maps, 4, 3, dtype=torch.float64), torch.rand(maps, dtype=torch.float64) + 0.5
    u, v = power_iterate(weight, torch.ones(maps, 3, dtype=torch.float64))
    leaves = (weight.requires_grad_(), gamma.requires_grad_())
    assert torch.autograd.gradcheck(lambda w, g: sigma_reparam_weight(w, g, u, v), leaves)
    assert torch.autograd.gradgradcheck(lambda w, g: sigma_reparam_weight(w, g, u, v), leaves)
    each = torch.func.vmap(sigma_reparam_weight)(weight, gamma, u, v)
    torch.testing.assert_close(each, sigma_reparam_weight(weight, gamma, u, v))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3)
)
def test_the_scale_of_the_weight_does_not_matter(rows: int, columns: int, seed: int, scale: float) -> None:
    weight, u = drawn(rows, columns, seed=seed).requires_grad_(), drawn(columns, seed=seed + 1)
    gamma = torch.tensor(1.3, dtype=torch.float64)
    made = sigma_reparam_weight(weight, gamma, *power_iterate(weight, u))
    (gradient,) = torch.autograd.grad((made * drawn(rows, columns, seed=seed + 2)).sum(), weight)
    assert abs((gradient * weight).sum().item()) < 1e-9
    scaled = (scale * weight).detach()
    other = sigma_reparam_weight(scaled, gamma, *power_iterate(scaled, u))
    torch.testing.assert_close(other, made.detach(), rtol=1e-9, atol=1e-12)
    # The estimate is a lower bound, so the norm is never below gamma.
    assert torch.linalg.matrix_norm(made, 2) >= gamma - 1e-9


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name != "tiny gap"])
def test_the_norm_becomes_gamma(name: str) -> None:
    weight, gamma = WEIGHTS[name], torch.tensor(2.5, dtype=torch.float64)
    u, v = power_iterate(weight, drawn(weight.shape[1], seed=2), 30)
    norm = torch.linalg.matrix_norm(sigma_reparam_weight(weight, gamma, u, v), 2)
    torch.testing.assert_close(norm, gamma, rtol=1e-4, atol=0)


def test_several_maps_at_once_are_each_by_itself() -> None:
    weight, gamma, u = drawn(3, 4, 5), torch.tensor([1.0, 2.0, 3.0]).double(), drawn(3, 5, seed=2)
    together = sigma_reparam_weight(weight, gamma, *power_iterate(weight, u, 3))
    apart = [
        sigma_reparam_weight(w, g, *power_iterate(w, x, 3)) for w, g, x in zip(weight, gamma, u, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(apart))


def test_a_zero_matrix_gives_zeros() -> None:
    weight = torch.zeros(3, 4, requires_grad=True)
    u, v = power_iterate(weight, torch.ones(4))
    made = sigma_reparam_weight(weight, torch.tensor(2.0), u, v)
    made.sum().backward()
    assert torch.equal(made, torch.zeros(3, 4)) and weight.grad is not None and weight.grad.isfinite().all()


def test_arithmetic_is_float32_under_autocast_and_for_half_weights() -> None:
    weight, u = drawn(64, 48).float(), drawn(48, seed=2).float()
    exact = spectral_sigma(weight, *power_iterate(weight, u, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u5, v5 = power_iterate(weight, u, 5)
        sigma = spectral_sigma(weight, u5, v5)
        made = sigma_reparam_weight(weight, torch.tensor(1.0), u5, v5)
    assert sigma.dtype == u5.dtype == made.dtype == torch.float32
    torch.testing.assert_close(sigma, exact, rtol=1e-5, atol=0)
    half = weight.bfloat16()
    u5, v5 = power_iterate(half, u, 5)
    assert u5.dtype == torch.float32 and spectral_sigma(half, u5, v5).dtype == torch.float32
    assert sigma_reparam_weight(half, torch.tensor(1.0), u5, v5).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: power_iterate(torch.ones(2, 3), torch.ones(3), 0), "n must be at least 1, got 0"),
        (lambda: power_iterate(torch.ones(2, 3), torch.ones(2)), r"expected u of shape \(3,\)"),
        (lambda: power_iterate(torch.ones(3), torch.ones(3)), r"a weight \(..., m, n\), got \(3,\)"),
        (
            lambda: spectral_sigma(torch.ones(2, 3), torch.ones(2), torch.ones(3)),
            r"expected u of shape \(3,\)",
        ),
        (
            lambda: sigma_reparam_weight(torch.ones(2, 3), torch.tensor(1.0), torch.ones(3), torch.ones(3)),
            r"expected v of shape \(2,\) for a weight of \(2, 3\), got \(3,\)",
        ),
        (
            lambda: sigma_reparam_weight(torch.ones(2, 3), torch.ones(2), torch.ones(3), torch.ones(2)),
            r"expected gamma of shape \(\)",
        ),
        (lambda: attention_entropy(), "give either probs or logits="),
        (lambda: attention_entropy(torch.ones(1, 1, 1, 1), logits=torch.ones(1, 1, 1, 1)), "give either"),
        (
            lambda: attention_entropy(torch.ones(2, 1, 3, 3), mask=torch.ones(2, 2).bool()),
            r"of bool \(2, 3\)",
        ),
        (lambda: attention_entropy(torch.ones(3, 4)), r"\(B, H, N, T\) of floating point.*shape \(3, 4\)"),
        (lambda: attention_entropy(torch.ones(1, 1, 3, 4).long()), "got torch.int64"),
        (lambda: attention_entropy(-torch.ones(1, 1, 3, 4)), "below 0; give logits as logits="),
        (lambda: attention_entropy(torch.ones(1, 1, 3, 4), reduce="rows"), "or None, got 'rows'"),  # type: ignore[arg-type]
        (lambda: entropy_lower_bound(1.0, 1), "at least 2 keys, got 1"),
        (lambda: entropy_lower_bound(-1.0, 4), "at least 0; got -1"),
    ],
)
def test_mistakes_are_sentences(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]


# -- entropy -----------------------------------------------------------------------------------


def test_entropy_from_probabilities_logits_and_the_reference() -> None:
    logits, mask = 3 * drawn(2, 3, 5, 7), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    logits[..., 5:] = -math.inf
    probs = logits.softmax(-1)
    expected = reference.entropy(probs, mask)
    for reduce in ("head", "mean"):
        torch.testing.assert_close(attention_entropy(probs, mask=mask, reduce=reduce).mean(), expected)
        found = attention_entropy(logits=logits, mask=mask, reduce=reduce).mean()
        torch.testing.assert_close(found, expected)
    rows = attention_entropy(probs, mask=mask, reduce=None)
    assert rows.shape == (2, 3, 5) and rows[1, :, 2:].isnan().all() and rows[0].isfinite().all()


def test_entropy_knows_its_extremes() -> None:
    assert attention_entropy(logits=torch.zeros(1, 1, 4, 8)).item() == pytest.approx(math.log(8))
    one_hot = torch.eye(6)[None, None]
    assert attention_entropy(one_hot).item() == 0
    assert attention_entropy(logits=1e4 * one_hot).item() == 0  # a logarithm of these would be -inf


def test_normalised_entropy_of_causal_rows_is_one_when_uniform() -> None:
    logits = torch.zeros(2, 3, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    torch.testing.assert_close(attention_entropy(logits=logits, normalized=True), torch.ones(3))
    nothing_seen = torch.full((1, 1, 2, 3), -math.inf)
    nothing_seen[0, 0, 0] = 0.0
    assert attention_entropy(logits=nothing_seen, reduce=None).isnan().tolist() == [[[False, True]]]


@pytest.mark.parametrize("keys", range(2, 42))
def test_the_bound_is_never_violated(keys: int) -> None:
    """Ten thousand cases in all: tokens and weights of 16 widths, from 0.01 to 3 in size."""
    cases, violated = 250, 0
    sizes = 10 ** (2.5 * torch.rand(cases, 1, 1, generator=torch.Generator().manual_seed(keys)).double() - 2)
    for width in range(1, 17):
        some = sizes[width - 1 :: 16]
        shapes = ((keys, width), (width, width), (width, width))
        x, w_q, w_k = (
            some * drawn(len(some), *shape, seed=100 * keys + 3 * width + i) for i, shape in enumerate(shapes)
        )
        total = torch.linalg.matrix_norm(w_k @ w_q.mT, 2) * torch.linalg.matrix_norm(x @ x.mT, 2)
        entropy = attention_entropy(logits=(x @ w_k @ w_q.mT @ x.mT).unsqueeze(1), reduce=None)
        gap = entropy.amin((1, 2)) - entropy_lower_bound(total, keys)
        violated += int((gap < -1e-9).sum())
        cases -= len(gap)
    assert cases == 0 and violated == 0


@pytest.mark.parametrize("keys", [2, 3, 17, 197])
@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 4.0, 16.0])
def test_the_bound_is_attained(keys: int, s: float) -> None:
    row = torch.full((keys,), -s / math.sqrt(keys * (keys - 1)), dtype=torch.float64)
    row[0] = s * math.sqrt((keys - 1) / keys)
    assert row.norm().item() == pytest.approx(s)
    found = attention_entropy(logits=row.expand(1, 1, 1, -1))
    torch.testing.assert_close(found[0], entropy_lower_bound(s, keys), rtol=0, atol=1e-12)


def test_the_bound_has_the_values_of_the_specification() -> None:
    values = [entropy_lower_bound(s, 197).item() for s in (1.0, 4.0, 8.0, 16.0)]
    assert values == pytest.approx([5.28, 4.65, 0.55, 0.0004], rel=0.02, abs=1e-4)
