"""Every form of the scan is the paper's recurrence, for any chunk, length, depth and split."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import Tensor
from zoo_titans import (
    MemoryState,
    gate_products,
    neural_memory_read,
    neural_memory_scan,
    neural_memory_update,
)
from zoo_titans.native import obstacle

from zoo.layers import put_rows

B, H = 2, 3
CASES = [
    pytest.param(17, 5, (4, 4), {}, id="linear"),
    pytest.param(17, 5, (4, 6, 3), {"limit": 0.3}, id="limit"),
    pytest.param(16, 16, (4, 6, 5, 4), {"residual": True, "act": "gelu"}, id="depth-3-residual-gelu"),
    pytest.param(50, 1, (4, 6, 3), {"limit": 2.0}, id="chunk-1"),
    pytest.param(70, 1, (3, 4, 3), {"read": "before"}, id="checkpointed-read-before"),
    pytest.param(15, 18, (4, 6, 3), {"read": "before"}, id="shorter-than-a-chunk"),
    pytest.param(17, 2, (4, 3, 3, 3, 4), {"loss_scale": 0.5}, id="depth-4"),
    pytest.param(1, 2, (2, 3, 2), {}, id="one-token"),
    pytest.param(70, 33, (12, 20, 9), {"limit": 1.0}, id="wider-than-a-tile"),
]
NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(bool(obstacle(torch.ones(1), torch.float32)), reason="no C")
)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def problem(tokens: int, sizes: tuple[int, ...], seed: int = 0, dtype=torch.float64) -> tuple[list, list]:
    """q, k, v, theta, eta, alpha, and the first weights."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(most: float) -> Tensor:
        return most * torch.rand(B, H, tokens, generator=generator, dtype=torch.float64)

    inputs = [unit(normal(B, H, tokens, sizes[0])) for _ in range(2)] + [normal(B, H, tokens, sizes[-1])]
    inputs += [uniform(0.05), uniform(1.0), uniform(0.2)]
    weights = [normal(H, n, m) / n**0.5 for n, m in itertools.pairwise(sizes)]
    return [t.to(dtype) for t in inputs], [w.to(dtype) for w in weights]


def leaves(y: Tensor, state: MemoryState) -> list[Tensor]:
    return [y, *state.weights, *state.momentum, *state.anchor]


def with_gradients(inputs, weights, run) -> list[Tensor]:
    """All that `run` gives, and the gradients of a sum over all of it."""
    variables = [t.clone().requires_grad_() for t in (*inputs, *weights)]
    found = leaves(*run(variables[: len(inputs)], MemoryState.start(variables[len(inputs) :], B)))
    total = sum((t * torch.arange(t.numel(), dtype=t.dtype).cos().view_as(t)).sum() for t in found)
    return [*found, *torch.autograd.grad(total, variables, allow_unused=True)]


def require_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("impl", [NATIVE, "chunked", "autograd"])
@pytest.mark.parametrize(("tokens", "chunk", "sizes", "options"), CASES)
def test_equals_the_recurrence_with_gradients(tokens, chunk, sizes, options, impl):
    inputs, weights = problem(tokens, sizes)
    found, expected = (
        with_gradients(
            inputs,
            weights,
            lambda x, state, impl=form: neural_memory_scan(*x, state, chunk=chunk, impl=impl, **options),
        )
        for form in (impl, "recurrent")
    )
    require_equal(found, expected)


@pytest.mark.parametrize("chunk", [1, 5, 16])
@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("impl", [NATIVE, "chunked"])
def test_padding_is_the_identity(chunk, read, impl):
    inputs, weights = problem(16, (4, 6, 4))
    valid = torch.rand(B, 16, generator=torch.Generator().manual_seed(3)) > 0.3
    found, expected = (
        with_gradients(
            inputs,
            weights,
            lambda x, s, f=form: neural_memory_scan(*x, s, chunk=chunk, read=read, valid=valid, impl=f),
        )
        for form in (impl, "recurrent")
    )
    require_equal(found, expected)
    if chunk != 5:  # one token, or all, per chunk: then padding does not move where chunks begin
        row = valid[0]
        kept = [t[:1, :, row] for t in inputs]
        alone, state = neural_memory_scan(*kept, MemoryState.start(weights, 1), chunk=chunk, read=read)
        torch.testing.assert_close(alone, found[0][:1, :, row])
        torch.testing.assert_close(state.weights[0], found[1][:1])


