"""Mistakes are refused with what was given and what would be right."""

from __future__ import annotations

import pytest
import torch
from zoo_combiner import (
    AxialConfig,
    CombinerAxial,
    CombinerFixed,
    CombinerLogsparse,
    FixedConfig,
    LogsparseConfig,
    combiner_attention,
    combiner_mixture,
    implied_attention,
)

import zoo
from zoo.config import ConfigError

Q = torch.zeros(2, 2, 12, 4)
X = torch.zeros(2, 12, 8)
KEEP = torch.ones(2, 12, dtype=torch.bool)


def _attend(**options):
    return combiner_attention(Q, Q, Q, **options)


def _fixed(*, width: int = 8, heads: int = 2, causal: bool = True) -> CombinerFixed:
    return CombinerFixed(FixedConfig(block_size=4), width=width, heads=heads, causal=causal)


def _holes() -> torch.Tensor:
    mask = KEEP.clone()
    mask[0, 3] = False
    return mask


ROWS = {"plan": "axial_rowmajor", "block_size": 4}
WRONG = {
    "keys": (r"k \(2, 2, 11, 4\)", lambda: combiner_attention(Q, Q[:, :, 1:], Q)),
    "rank": (r"must be \(B, H, N, D\)", lambda: combiner_attention(Q[0], Q[0], Q[0])),
    "empty": ("at least one token", lambda: combiner_attention(*[Q[:, :, :0]] * 3)),
    "dtype": ("torch.float32, torch.float64", lambda: combiner_attention(Q, Q.double(), Q)),
    "integers": ("floating point", lambda: combiner_attention(Q.long(), Q.long(), Q.long())),
    "device": ("on one device", lambda: combiner_attention(Q, Q.to("meta"), Q)),
    "plan": ("plan must be one of fixed, .* got 'sparse'", lambda: _attend(plan="sparse")),
    "pooling": ("pooling must be one of max, mean, none; got 'sum'", lambda: _attend(pooling="sum")),
    "impl": ("impl must be one of .* got 'fast'", lambda: _attend(impl="fast")),
    "block_size": ("block_size must be a whole number of at least 1, got 0", lambda: _attend(block_size=0)),
    "block_type": ("block_size must be a whole number .* got 2.5", lambda: _attend(block_size=2.5)),
    "logsparse_block": (
        "block_size must be left out for plan 'logsparse'.* got 4",
        lambda: _attend(plan="logsparse", block_size=4),
    ),
    "scale": ("scale must be above 0, got -1", lambda: _attend(scale=-1.0)),
    "dropout": ("dropout_p must be .* got 1", lambda: _attend(dropout_p=1.0)),
    "mask_type": (r"key_mask must be bool \(2, 12\)", lambda: _attend(key_mask=KEEP.float())),
    "mask_shape": (r"got torch.bool \(2, 11\)", lambda: _attend(key_mask=KEEP[:, 1:])),
    "features": ("span_qk must be features.*got keys", lambda: _attend(span_qk=(Q, Q[..., :2]))),
    "tiles": (
        "block_size must divide the 12 tokens .* got 5.*Take block_size 3, 4, 6, or pad to 15",
        lambda: _attend(plan="axial_rowmajor", block_size=5, causal=False),
    ),
    "holes": ("key_mask must be padding on the right", lambda: _attend(key_mask=_holes(), **ROWS)),
    "left": ("key_mask must be padding on the right", lambda: _attend(key_mask=~_holes(), **ROWS)),
    "row_summary": ("row_summary must be one of", lambda: _attend(row_summary="sum", **ROWS)),
    "row_keys": (
        "row_keys must be given for row_summary 'proj'",
        lambda: _attend(row_summary="proj", **ROWS),
    ),
    "row_keys_shape": (
        r"row_keys must be \(B, rows, block_size, H, D\) = \(2, 3, 4, 2, 4\)",
        lambda: _attend(row_keys=torch.zeros(2, 3, 4, 8), **ROWS),
    ),
    "weights_of_sdpa": (
        "impl 'sdpa' keeps no attention weights",
        lambda: implied_attention(Q, Q, impl="sdpa"),
    ),
    "sdpa_of_axial": (
        "impl 'sdpa' is there for plan 'fixed'",
        lambda: _attend(plan="logsparse", impl="sdpa"),
    ),
    "no_plans": ("plans must be a list", lambda: combiner_mixture(Q, Q, Q, plans=())),
    "one_plan": ("plans must be a list .* got 'fixed'", lambda: combiner_mixture(Q, Q, Q, plans="fixed")),
    "weights": (
        "weights must be 1 numbers",
        lambda: combiner_mixture(Q, Q, Q, plans=("fixed",), weights=(2.0,)),
    ),
    "heads": ("width 8 must be a multiple of heads 3", lambda: _fixed(heads=3)),
    "layer_rank": (r"x must be \(B, N, 8\), got \(12, 8\)", lambda: _fixed()(X[0])),
    "layer_mask": (r"mask must be bool \(2, 12\)", lambda: _fixed()(X, mask=KEEP[:, 1:])),
    "stream": ("only when built with causal=True", lambda: _fixed(causal=False).initial_state(2)),
    "no_batch": ("batch_size must be at least 1, got 0", lambda: _fixed().initial_state(0)),
    "state_batch": (
        "the state is of 3 streams, but x holds 2",
        lambda: _fixed().step(X, _fixed().initial_state(3)),
    ),
    "state_dtype": (
        "state.queries must be torch.float32 in this layer, got torch.float64",
        lambda: _fixed().step(X, _fixed().double().initial_state(2)),
    ),
    "state_kind": (
        "state must be a LogsparseCache",
        lambda: CombinerLogsparse(LogsparseConfig(), width=8, heads=2, causal=True).step(
            X, _fixed().initial_state(2)
        ),
    ),
    "state_rows": (
        "state must be a RowCache",
        lambda: CombinerAxial(AxialConfig(), width=8, heads=2, causal=True).step(
            X, _fixed().initial_state(2)
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case):
    message, call = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("pooling", ["mean", "deepset"])
def test_row_major_pools_nothing(pooling):
    with pytest.raises(ConfigError, match=r"must be 'max' .* or 'none' for plan 'rowmajor'"):
        AxialConfig(pooling=pooling)


def test_a_wrong_parameter_of_a_recipe_is_named():
    with pytest.raises(zoo.ZooError, match="block_size"):
        zoo.create_model(
            "core/transformer",
            dataset="core/copy",
            layers=["combiner/fixed"],
            mixer_params={"combiner/fixed": {"block_size": 0}},
        )
