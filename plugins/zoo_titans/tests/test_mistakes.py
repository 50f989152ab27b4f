"""What is refused, and what it says."""

from __future__ import annotations

import pytest
import torch
from zoo_titans import MemoryState, gate_products, neural_memory_read, neural_memory_scan

B, H, T = 2, 3, 8


def arguments(**changes):
    inputs = dict.fromkeys("qkv", torch.zeros(B, H, T, 4)) | {
        name: torch.full((B, H, T), 0.1) for name in ("theta", "eta", "alpha")
    }
    inputs["state"] = MemoryState.start([torch.zeros(H, 4, 6), torch.zeros(H, 6, 4)], B)
    return inputs | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(B, H, 7, 4)}, "expected q, k"),
        ({"v": torch.zeros(B, H, T)}, "expected q, k"),
        ({"eta": torch.zeros(B, H, 7)}, r"eta must be \(2, 3, 8\).*got \(2, 3, 7\)"),
        ({"q": torch.zeros(B, H, T, 4).long()}, "q must be floating point, got torch.int64"),
        ({"k": torch.zeros(B, H, T, 4).double()}, "float64 or none"),
        ({"q": torch.zeros(B, H, T, 5), "k": torch.zeros(B, H, T, 5)}, "have 5 channels, .* takes 4"),
        ({"v": torch.zeros(B, H, T, 5)}, "values have 5 channels, but the memory gives 4"),
        ({"valid": torch.ones(B, T)}, "valid must be bool"),
        ({"state": MemoryState.start([torch.zeros(H, 4, 4)], 5)}, r"\(streams, heads\) \(2, 3\)"),
        ({"state": MemoryState.start([torch.zeros(2, 4, 4)], B)}, r"\(streams, heads\) \(2, 3\)"),
        ({"state": MemoryState.start([torch.zeros(H, 4, 4).double()], B)}, "must be torch.float32"),
        ({"state": MemoryState.start([torch.zeros(H, 4, 6), torch.zeros(H, 5, 4)], B)}, "each going on"),
        ({"chunk": 0}, "chunk must be at least 1 token, got 0"),
        ({"act": "relu"}, "act must be one of silu, gelu, got 'relu'"),
        ({"read": "never"}, "read must be one of after, before"),
        ({"impl": "fast"}, "impl must be one of"),
        ({"loss_scale": 0.0}, "loss_scale must be above 0"),
        ({"limit": -1.0}, "limit must be above 0"),
        ({"theta": torch.full((B, H, T), -0.1), "check_gates": True}, r"theta must be at least 0; .*-0.1"),
        ({"alpha": torch.full((B, H, T), 1.5), "check_gates": True}, "alpha must be between 0 and 1"),
        ({"eta": torch.full((B, H, T), -0.5), "check_gates": True}, "eta must be between 0 and 1; .* -0.5"),
        ({"eta": torch.full((B, H, T), float("nan")), "check_gates": True}, "eta must be .* it is nan"),
        ({"k": torch.zeros(B, H, T, 4, device="meta")}, "tensors must be on one device"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        neural_memory_scan(**arguments(**changes))


def test_residual_needs_as_many_channels_out_as_in():
    state = MemoryState.start([torch.zeros(H, 4, 5)], B)
    with pytest.raises(ValueError, match="residual adds keys to values: 4 channels must be as many as 5"):
        neural_memory_scan(**arguments(state=state, v=torch.zeros(B, H, T, 5), residual=True))


def test_a_state_of_a_larger_chunk():
    given = arguments()
    _, given["state"] = neural_memory_scan(**given, chunk=16)
    with pytest.raises(ValueError, match="must stay below chunk=4"):
        neural_memory_scan(**given, chunk=4)


def test_reading_with_queries_that_do_not_fit():
    with pytest.raises(ValueError, match="expected q"):
        neural_memory_read(torch.zeros(5, H, T, 4), arguments()["state"])
    with pytest.raises(ValueError, match="have 3 channels"):
        neural_memory_read(torch.zeros(B, H, T, 3), arguments()["state"])


def test_gates_of_no_tokens_or_unequal_shapes():
    with pytest.raises(ValueError, match="at least one token"):
        gate_products(*(torch.zeros(2, 0) for _ in range(3)))
    with pytest.raises(ValueError, match="of one shape"):
        gate_products(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3))


def test_a_memory_that_explodes_is_reported_with_the_rule_and_a_limit_holds_it():
    """The same key all the time, on stale gradients, far beyond the stability rule."""
    tokens = 512
    key = torch.nn.functional.normalize(torch.ones(1, 1, tokens, 8), dim=-1)
    value = torch.ones(1, 1, tokens, 8)
    gates = [torch.full((1, 1, tokens), share) for share in (0.5, 0.9, 0.0)]
    state = MemoryState.start([torch.zeros(1, 8, 8)], 1)
    with pytest.raises(ValueError, match=r"exploded.*2 loss_scale theta chunk.*here it is up to 130"):
        neural_memory_scan(key, key, value, *gates, state, chunk=16)
    y, _ = neural_memory_scan(key, key, value, *gates, state, chunk=16, limit=4.0)
    assert y.isfinite().all()


def test_what_is_not_finite_is_named_where_it_came_in():
    given = arguments(v=torch.full((B, H, T, 4), float("nan")))
    with pytest.raises(ValueError, match="v holds 192 values that are NaN"):
        neural_memory_scan(**given)