@pytest.mark.parametrize("pieces", [[1] * 23, [4, 1, 1, 7, 2, 8], [0, 22, 1], [16, 7], [3, 20]])
@pytest.mark.parametrize("chunk", [1, 4, 7, 30])
@pytest.mark.parametrize("impl", [NATIVE, "chunked"])
def test_any_split_gives_the_same_outputs_and_state(pieces, chunk, impl):
    inputs, weights = problem(23, (4, 6, 4))
    options = {"chunk": chunk, "limit": 1.0, "impl": impl}
    expected = with_gradients(inputs, weights, lambda x, s: neural_memory_scan(*x, s, **options))

    def in_pieces(x, state):
        outputs, start = [], 0
        for size in pieces:
            part = [t[:, :, start : start + size] for t in x]
            y, state = neural_memory_scan(*part, state, **options)
            outputs.append(y)
            start += size
        return torch.cat(outputs, 2), state

    require_equal(with_gradients(inputs, weights, in_pieces), expected)


def test_streams_of_different_phases_stand_side_by_side():
    inputs, weights = problem(9, (4, 6, 4))
    state = MemoryState.start(weights, B)
    first = torch.tensor([0])
    _, later = neural_memory_scan(*(t[:1, :, :3] for t in inputs), state.select(first), chunk=4)
    state = put_rows(state, first, later)
    y, after = neural_memory_scan(*inputs, state, chunk=4)
    expected, slow = neural_memory_scan(*inputs, state, chunk=4, impl="recurrent")
    require_equal(leaves(y, after), leaves(expected, slow))
    assert after.phase.tolist() == [0, 1]


def test_updating_without_reading_and_reading_without_updating():
    inputs, weights = problem(11, (4, 6, 4))
    state = MemoryState.start(weights, B)
    y, expected = neural_memory_scan(*inputs, state, chunk=4)
    found = neural_memory_update(*inputs[1:], state, chunk=4)
    require_equal([*found.weights, *found.momentum], [*expected.weights, *expected.momentum])
    last = neural_memory_read(inputs[0][:, :, -1:], expected)
    torch.testing.assert_close(last, y[:, :, -1:])
    gradients = with_gradients(
        inputs, weights, lambda x, s: (x[0].sum(), neural_memory_update(*x[1:], s, chunk=4))
    )
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_a_linear_memory_without_momentum_is_the_delta_rule():
    """Appendix C: eta = 0, one layer, chunk 1: S_t = (1 - alpha) S + 2 theta (v - S k) k^T."""
    (q, k, v, theta, _, alpha), weights = problem(12, (4, 4))
    y, _ = neural_memory_scan(
        q, k, v, theta, torch.zeros_like(theta), alpha, MemoryState.start(weights, B), chunk=1
    )
    memory = weights[0].expand(B, -1, -1, -1)
    for t in range(12):
        error = v[:, :, t] - torch.einsum("bhn,bhnm->bhm", k[:, :, t], memory)
        step, forget = theta[:, :, t, None, None], alpha[:, :, t, None, None]
        memory = (1 - forget) * memory + 2 * step * k[:, :, t].unsqueeze(-1) * error.unsqueeze(-2)
        torch.testing.assert_close(y[:, :, t], torch.einsum("bhn,bhnm->bhm", q[:, :, t], memory))


def test_one_chunk_without_decay_and_momentum_is_causal_attention_to_the_errors():
    (q, k, v, *_), weights = problem(12, (4, 4))
    step, none = torch.full((B, H, 12), 0.1, dtype=torch.float64), torch.zeros(B, H, 12, dtype=torch.float64)
    y, _ = neural_memory_scan(q, k, v, step, none, none, MemoryState.start(weights, B), chunk=12)
    errors = v - k @ weights[0]
    expected = q @ weights[0] + 0.2 * (q @ k.mT).tril() @ errors
    torch.testing.assert_close(y, expected)


def test_gates_at_their_ends():
    inputs, weights = problem(9, (4, 6, 4))
    q, k, v, theta, eta, alpha = inputs
    state = MemoryState.start(weights, B)
    zero, one = torch.zeros_like(theta), torch.ones_like(theta)
    y, after = neural_memory_scan(q, k, v, zero, eta, zero, state, chunk=4)
    torch.testing.assert_close(y, neural_memory_read(q, state))  # theta 0: nothing is learned
    _, after = neural_memory_scan(q, k, v, theta, eta, one, state, chunk=4)
    require_equal(list(after.weights), list(after.momentum))  # alpha 1: the last surprise alone
    moved = state._replace(momentum=tuple(torch.randn_like(s) for s in state.momentum))
    found = neural_memory_scan(q, k, v, theta, zero, alpha, moved, chunk=4)
    require_equal(leaves(*found), leaves(*neural_memory_scan(q, k, v, theta, zero, alpha, state, chunk=4)))
    for gates in ((zero, zero, zero), (one * 0.01, one, one), (zero, one, zero), (theta, zero, one)):
        step, inertia, forget = gates
        found = with_gradients(
            [q, k, v, step, inertia, forget], weights, lambda x, s: neural_memory_scan(*x, s, chunk=4)
        )
        slow = with_gradients(
            [q, k, v, step, inertia, forget],
            weights,
            lambda x, s: neural_memory_scan(*x, s, chunk=4, impl="recurrent"),
        )
        require_equal(found, slow)


