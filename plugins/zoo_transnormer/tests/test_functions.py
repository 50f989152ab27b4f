"""Slopes, norm, positions, and the two attentions of the first TransNormer."""

from __future__ import annotations

import math

import pytest
import torch
from zoo_transnormer import decay_slopes, diag_attention, linear_attention_bidirectional, lrpe, srms_norm

TABLES = {
    ("alibi", 8, 0, 24): [2**-h * (1 + 1e-5) for h in range(1, 9)],
    ("alibi", 8, 23, 24): [2**-h * 1e-5 for h in range(1, 9)],
    ("alibi", 3, 0, 2): [x * (1 + 1e-5) for x in (0.0625, 0.00390625, 0.25)],  # not sorted: as published
    ("minimax", 3, 0, 2): [x * (1 + 1e-5) for x in (2 ** (-8 / 3), 2 ** (-16 / 3), 2**-8)],
    ("minimax", 8, 1, 3): [2**-h * (1 - 1 / (2 + 1e-5) + 1e-5) for h in range(1, 9)],
    ("paper", 8, 0, 24): [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    ("paper", 4, 3, 4): [0.0, 0.5, 1.0, 1.5],
    ("none", 2, 0, 4): [0.0, 0.0],
    ("alibi", 2, 0, 1): [2**-4, 2**-8],  # one layer: no division by zero
    ("minimax", 2, 0, 1): [2**-4, 2**-8],
}


@pytest.mark.parametrize("case", TABLES, ids=lambda c: f"{c[0]}-H{c[1]}-l{c[2]}of{c[3]}")
def test_slopes(case):
    schedule, heads, layer, layers = case
    slopes = decay_slopes(heads, layer, layers, schedule)
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, torch.tensor(TABLES[case]), rtol=1e-6, atol=0)


def test_alibi_of_forty_heads():
    slopes = decay_slopes(40, schedule="alibi")
    torch.testing.assert_close(slopes[:32], torch.tensor([2 ** (-h / 4) for h in range(1, 33)]))
    torch.testing.assert_close(slopes[32:], torch.tensor([2 ** (-h / 8) for h in range(1, 17, 2)]))


def test_half_lives_of_layer_zero():
    """The schedules are not one another: in tokens, for 8 heads, first and last head."""
    half = {name: math.log(2) / decay_slopes(8, 0, 24, name)[-1].item() for name in ("alibi", "paper")}
    assert half["alibi"] == pytest.approx(177, rel=0.01) and half["paper"] == pytest.approx(0.1, rel=0.02)


def test_srms_norm():
    x = torch.randn(3, 5, 32) * 7
    torch.testing.assert_close(srms_norm(x).square().mean(-1), torch.ones(3, 5), rtol=1e-5, atol=0)
    torch.testing.assert_close(srms_norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    assert not srms_norm(torch.zeros(2, 8)).any()
    assert srms_norm(1000 * x.half()).isfinite().all()  # squares would overflow float16


def test_lrpe_scores_depend_on_the_distance_only():
    q, k, theta = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4)
    rows = [x.double()[None, :, None].expand(1, 3, 9, 4) for x in (q, k)]
    scores = torch.einsum("bhtd,bhsd->bhts", *(lrpe(x, theta.double(), 11) for x in rows))
    distance = torch.arange(9)[:, None] - torch.arange(9)
    expected = (
        (q * k).double()[:, None, None] * (theta.double()[:, None, None] * distance[..., None]).cos()
    ).sum(-1)
    torch.testing.assert_close(scores[0], expected)


def test_lrpe_angles_are_float32():
    """In bfloat16 positions above 256 are rounded."""
    x, theta = torch.ones(1, 1, 4, 3), torch.tensor([[1.0, 0.5, 0.125]])
    found = lrpe(x.bfloat16(), theta.bfloat16(), 5001)
    torch.testing.assert_close(found.float(), lrpe(x, theta, 5001), rtol=0, atol=4e-3)
    by_row = lrpe(x.expand(2, 1, 4, 3), theta, torch.tensor([0, 5001]))
    assert torch.equal(by_row[1:], lrpe(x, theta, 5001)) and torch.equal(by_row[:1], lrpe(x, theta))


def test_bidirectional_is_the_left_product():
    q, k, v = (torch.randn(2, 3, 50, d, dtype=torch.float64) for d in (4, 4, 5))
    torch.testing.assert_close(linear_attention_bidirectional(q, k, v), (q @ k.mT) @ v)
    mask = torch.rand(2, 50) > 0.4
    found = linear_attention_bidirectional(q, k, v, key_padding_mask=mask)
    for row in range(2):
        alone = linear_attention_bidirectional(*(x[row : row + 1, :, mask[row]] for x in (q, k, v)))
        torch.testing.assert_close(found[row : row + 1, :, mask[row]], alone)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 8, 19])
def test_diag_attention(tokens, causal):
    """Block by block by hand; causal softmax weights sum to 1 over what is seen, not over the future."""
    q, k, v = (torch.randn(2, 3, tokens, 4, dtype=torch.float64) for _ in range(3))
    for kind in ("softmax", "relu"):
        expected = []
        for start in range(0, tokens, 8):
            one = [x[:, :, start : start + 8] for x in (q, k, v)]
            scores = one[0] @ one[1].mT / 2
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool)
            seen = seen.tril() if causal else seen
            if kind == "softmax":
                weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
                assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))
            else:
                weights = scores.relu() * seen
            expected.append(weights @ one[2])
        found = diag_attention(q, k, v, 8, kind, causal=causal)
        torch.testing.assert_close(found, torch.cat(expected, 2))


@pytest.mark.parametrize("exporting", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "relu"])
def test_blocks_count_kept_tokens(kind, exporting, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    q, k, v = (torch.randn(2, 3, 30, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(2, 30) > 0.3
    mask[0, :9] = False  # padding on the left: blocks begin with the first kept token
    noisy = [x.masked_fill(~mask[:, None, :, None], torch.nan) for x in (q, k, v)]
    for causal in (False, True):
        found = diag_attention(*noisy, block=8, kind=kind, causal=causal, key_padding_mask=mask)
        assert (found.masked_select(~mask[:, None, :, None]) == 0).all()
        for row in range(2):
            alone = [x[row : row + 1, :, mask[row]] for x in (q, k, v)]
            expected = diag_attention(*alone, block=8, kind=kind, causal=causal)
            torch.testing.assert_close(found[row : row + 1, :, mask[row]], expected)
