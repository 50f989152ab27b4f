"""The memory of titans-pytorch, where it says the same: a chunk of one token, its own norms left out.

For longer chunks it is another recurrence: forgetting and momentum act once per chunk, and tokens read the
memory that the chunk before left (README).
"""

from __future__ import annotations

import pytest
import torch
from zoo_titans import MemoryState, neural_memory_scan


def test_it_is_the_recurrence_of_another_implementation() -> None:
    other = pytest.importorskip("titans_pytorch")
    torch.manual_seed(0)
    width, tokens = 8, 11
    module = other.NeuralMemory(
        dim=width,
        chunk_size=1,
        batch_size=1,
        model=other.MemoryMLP(width, depth=2, expansion_factor=2.0),
        default_step_transform_max_lr=0.1,
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
    ).double()
    x = torch.randn(2, tokens, width, dtype=torch.float64)
    expected, after = module(x)

    q, k, v = (to(x).unsqueeze(1) for to in (module.to_queries, module.to_keys, module.to_values))
    theta = 0.1 * module.to_adaptive_step(x).sigmoid()
    eta, alpha = (to(x).sigmoid().squeeze(-1) for to in (module.to_momentum, module.to_decay_factor))
    weights = list(module.memory_model_parameters)
    state = MemoryState.start(weights, 2)
    gates = (gate.reshape(2, 1, tokens) for gate in (theta, eta, alpha))
    y, state = neural_memory_scan(q, k, v, *gates, state, act="gelu", loss_scale=1 / width)
    torch.testing.assert_close(y.squeeze(1), expected, rtol=1e-9, atol=1e-12)
    updates, momentum = after.states
    for found, name in zip(state.weights, module.memory_model_parameter_names, strict=True):
        torch.testing.assert_close(found.squeeze(1), updates[name], rtol=1e-9, atol=1e-12)
    for found, name in zip(state.momentum, module.memory_model_parameter_names, strict=True):
        torch.testing.assert_close(found.squeeze(1), momentum[name][0], rtol=1e-9, atol=1e-12)
