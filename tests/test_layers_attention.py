"""Softmax attention: the fast form is the slow one, windows are bands, streams equal the parallel form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.layers import Rotary, SoftmaxAttention, SoftmaxConfig, attend
from zoo.layers.attention import MIN_BLOCK
from zoo.layers.reference import softmax_attention

WIDTH, HEADS = 16, 2
WINDOWS = (1, 3, 40)


def layer(*, causal: bool, window: int | None = None, rope: bool = True, **options: Any) -> SoftmaxAttention:
    torch.manual_seed(0)
    rotary = Rotary(head_width=WIDTH // HEADS) if rope else None
    config = SoftmaxConfig(window=window, **options)
    module = SoftmaxAttention(config, width=WIDTH, heads=HEADS, causal=causal, rotary=rotary)
    torch.nn.init.normal_(module.qkv.bias)
    torch.nn.init.normal_(module.out.bias)
    for norm in (module.query_norm, module.key_norm):
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)
    return module.double()


def tokens(n: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def ragged(n: int) -> Tensor:
    """Padding on the right, on the left, none, and everything padded."""
    mask = torch.ones(4, n, dtype=torch.bool)
    mask[0, n // 2 + 1 :] = False
    mask[1, : n // 3] = False
    mask[3] = False
    return mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_fast_equals_the_reference(causal: bool, window: int | None, masked: bool) -> None:
    module = layer(causal=causal, window=window)
    for n in (1, 2, 9):
        x, mask = tokens(n, 4), ragged(n) if masked else None
        expected = softmax_attention(module, x, mask=mask)
        torch.testing.assert_close(module(x, mask=mask), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["layer", "rms", "srms"])
def test_norms_of_queries_and_keys_equal_the_reference(norm: str) -> None:
    module = layer(causal=True, qk_norm=norm)
    x, mask = tokens(9, 4), ragged(9)
    torch.testing.assert_close(module(x, mask=mask), softmax_attention(module, x, mask=mask))
    state, streamed = module.initial_state(4), []
    for piece in x.split(4, dim=1):
        y, state = module.step(piece, state)
        streamed.append(y)
    torch.testing.assert_close(torch.cat(streamed, 1), module(x))


def test_normed_logits_are_bounded_whatever_the_weights() -> None:
    """By the width of a head's root: its attention cannot collapse; without norms it does."""
    sizes = {}
    for norm in ("none", "srms"):
        module = layer(causal=False, qk_norm=norm)
        with torch.no_grad():
            module.qkv.weight.mul_(1000)
        q, k, _ = module._project(tokens(7), torch.arange(7).expand(2, -1))
        sizes[norm] = ((q @ k.mT).abs().max() / q.shape[-1] ** 0.5).item()
    assert sizes["srms"] <= (WIDTH / HEADS) ** 0.5 + 1e-9 and sizes["none"] > 1e4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("window", "n"), [(w, n) for w in WINDOWS for n in (1, 2, 7, w, w + 1, 3 * w + 1, 3 * MIN_BLOCK + 1)]
)
def test_a_window_is_a_band(window: int, n: int, causal: bool) -> None:
    """Values and gradients equal dense attention under a band mask, from queries that also look back."""
    mask = torch.ones(2, n + 2, dtype=torch.bool)
    mask[0, -(n // 3) :] = n < 3
    for past in (0, 2):
        q = torch.randn(2, HEADS, n, 4, dtype=torch.float64, requires_grad=True)
        k, v = torch.randn(2, 2, HEADS, n + past, 4, dtype=torch.float64, requires_grad=True)
        keep = mask[:, : n + past]
        back = torch.arange(n)[:, None] + past - torch.arange(n + past)
        band = (back.abs() < window) & (back >= 0) if causal else back.abs() < window
        scores = (q @ k.mT / 2).masked_fill(~(band & keep[:, None])[:, None], -1e30)
        seen = (band & keep[:, None]).any(-1)
        dense = (scores.softmax(-1) @ v) * seen[:, None, :, None]
        blocked, sees = attend(q, k, v, causal=causal, window=window, mask=keep)
        torch.testing.assert_close(blocked, dense)
        assert sees is not None and torch.equal(sees, seen)
        weight = torch.randn_like(dense)
        for ours, theirs in zip(
            torch.autograd.grad((blocked * weight).sum(), (q, k, v)),
            torch.autograd.grad((dense * weight).sum(), (q, k, v)),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_a_window_takes_linear_memory() -> None:
    """No tensor of the blocked form is anywhere near N x N, forward or backward."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for item in result if isinstance(result, tuple) else (result,):
                if isinstance(item, Tensor):
                    largest = max(largest, item.numel())
            return result

    n = 2048
    module = layer(causal=True, window=16).float()
    x = torch.randn(1, n, WIDTH, requires_grad=True)
    with Watch():
        module(x).sum().backward()
    assert largest <= n * 4 * (MIN_BLOCK + 16)  # against n * 2048 * heads for one dense score matrix


@pytest.mark.parametrize("window", [None, 4])
def test_causal_attention_does_not_see_the_future(window: int | None) -> None:
    module, x = layer(causal=True, window=window), tokens(12)
    changed = x.clone()
    changed[:, 7:] += 1.0
    before, after = module(x), module(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.isclose(before[:, 7:], after[:, 7:]).all(-1).any()


def test_a_window_bounds_what_is_seen() -> None:
    module, x = layer(causal=True, window=4, rope=False), tokens(40)
    changed = x.clone()
    changed[:, 5] += 1.0
    differs = ~torch.isclose(module(x), module(changed)).all(-1).all(0)
    assert differs.nonzero().flatten().tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("window", [None, 3, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(causal: bool, window: int | None) -> None:
    module, x, n = layer(causal=causal, window=window), tokens(10), 10
    expected = module(x)
    for left, right in ((0, 5), (5, 0), (3, 2)):
        padded = torch.nn.functional.pad(x, (0, 0, left, right), value=7.0)
        mask = torch.zeros(2, n + 5, dtype=torch.bool)
        mask[:, left : left + n] = True
        torch.testing.assert_close(module(padded, mask=mask)[:, left : left + n], expected)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_a_row_without_tokens_gives_zeros_and_finite_gradients(causal: bool, window: int | None) -> None:
    module, x = layer(causal=causal, window=window), tokens(50).requires_grad_()
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[1] = False
    y = module(x, mask=mask)
    assert torch.equal(y[1], torch.zeros_like(y[1]))
    y.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (x, *module.parameters()))
    assert torch.equal(x.grad[1], torch.zeros_like(x.grad[1]))


@pytest.mark.parametrize("first", [0, 11])
@pytest.mark.parametrize("size", [1, 3, 7, 45])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_streamed_equals_parallel(window: int | None, size: int, first: int) -> None:
    module, x = layer(causal=True, window=window), tokens(60)
    state = module.initial_state(2)
    outputs = []
    pieces = ([x[:, :first]] if first else []) + list(x[:, first:].split(size, dim=1))
    for piece in pieces:
        y, state = module.step(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), module(x))
    assert state.position.tolist() == [60, 60]
    assert state.keys.shape[2] == (60 if window is None else window - 1)
    assert state.keys.untyped_storage().nbytes() == state.keys.numel() * 8


def test_a_bidirectional_layer_does_not_stream() -> None:
    with pytest.raises(ValueError, match="causal=True"):
        layer(causal=False).initial_state(1)


def test_rotary_products_depend_on_the_distance_only() -> None:
    rotary = Rotary(head_width=8)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(i: int, j: int) -> float:
        return float((rotary(q, torch.tensor([[i]])) * rotary(k, torch.tensor([[j]]))).sum())

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-12)
    assert product(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-12)
    assert product(5, 2) != pytest.approx(product(6, 2), abs=1e-3)
    with pytest.raises(ValueError, match=r"even, got 7"):
        Rotary(head_width=7)


def test_dropout_of_weights_acts_in_training_only() -> None:
    module, x = layer(causal=True, window=4, dropout_prob=0.5), tokens(40)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_bfloat16_autocast_stays_close() -> None:
    module, x = layer(causal=True, window=4).float(), tokens(40).float()
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
        state = module.initial_state(2)
        streamed = []
        for piece in x.split(9, dim=1):
            part, state = module.step(piece, state)
            streamed.append(part)
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(torch.cat(streamed, 1).float(), exact, rtol=0.05, atol=0.05)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"got 3 heads and width 16"):
        SoftmaxAttention(SoftmaxConfig(), width=16, heads=3, causal=True)
