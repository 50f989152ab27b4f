"""What a memory is told of each token is the same in C and in tensor operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from zoo_titans import MemoryConfig, NeuralMemory
from zoo_titans.native_told import obstacle
from zoo_titans.told import convolve, queries_keys_values, tell


@pytest.mark.parametrize(
    ("tokens", "heads", "channels", "width"),
    [(7, 3, 5, 4), (1, 2, 4, 3), (3, 1, 8, 6), (9, 2, 16, 1)],
)
def test_convolution_activation_and_norm_in_one_pass(tokens, heads, channels, width):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    size = 3 * heads * channels
    projected, tail = normal(2, tokens, size), normal(2, width - 1, size)
    conv = normal(size, 1, width) if width > 1 else None
    given = [projected, tail, conv] if width > 1 else [projected]
    weights = [normal(2, heads, tokens, channels).detach() for _ in range(3)]
    found, expected = (
        (told, torch.autograd.grad(sum((w * t).sum() for w, t in zip(weights, told, strict=True)), given))
        for told in (
            tell(projected, tail, conv, heads),
            queries_keys_values(convolve(projected, tail, conv), heads),
        )
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_halves_are_left_to_tensor_operations():
    x, tail = torch.randn(1, 4, 12, dtype=torch.bfloat16), torch.randn(1, 2, 12)
    assert obstacle(x, tail) and obstacle(x, tail.bfloat16())
    q, _, _ = tell(x, tail, None, 2)
    assert q.dtype == torch.float32


@pytest.mark.parametrize("gates", ["token", "chunk"])
def test_a_layer_is_the_same_without_a_compiler(gates, monkeypatch):
    torch.manual_seed(0)
    layer = NeuralMemory(MemoryConfig(chunk=5, depth=3, gates=gates), width=16, heads=2).double()
    x = torch.randn(2, 23, 16, dtype=torch.float64)
    starts = torch.zeros(2, 23, dtype=torch.bool)
    starts[0, 9] = starts[1, 3] = True

    def outputs_and_gradients() -> list[Tensor]:
        y = layer(x, starts=starts)
        return [y, *torch.autograd.grad(y.sin().sum(), list(layer.parameters()))]

    found = outputs_and_gradients()
    monkeypatch.setenv("ZOO_KERNELS", "0")
    for one, other in zip(found, outputs_and_gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_no_streams_and_no_tokens(kernels, monkeypatch):
    monkeypatch.setenv("ZOO_KERNELS", kernels)
    layer = NeuralMemory(MemoryConfig(chunk=4), width=16, heads=2)
    for shape in ((0, 5, 16), (2, 0, 16), (0, 0, 16)):
        x = torch.randn(shape, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == shape and x.grad is not None