@pytest.mark.parametrize("act", ["silu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loops_in_c_are_the_tensor_operations_also_where_activations_saturate(act, dtype):
    inputs, weights = problem(40, (16, 24, 16), dtype=dtype)
    weights[0] = weights[0] * torch.logspace(-3, 3, 24, dtype=dtype)
    inputs[3] = inputs[3] * 1e-6
    found, expected = (
        with_gradients(
            inputs, weights, lambda x, s, f=form: neural_memory_scan(*x, s, chunk=20, act=act, impl=f)
        )
        for form in ("auto", "chunked")
    )
    for one, other in zip(found, expected, strict=True):
        tolerance = (1e-4 if dtype == torch.float32 else 1e-11) * other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_what_the_loops_in_c_are_not_there_for_is_told(monkeypatch):
    inputs, weights = problem(3, (2, 2))
    monkeypatch.setenv("ZOO_KERNELS", "0")
    with pytest.raises(ValueError, match=r"impl 'native' needs a C compiler .* 'auto' takes what there is"):
        neural_memory_scan(*inputs, MemoryState.start(weights, B), impl="native")
    neural_memory_scan(*inputs, MemoryState.start(weights, B))


def test_nothing_is_learned_with_no_step_and_heads_and_streams_are_on_their_own():
    inputs, weights = problem(9, (4, 6, 4))
    q, k, v, theta, eta, alpha = inputs
    y, after = neural_memory_scan(
        q, k, v, torch.zeros_like(theta), eta, alpha, MemoryState.start(weights, B), chunk=4
    )
    for t in range(9):  # M_0, as far as it is not forgotten
        kept = (1 - alpha[:, :, : t + 1]).prod(-1)[..., None, None]
        faded = MemoryState.start(weights, B)
        faded = faded._replace(weights=tuple(kept * w for w in faded.weights))
        torch.testing.assert_close(y[:, :, t], neural_memory_read(q, faded)[:, :, t])
    torch.testing.assert_close(after.weights[0], kept * MemoryState.start(weights, B).weights[0])
    heads, streams = torch.tensor([2, 0, 1]), torch.tensor([1, 0])
    y, _ = neural_memory_scan(*inputs, MemoryState.start(weights, B), chunk=4)
    moved = [t[streams][:, heads] for t in inputs]
    state = MemoryState.start([w[heads] for w in weights], B)
    torch.testing.assert_close(neural_memory_scan(*moved, state, chunk=4)[0], y[streams][:, heads])


def test_a_state_can_be_copied_and_kept_in_a_file(tmp_path):
    inputs, weights = problem(7, (4, 6, 4))
    _, state = neural_memory_scan(*inputs, MemoryState.start(weights, B), chunk=4)
    expected = leaves(*neural_memory_scan(*inputs, state, chunk=4))
    torch.save(tuple(state), tmp_path / "state.pt")
    kept = MemoryState(*torch.load(tmp_path / "state.pt", weights_only=True))
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), kept):
        require_equal(leaves(*neural_memory_scan(*inputs, other, chunk=4)), expected)


def test_gate_products_are_the_unrolled_recurrence():
    generator = torch.Generator().manual_seed(0)
    alpha, eta, theta = (torch.rand(2, 3, 6, dtype=torch.float64, generator=generator) for _ in range(3))
    alpha[0, 0, 3], eta[0, 1, 2] = 1.0, 0.0
    products = gate_products(alpha, eta, theta)
    for token in range(6):  # a surprise of 1 at one token: S and W are the weights that it has later
        weight = momentum = torch.zeros(2, 3, dtype=torch.float64)
        for t in range(6):
            momentum = eta[..., t] * momentum + (theta[..., t] if t == token else 0.0)
            weight = (1 - alpha[..., t]) * weight + momentum
            torch.testing.assert_close(products.share[..., t, token], weight)
            torch.testing.assert_close(products.surprise[..., t, token], momentum)
    weight, momentum = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    for t in range(6):
        momentum = eta[..., t] * momentum
        weight = (1 - alpha[..., t]) * weight + momentum
        torch.testing.assert_close(products.carry[..., t], weight)
        torch.testing.assert_close(products.momentum[..., t], momentum)
    torch.testing.assert_close(products.keep, (1 - alpha).cumprod(-1))


