"""What cannot be: each a clear error, or the right answer with one warning."""

from __future__ import annotations

import sys
import types
import warnings
from functools import partial

import pytest
import torch
from zoo_transnormer import (
    DiagAttention,
    DiagAttentionConfig,
    LightningAttention,
    LightningConfig,
    LlmConfig,
    NormAttention,
    NormAttentionConfig,
    TransNormerConfig,
    decay_slopes,
    diag_attention,
    lightning_attention,
    lightning_attention_parallel,
    lightning_attention_recurrent,
    lightning_attention_step,
    linear_attention_bidirectional,
    lrpe,
)
from zoo_transnormer import backend as fla

import zoo
from zoo.plugin import Classes, ConfigError, Series

Q, V, S = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 6), torch.tensor([0.1, 0.2, 0.3])
ROW = (Q[:1], Q[:1], V[:1])
MASK = torch.ones(2, 5, dtype=torch.bool)
lightning = partial(lightning_attention, Q, Q, V)
layer = partial(LightningAttention, LightningConfig(), causal=True)

WRONG = {
    "rank": (ValueError, r"expected q, k \(B, H, T, D\)", lambda: lightning_attention(Q[0], Q[0], V[0], S)),
    "tokens": (
        ValueError,
        r"got \(2, 3, 5, 4\), .* \(2, 3, 4, 6\)",
        lambda: lightning_attention(Q, Q, V[:, :, 1:], S),
    ),
    "ints": (TypeError, "q must be floating point", lambda: lightning_attention(Q.long(), Q.long(), V, S)),
    "device": (ValueError, "on one device", lambda: lightning_attention(Q, Q, V.to("meta"), S)),
    "slopes_short": (ValueError, r"slopes must be \(3,\) or \(2, 3\)", lambda: lightning(S[:2])),
    "slopes_negative": (
        ValueError,
        r"at least 0 .* got \[0.1, -0.2",
        lambda: lightning(torch.tensor([0.1, -0.2, 0])),
    ),
    "slopes_nan": (ValueError, "must be finite", lambda: lightning(torch.tensor([0.1, torch.nan, 0]))),
    "slopes_learned": (ValueError, r"pass slopes.detach\(\)", lambda: lightning(S.clone().requires_grad_())),
    "slopes_list": (TypeError, r"e.g. decay_slopes\(3\); got list \[0.1", lambda: lightning([0.1, 0.2, 0.3])),
    "not_a_tensor": (TypeError, "v must be a tensor, got list", lambda: lightning_attention(Q, Q, [1.0], S)),
    "packed_list": (
        TypeError,
        "cu_seqlens must be a tensor, got list",
        lambda: lightning_attention(*ROW, S, cu_seqlens=[0, 5]),
    ),
    "chunk_type": (TypeError, "a whole number, got 2.5", lambda: lightning(S, chunk_size=2.5)),
    "layer_mask": (
        ValueError,
        r"mask must be bool \(2, 5\), True = keep; got torch.float32 \(2, 5\)",
        lambda: layer(width=8, heads=2)(torch.zeros(2, 5, 8), mask=MASK.float()),
    ),
    "layer_mask_shape": (
        ValueError,
        r"mask must be bool \(2, 4\)",
        lambda: DiagAttention(DiagAttentionConfig(), width=8, heads=2, causal=False)(
            torch.zeros(2, 4, 8), mask=MASK
        ),
    ),
    "chunk": (ValueError, "at least 1, got 0", lambda: lightning(S, chunk_size=0)),
    "backend": (
        ValueError,
        "one of auto, torch, native, fla, got 'cuda'",
        lambda: lightning(S, backend="cuda"),
    ),
    "state_shape": (
        ValueError,
        r"the state must be \(2, 3, 4, 6\)",
        lambda: lightning(S, initial_state=torch.zeros(2, 3, 6, 4)),
    ),
    "state_type": (
        TypeError,
        "must be torch.float32",
        lambda: lightning(S, initial_state=torch.zeros(2, 3, 4, 6, dtype=torch.bfloat16)),
    ),
    "mask_type": (
        ValueError,
        r"bool \(2, 5\), True = keep",
        lambda: lightning(S, key_padding_mask=MASK.float()),
    ),
    "mask_shape": (
        ValueError,
        r"got torch.bool \(2, 4\)",
        lambda: lightning(S, key_padding_mask=MASK[:, 1:]),
    ),
    "packed_rows": (ValueError, "B must be 1, got 2", lambda: lightning(S, cu_seqlens=torch.tensor([0, 5]))),
    "packed_mask": (
        ValueError,
        "not both",
        lambda: lightning(S, cu_seqlens=torch.tensor([0, 5]), key_padding_mask=MASK),
    ),
    "packed_type": (
        ValueError,
        r"whole numbers \(S",
        lambda: lightning_attention(*ROW, S, cu_seqlens=torch.ones(3)),
    ),
    "packed_end": (
        ValueError,
        r"rise from 0 to T=5, got \[0, 3, 4\]",
        lambda: lightning_attention(*ROW, S, cu_seqlens=torch.tensor([0, 3, 4])),
    ),
    "packed_back": (
        ValueError,
        "rise from 0",
        lambda: lightning_attention(*ROW, S, cu_seqlens=torch.tensor([0, 4, 3, 5])),
    ),
    "packed_state": (
        ValueError,
        r"\(2, 3, 4, 6\) for these",
        lambda: lightning_attention(
            *ROW, S, cu_seqlens=torch.tensor([0, 3, 5]), initial_state=torch.zeros(1, 3, 4, 6)
        ),
    ),
    "parallel_long": (
        ValueError,
        "at most 4096 tokens, got 4097; use lightning_attention",
        lambda: lightning_attention_parallel(*(torch.zeros(1, 1, 4097, 1),) * 3, torch.zeros(1)),
    ),
    "recurrent": (ValueError, "slopes must be", lambda: lightning_attention_recurrent(Q, Q, V, S[:1])),
    "step_rank": (ValueError, "a step takes one token", lambda: lightning_attention_step(Q, Q, V, S, V)),
    "step_state": (
        ValueError,
        "the state must be",
        lambda: lightning_attention_step(Q[:, :, 0], Q[:, :, 0], V[:, :, 0], S, torch.zeros(1, 3, 4, 6)),
    ),
    "both_ways": (ValueError, "expected q, k", lambda: linear_attention_bidirectional(Q, Q[:1], V)),
    "diag_block": (
        ValueError,
        "block must be at least 1",
        lambda: diag_attention(Q, Q, V, block=0, causal=True),
    ),
    "diag_kind": (
        ValueError,
        "softmax or relu, got 'elu'",
        lambda: diag_attention(Q, Q, V, kind="elu", causal=True),
    ),
    "theta": (ValueError, r"theta must be \(3, 4\)", lambda: lrpe(Q, torch.zeros(4))),
    "no_heads": (ValueError, "num_heads must be at least 1", lambda: decay_slopes(0)),
    "no_layer": (ValueError, r"lie in \[0, num_layers=4\), got 4", lambda: decay_slopes(8, 4, 4)),
    "no_schedule": (ValueError, "got 'slow'", lambda: decay_slopes(8, schedule="slow")),
    "bidirectional": (
        ValueError,
        "take transnormer/norm_attention",
        lambda: LightningAttention(LightningConfig(), width=8, heads=2, causal=False),
    ),
    "heads": (ValueError, "width 8 must be a multiple of heads 3", lambda: layer(width=8, heads=3)),
    "odd": (
        ValueError,
        "width / heads must be even, got 3",
        lambda: NormAttention(NormAttentionConfig(), width=6, heads=2, causal=True),
    ),
    "layer_input": (
        ValueError,
        r"expected x \(B, N, 8\)",
        lambda: layer(width=8, heads=2)(torch.zeros(2, 8)),
    ),
    "layer_state": (
        ValueError,
        "the state is of 1 streams, but x holds 2",
        lambda: layer(width=8, heads=2).step(torch.zeros(2, 3, 8), layer(width=8, heads=2).initial_state(1)),
    ),
    "stream_both_ways": (
        ValueError,
        "only when built with causal=True",
        lambda: DiagAttention(DiagAttentionConfig(), width=8, heads=2, causal=False).initial_state(1),
    ),
    "gate_rank": (ConfigError, "is for the gate 'lowrank_sigmoid'", lambda: LightningConfig(gate_rank=4)),
    "diag_layers": (ConfigError, r"at most depth \(4\), got 5", lambda: TransNormerConfig(diag_layers=5)),
    "width_heads": (ConfigError, "4 heads do not divide width 30", lambda: LlmConfig().check_width(30)),
    "preset_width": (
        ConfigError,
        "width 1024, got 128; set width 1024",
        lambda: zoo.create_model(
            "transnormer/llm", inputs=Series(channels=2, length=9), targets=Classes(count=2), preset="385m"
        ),
    ),
    "feed_forward": (
        ConfigError,
        "transnormer/sglu",
        lambda: zoo.create_model(
            "transnormer/llm",
            inputs=Series(channels=2, length=9),
            targets=Classes(count=2),
            feed_forward="transnormer/sgllu",
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case):
    error, message, call = WRONG[case]
    with pytest.raises(error, match=message):
        call()


def test_no_second_derivative_is_said():
    q = Q.clone().requires_grad_()
    (grad,) = torch.autograd.grad(lightning_attention(q, Q, V, S)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_backend_that_cannot_says_so_once():
    fla._say_once.cache_clear()
    with pytest.warns(UserWarning, match="needs CUDA tensors, these are on cpu; the PyTorch form") as said:
        first, _ = lightning(S, backend="fla")
        lightning(S, backend="fla")
    assert len(said) == 1
    assert torch.equal(first, lightning(S, backend="torch")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lightning(S)


def test_a_kernel_that_cannot_be_had_is_said_once(monkeypatch):
    fla._say_once.cache_clear()
    monkeypatch.setenv("ZOO_KERNELS", "0")
    with pytest.warns(UserWarning, match="'native' needs a C compiler .* the PyTorch form computes") as said:
        first, _ = lightning(S, backend="native")
        lightning(S, backend="native")
    assert len(said) == 1
    assert torch.equal(first, lightning(S, backend="torch")[0])


class OnCuda:
    """What the backend asks of a tensor, as if it were on a GPU."""

    is_cuda = True

    def __init__(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.shape, self.dtype = shape, dtype


@pytest.mark.parametrize(
    ("q", "v", "options", "reason"),
    [
        (OnCuda(1, 2, 9, 24), OnCuda(1, 2, 9, 32), {}, "not D=24"),
        (OnCuda(1, 2, 9, 32), OnCuda(1, 2, 9, 512), {}, "not E=512"),
        (OnCuda(1, 2, 9, 32, dtype=torch.float64), OnCuda(1, 2, 9, 32), {}, "no float64"),
        (OnCuda(1, 2, 0, 32), OnCuda(1, 2, 0, 32), {}, "at least one token"),
        (OnCuda(1, 2, 9, 32), OnCuda(1, 2, 9, 32), {"padded": True}, "knows no padding"),
        (OnCuda(1, 2, 9, 32), OnCuda(1, 2, 9, 32), {"installed": False}, "not installed"),
        (OnCuda(1, 2, 9, 32), OnCuda(1, 2, 9, 32), {}, ""),
    ],
)
def test_what_the_backend_takes(q, v, options, reason):
    found = fla._obstacle(q, v, S, **{"installed": True, "padded": False, **options})
    assert reason in found and bool(reason) == bool(found)


def test_how_the_backend_is_called(monkeypatch):
    """Layout, sign of the slopes and scale, against a kernel of theirs written down anew."""

    def chunk_simple_gla(q, k, v, *, g_gamma, scale, initial_state, output_final_state, cu_seqlens):
        assert output_final_state and cu_seqlens is None
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # from (B, T, H, D)
        out, state = lightning_attention_recurrent(q, k, v, -g_gamma, initial_state, scale=scale)
        return out.transpose(1, 2), state

    module = types.ModuleType("fla.ops.simple_gla")
    module.chunk_simple_gla = chunk_simple_gla
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", module)
    state = torch.randn(2, 3, 4, 6)
    out, end = fla.attention(Q, Q, V, S, 0.5, state, None)
    expected, last = lightning(S, scale=0.5, initial_state=state, output_final_state=True, backend="torch")
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(end, last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_backend_equals_ours():
    pytest.importorskip("fla")
    q, k, v = (torch.randn(2, 4, 300, 64, device="cuda", requires_grad=True) for _ in range(3))
    slopes = decay_slopes(4).cuda()
    results = []
    for backend in ("torch", "fla"):
        out, state = lightning_attention(q, k, v, slopes, output_final_state=True, backend=backend)
        results.append([out, state, *torch.autograd.grad(out.square().sum() + state.sum(), (q, k, v))])
    for found, expected in zip(results[1], results[0], strict=True):
        assert ((found - expected).norm() / expected.norm()).item() < 1e-2
