"""Mistakes are refused with what was given and what was expected."""

from __future__ import annotations

import pytest
import torch
from zoo_aaren import Aaren, AarenConfig, AarenState, aaren_pool, aaren_scan, aaren_step

S, V = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 5)
STATE = AarenState.empty(2, 3, 5)

WRONG = {
    "length": (ValueError, r"\(2, 3, 3\) and \(2, 3, 4, 5\)", lambda: aaren_scan(S[..., :3], V)),
    "heads": (ValueError, "expected scores", lambda: aaren_scan(S[:, :2], V)),
    "batch": (ValueError, "expected scores", lambda: aaren_pool(S[:1], V)),
    "rank": (ValueError, "expected scores", lambda: aaren_scan(S[0], V)),
    "integer": (
        ValueError,
        "scores must be floating point, got torch.int64",
        lambda: aaren_scan(S.long(), V),
    ),
    "mixed": (ValueError, "both be float64 or neither", lambda: aaren_scan(S, V.double())),
    "mask_type": (ValueError, "must be bool", lambda: aaren_scan(S, V, key_mask=torch.ones(2, 4))),
    "mask_shape": (ValueError, r"got \(2, 3\)", lambda: aaren_scan(S, V, key_mask=torch.ones(2, 3) > 0)),
    "block_size": (ValueError, "at least 1, got 0", lambda: aaren_scan(S, V, block_size=0)),
    "block_type": (
        ValueError,
        "a whole number of at least 1, got 2.5",
        lambda: aaren_scan(S, V, block_size=2.5),
    ),
    "impl": (ValueError, "got 'fast'", lambda: aaren_scan(S, V, impl="fast")),
    "state_shape": (
        ValueError,
        r"state.m must be \(2, 3\)",
        lambda: aaren_scan(S, V, state=AarenState.empty(1, 3, 5)),
    ),
    "state_width": (
        ValueError,
        r"state.w must be \(2, 3, 5\)",
        lambda: aaren_scan(S, V, state=AarenState.empty(2, 3, 4)),
    ),
    "state_type": (
        ValueError,
        "state.m must be torch.float32",
        lambda: aaren_scan(S, V, state=AarenState.empty(2, 3, 5, dtype=torch.float64)),
    ),
    "state_kind": (
        ValueError,
        "state must be an AarenState .* got a Tensor",
        lambda: aaren_scan(S, V, state=V),
    ),
    "state_device": (
        ValueError,
        "on one device, got scores on cpu, state.m on meta",
        lambda: aaren_scan(S, V, state=AarenState.empty(2, 3, 5, device="meta")),
    ),
    "device": (ValueError, "on one device", lambda: aaren_scan(S, V.to("meta"))),
    "nan": (ValueError, r"\(1, 2, 3\)", lambda: aaren_scan(_with(float("nan")), V, check_finite=True)),
    "inf": (ValueError, "1 scores are NaN", lambda: aaren_scan(_with(float("inf")), V, check_finite=True)),
    "step_rank": (ValueError, "one token", lambda: aaren_step(S, V, STATE)),
    "step_valid": (
        ValueError,
        r"bool \(2,\)",
        lambda: aaren_step(S[..., 0], V[..., 0, :], STATE, valid=torch.ones(2)),
    ),
    "bidirectional": (ValueError, "causal only", lambda: _layer(causal=False)),
    "heads_of_width": (ValueError, "width 8 must be a multiple of heads 3", lambda: _layer(heads=3)),
    "layer_rank": (ValueError, r"expected x \(B, N, 8\), got \(2, 8\)", lambda: _layer()(torch.zeros(2, 8))),
    "layer_step": (
        ValueError,
        r"expected x \(B, N, 8\)",
        lambda: _layer().step(torch.zeros(2, 8), _layer().initial_state(2)),
    ),
    "layer_state": (
        ValueError,
        r"state.m must be \(2, 2\)",
        lambda: _layer().step(torch.zeros(2, 1, 8), _layer().initial_state(3)),
    ),
    "layer_state_type": (
        ValueError,
        "state.m must be torch.float32 for these inputs, got torch.float64",
        lambda: _layer().step(torch.zeros(2, 1, 8), _layer().double().initial_state(2)),
    ),
    "step_state": (
        ValueError,
        r"state.m must be \(2, 3\) for these inputs, got \(4, 3\)",
        lambda: aaren_step(S[..., 0], V[..., 0, :], AarenState.empty(4, 3, 5)),
    ),
}


def _with(value: float) -> torch.Tensor:
    scores = S.clone()
    scores[1, 2, 3] = value
    return scores


def _layer(*, heads: int = 2, causal: bool = True) -> Aaren:
    return Aaren(AarenConfig(), width=8, heads=heads, causal=causal, max_tokens=None)


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case):
    error, message, call = WRONG[case]
    with pytest.raises(error, match=message):
        call()


def test_check_finite_accepts_absent_tokens():
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1, 3] = False
    aaren_scan(_with(float("nan")), V, key_mask=mask, check_finite=True)
    aaren_scan(_with(float("-inf")), V, check_finite=True)