@pytest.mark.parametrize("tokens", [1, 2, 7, 16])
def test_products_for_graphs_are_the_same(tokens, monkeypatch):
    """Exported, factors are multiplied in runs of powers of two, without a solver."""
    generator = torch.Generator().manual_seed(0)
    gates = [torch.rand(2, 3, tokens, dtype=torch.float64, generator=generator) for _ in range(3)]
    gates[0][0, 0, -1], gates[1][0, 1, 0] = 1.0, 0.0
    valid = torch.rand(2, 3, tokens, generator=generator) > 0.3
    expected = [gate_products(*gates), gate_products(*gates, valid)]
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    for one, other in zip([gate_products(*gates), gate_products(*gates, valid)], expected, strict=True):
        torch.testing.assert_close(tuple(one), tuple(other), rtol=1e-12, atol=1e-15)


def test_long_chunks_of_small_gates_do_not_slow_down_in_subnormal_numbers():
    gates = [torch.full((1, 200), share) for share in (0.5, 0.1, 0.1)]
    products = gate_products(*gates)
    for part in (products.share, products.surprise):
        assert not ((part > 0) & (part < torch.finfo(torch.float32).tiny)).any()


def test_second_derivatives_where_asked_for():
    inputs, weights = problem(5, (2, 3, 2))
    state = MemoryState.start(weights, B)

    def scan(k: Tensor, theta: Tensor) -> Tensor:
        q, _, v, _, eta, alpha = inputs
        return neural_memory_scan(q, k, v, theta, eta, alpha, state, chunk=2, impl="autograd")[0]

    variables = [inputs[1].clone().requires_grad_(), inputs[3].clone().requires_grad_()]
    assert torch.autograd.gradgradcheck(scan, variables)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_forward_mode_and_curvature_where_asked_for(act):
    inputs, weights = problem(7, (3, 4, 3))
    state = MemoryState.start(weights, B)

    def scan(theta: Tensor) -> Tensor:
        q, k, v, _, eta, alpha = inputs
        return neural_memory_scan(
            q, k, v, theta, eta, alpha, state, chunk=3, act=act, limit=1.0, impl="autograd"
        )[0].sin()

    theta, along = inputs[3], torch.randn(B, H, 7, dtype=torch.float64)
    _, found = torch.func.jvp(scan, (theta,), (along,))
    torch.testing.assert_close(found, (torch.func.jacrev(scan)(theta) * along).sum((-3, -2, -1)))
    curvature = torch.func.hessian(lambda t: scan(t).sum())(theta).flatten(0, 2).flatten(1)
    torch.testing.assert_close(curvature, curvature.T)


def test_gradients_are_finite_differences():
    inputs, weights = problem(5, (2, 3, 2))
    variables = [t.clone().requires_grad_() for t in (*inputs, *weights)]

    def scan(*x: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaves(*neural_memory_scan(*x[:6], MemoryState.start(x[6:], B), chunk=2, limit=1.0)))

    assert torch.autograd.gradcheck(scan, variables)


def test_a_detached_state_stops_the_gradient_and_resets_act_on_rows():
    inputs, weights = problem(8, (4, 4))
    inputs[2].requires_grad_()
    _, state = neural_memory_scan(*inputs, MemoryState.start(weights, B), chunk=3)
    y, _ = neural_memory_scan(*(t.detach() for t in inputs), state.detach(), chunk=3)
    assert state.weights[0].requires_grad and not y.requires_grad
    fresh = state.reset(torch.tensor([False, True]), weights)
    torch.testing.assert_close(fresh.weights[0][0], state.weights[0][0])
    torch.testing.assert_close(fresh.weights[0][1], weights[0])
    assert fresh.phase.tolist() == [2, 0] and not fresh.momentum[0][1].any()
    assert state.nbytes == 3 * state.weights[0].nbytes + state.phase.nbytes


def test_half_types_keep_a_full_state():
    inputs, weights = problem(20, (4, 6, 4), dtype=torch.bfloat16)
    state = MemoryState.start(weights, B)
    y, after = neural_memory_scan(*inputs, state, chunk=4)
    assert y.dtype == torch.bfloat16 and after.weights[0].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, under = neural_memory_scan(*(t.float() for t in inputs), state, chunk=4)
    require_equal(list(under.weights), list(after.weights))


def test_the_memory_learns_what_is_repeated():
    """Section 13A of the experiments: 32 random pairs again and again, no outer training."""
    generator = torch.Generator().manual_seed(0)
    k, v = (unit(torch.randn(1, 1, 32, 32, generator=generator)) for _ in range(2))
    weights = [torch.randn(1, n, m, generator=generator) / n**0.5 for n, m in ((32, 128), (128, 32))]
    state = MemoryState.start(weights, 1)
    step, inertia, forget = (torch.full((1, 1, 32), share) for share in (0.02, 0.9, 0.0))
    losses = []
    for _ in range(8):
        error = neural_memory_read(k, state, act="gelu") - v
        losses.append(error.square().sum(-1).mean().item())
        state = neural_memory_update(k, v, step, inertia, forget, state, chunk=16, act="gelu")
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.25 * losses[0]
