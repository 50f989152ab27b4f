"""Lightning attention: chunked == parallel == recurrent, at any length, chunk, split, padding or packing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from zoo_transnormer import (
    decay_slopes,
    lightning_attention,
    lightning_attention_parallel,
    lightning_attention_recurrent,
    lightning_attention_step,
)
from zoo_transnormer.native import obstacle

from zoo.layers.operations import OperationCounter
from zoo.testing.cost import growth, work_of_call

H, D, E = 4, 6, 5
DECAYS = {
    "alibi": decay_slopes(H, 1, 4, "alibi"),
    "paper": decay_slopes(H, 1, 4, "paper"),
    "extreme": torch.tensor([0.0, 5.0, 20.0, 60.0]),
    "none": decay_slopes(H, 1, 4, "none"),
}


@pytest.fixture(scope="module", params=["native", "torch"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything here holds for the loops in C and for tensor operations."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setenv("ZOO_KERNELS", "0")
        elif reason := obstacle(torch.zeros(1), torch.float64):
            pytest.skip(reason)
        yield request.param


def inputs(tokens: int, *, batch: int = 2, dtype=torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, H, tokens, D), (batch, H, tokens, D), (batch, H, tokens, E), (batch, H, D, E))
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes
    ]


def with_gradients(form, leaves) -> list[Tensor]:
    """Outputs, the final state and the gradients of all leaves, for a loss that sees both."""
    out, state = form(*leaves)
    seen = torch.Generator().manual_seed(9)
    losses = [
        (x * torch.randn(x.shape, generator=seen, dtype=torch.float64).to(x.dtype)).sum()
        for x in (out, state)
    ]
    return [out, state, *torch.autograd.grad(sum(losses), leaves)]


def assert_same(found, expected, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if not other.numel():
            continue
        scale = other.abs().max().clamp_min(1e-3)
        assert ((one - other).abs().max() / scale).item() <= tolerance


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("tokens", [1, 5, 31, 64, 65, 100, 130])
def test_chunked_is_the_recurrence(tokens, decay):
    leaves, slopes = inputs(tokens), DECAYS[decay]
    expected = with_gradients(
        lambda q, k, v, s: lightning_attention_recurrent(q, k, v, slopes, s, scale=0.7), leaves
    )
    found = with_gradients(
        lambda q, k, v, s: lightning_attention(
            q, k, v, slopes, scale=0.7, initial_state=s, output_final_state=True
        ),
        leaves,
    )
    assert_same(found, expected, 1e-10)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("tokens", [1, 31, 64, 130])
def test_the_form_for_graphs_is_the_same_function(tokens, decay, monkeypatch):
    """Exported, nothing is written in place and there are no pieces."""
    slopes = DECAYS[decay]
    mask = torch.rand(2, tokens, generator=torch.Generator().manual_seed(3)) > 0.3

    def run() -> list[Tensor]:
        q, k, v, s = (x.detach() for x in inputs(tokens))
        parts = [{}, {"key_padding_mask": mask}]
        options = {"initial_state": s, "output_final_state": True}
        return [x for part in parts for x in lightning_attention(q, k, v, slopes, **part, **options)]

    expected = run()
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert_same(run(), expected, 1e-12)


@settings(deadline=None, max_examples=25)
@given(
    tokens=st.integers(1, 300),
    chunk=st.sampled_from([1, 16, 64, 100]),
    split=st.floats(0, 1),
    decay=st.sampled_from(list(DECAYS)),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_length_chunk_and_split(tokens, chunk, split, decay, dtype):
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    q, k, v, _ = inputs(tokens, dtype=dtype)
    slopes, cut = DECAYS[decay], round(split * tokens)
    parallel = lightning_attention_parallel(q, k, v, slopes)
    whole, final = lightning_attention(q, k, v, slopes, chunk_size=chunk, output_final_state=True)
    assert_same([whole], [parallel], tolerance)
    first, carried = lightning_attention(
        *(x[:, :, :cut] for x in (q, k, v)), slopes, chunk_size=chunk, output_final_state=True
    )
    second, end = lightning_attention(
        *(x[:, :, cut:] for x in (q, k, v)),
        slopes,
        chunk_size=chunk,
        initial_state=carried,
        output_final_state=True,
    )
    assert_same([torch.cat((first, second), 2), end], [whole, final], tolerance)


def test_many_pieces_and_rows(monkeypatch):
    """Longer than a piece, a number of chunks and a number of rows that no piece divides."""
    monkeypatch.setattr("zoo_transnormer.chunked.PIECE", 512)
    for tokens, batch in ((1300, 1), (150, 5)):
        q, k, v, state = inputs(tokens, batch=batch)
        found, end = lightning_attention(
            q, k, v, DECAYS["alibi"], initial_state=state, output_final_state=True
        )
        expected, last = lightning_attention_recurrent(q, k, v, DECAYS["alibi"], state)
        assert_same([found, end], [expected, last], 1e-10)
        grads = torch.autograd.grad((found * found.detach().sin()).sum() + end.sum(), (q, k, v, state))
        found = torch.autograd.grad((expected * expected.detach().sin()).sum() + last.sum(), (q, k, v, state))
        assert_same(grads, found, 1e-9)


def test_a_second_backward_finds_all_as_it_was():
    """Results are written in place, but never into what was given or kept."""
    leaves = inputs(150)
    given = [x.detach().clone() for x in leaves]
    out, end = lightning_attention(
        *leaves[:3], DECAYS["alibi"], initial_state=leaves[3], output_final_state=True
    )
    loss = out.square().sum() + end.square().sum()
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(leaves, given, strict=True))


def test_gradients_by_finite_differences():
    leaves = inputs(7, batch=1)
    mask = torch.tensor([[True, True, False, True, True, True, False]])

    def form(q, k, v, state):
        return lightning_attention(
            q,
            k,
            v,
            DECAYS["alibi"],
            chunk_size=3,
            initial_state=state,
            output_final_state=True,
            key_padding_mask=mask,
        )

    assert torch.autograd.gradcheck(form, leaves)


@pytest.mark.parametrize("decay", ["alibi", "none"])  # slope 0: no test of signs may let the future in
def test_the_future_is_not_seen(decay):
    q, k, v, _ = inputs(150)
    changed = [x.detach().clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, 70:] += 100
    for form in (lightning_attention_parallel, lambda *a: lightning_attention(*a)[0]):
        before, after = form(q, k, v, DECAYS[decay]), form(*changed, DECAYS[decay])
        assert torch.equal(before[:, :, :70], after[:, :, :70])
        assert not torch.allclose(before[:, :, 70:], after[:, :, 70:])


def test_decay_is_applied_without_a_mask():
    """One key, seen by every later query with lambda^(t - s)."""
    q, v = torch.ones(1, 1, 9, 1), torch.ones(1, 1, 9, 1)
    k = torch.zeros(1, 1, 9, 1)
    k[:, :, 2] = 1
    expected = torch.tensor([0.0, 0.0, *(2.0**-age for age in range(7))])
    slopes = torch.tensor([0.6931471805599453])
    for out in (lightning_attention(q, k, v, slopes)[0], lightning_attention_parallel(q, k, v, slopes)):
        torch.testing.assert_close(out.flatten(), expected)


def test_extreme_slopes_and_sizes_are_finite():
    q, k, v, _ = inputs(3000, batch=1, dtype=torch.float32)
    for slopes in (torch.zeros(H), torch.full((H,), 80.0), torch.full((H,), 1e30)):
        out, state = lightning_attention(q, k, v, slopes, output_final_state=True)
        grads = torch.autograd.grad(out.sum() + state.sum(), (q, k, v))
        assert all(x.isfinite().all() for x in (out, state, *grads))
    half = [x.detach().half() for x in (q, k, v)]
    assert lightning_attention(*half, torch.zeros(H))[0].isfinite().all()


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 192])
def test_any_head_width(channels):
    q, k, v = (torch.randn(1, 2, 70, channels) for _ in range(3))
    slopes = torch.tensor([0.1, 0.5])
    found = lightning_attention(q, k, v, slopes)[0]
    assert_same([found], [lightning_attention_parallel(q, k, v, slopes)], 1e-5)


def test_bfloat16_inputs_keep_a_float32_state():
    q, k, v, _ = inputs(500, dtype=torch.bfloat16)
    exact = lightning_attention_parallel(q.double(), k.double(), v.double(), DECAYS["alibi"])
    out, state = lightning_attention(q, k, v, DECAYS["alibi"], output_final_state=True)
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert ((out.double() - exact).norm() / exact.norm()).item() < 2e-2


def test_a_long_decode_does_not_drift():
    q, k, v, _ = inputs(2000, batch=1)
    slopes = torch.full((H,), 2.0**-8)
    _, exact = lightning_attention(q, k, v, slopes, output_final_state=True)
    half = [x.detach().bfloat16() for x in (q, k, v)]
    _, reached = lightning_attention_recurrent(*half, slopes)
    _, of_half = lightning_attention(*(x.double() for x in half), slopes, output_final_state=True)
    assert_same([reached.double()], [of_half], 1e-5)
    assert_same([of_half], [exact], 2e-2)


def test_steps_equal_prefill_and_leave_the_state_alone():
    q, k, v, state = inputs(20)
    expected, end = lightning_attention(
        q, k, v, DECAYS["paper"], initial_state=state, output_final_state=True
    )
    kept = state.detach().clone()
    now, outs = state, []
    for t in range(20):
        out, now = lightning_attention_step(q[:, :, t], k[:, :, t], v[:, :, t], DECAYS["paper"], now)
        outs.append(out)
    assert_same([torch.stack(outs, 2), now], [expected, end], 1e-12)
    assert torch.equal(state, kept)


def test_rows_and_heads_do_not_meet():
    q, k, v, _ = inputs(70)
    slopes = DECAYS["alibi"]
    out = lightning_attention(q, k, v, slopes)[0]
    rows, heads = torch.tensor([1, 0]), torch.tensor([2, 0, 3, 1])
    moved = [x[rows][:, heads] for x in (q, k, v)]
    assert torch.allclose(lightning_attention(*moved, slopes[heads])[0], out[rows][:, heads])
    by_row = torch.stack((slopes, 2 * slopes))
    out = lightning_attention(q, k, v, by_row)[0]
    for row in range(2):
        alone = lightning_attention(*(x[row : row + 1] for x in (q, k, v)), by_row[row])[0]
        assert torch.allclose(out[row : row + 1], alone)


MASKS = {
    "right": [[1] * 90, [1] * 61 + [0] * 29],
    "left": [[0] * 64 + [1] * 26, [1] * 90],
    "holes": [[1, 0, 0] * 30, [0, 1] * 45],
    "nothing": [[0] * 90, [1] * 90],
}


@pytest.mark.parametrize("kind", MASKS)
def test_padding_changes_nothing(kind):
    """Values, gradients and the state are those of the kept tokens alone, whatever the padding holds."""
    mask = torch.tensor(MASKS[kind], dtype=torch.bool)
    clean = inputs(90)
    q, k, v, state = (x.detach().clone() for x in clean)
    for x in (q, k, v):
        x.masked_fill_(~mask[:, None, :, None], torch.nan)
    leaves = [x.requires_grad_() for x in (q, k, v, state)]
    options = {"chunk_size": 16, "output_final_state": True}
    out, end = lightning_attention(
        *leaves[:3], DECAYS["alibi"], initial_state=state, key_padding_mask=mask, **options
    )
    assert (out.masked_select(~mask[:, None, :, None]) == 0).all()
    parallel = lightning_attention_parallel(*leaves[:3], DECAYS["alibi"], key_padding_mask=mask)
    from_nothing, _ = lightning_attention(*leaves[:3], DECAYS["alibi"], key_padding_mask=mask)
    assert_same([from_nothing], [parallel], 1e-10)
    grads = torch.autograd.grad((out * out.detach().cos()).sum() + end.sum(), leaves)
    for row in range(2):
        alone = [x[row : row + 1, :, mask[row]].detach().requires_grad_() for x in clean[:3]]
        before = state[row : row + 1].detach().requires_grad_()
        single, last = lightning_attention(*alone, DECAYS["alibi"], initial_state=before, **options)
        assert_same([out[row : row + 1, :, mask[row]], end[row : row + 1]], [single, last], 1e-10)
        wanted = torch.autograd.grad(
            (single * single.detach().cos()).sum() + last.sum(), [*alone, before], allow_unused=True
        )
        for found, expected in zip(grads, wanted, strict=True):
            if expected is not None:
                found = found[row : row + 1]
                assert_same([found if expected is wanted[3] else found[:, :, mask[row]]], [expected], 1e-10)


def test_packed_sequences_are_separate():
    lengths = [5, 0, 64, 1, 80]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    q, k, v, _ = inputs(150, batch=1)
    states = inputs(1, batch=5)[3]
    out, end = lightning_attention(
        q, k, v, DECAYS["alibi"], initial_state=states, output_final_state=True, cu_seqlens=ends
    )
    expected = []
    for index, (start, stop) in enumerate(pairwise(ends.tolist())):
        one = [x[:, :, start:stop] for x in (q, k, v)]
        single, last = lightning_attention(
            *one, DECAYS["alibi"], initial_state=states[index : index + 1], output_final_state=True
        )
        expected.append(single)
        assert_same([end[index : index + 1]], [last], 1e-12)
    assert_same([out], [torch.cat(expected, 2)], 1e-12)


def test_an_empty_prefill_changes_nothing():
    q, k, v, state = inputs(0)
    out, end = lightning_attention(q, k, v, DECAYS["alibi"], initial_state=state, output_final_state=True)
    assert out.shape == (2, H, 0, E) and torch.equal(end, state)
    out, end = lightning_attention(q, k, v, DECAYS["alibi"], output_final_state=True)
    assert end.shape == (2, H, D, E) and not end.any()


@pytest.mark.parametrize("packed", [False, True])
def test_the_backward_is_linear_too(packed):
    """Operations and elements written, forward and backward; a loop over slices would be quadratic."""
    work = []
    for tokens in (2048, 4096, 8192):
        q, k, v = (torch.randn(1, 2, tokens, 16, requires_grad=True) for _ in range(3))
        ends = torch.arange(0, tokens + 1, 256) if packed else None
        with OperationCounter(work_of_call) as counter:
            lightning_attention(q, k, v, torch.tensor([0.1, 0.5]), cu_seqlens=ends)[0].sum().backward()
        work.append(counter.total)
    assert growth(work) < 1.05


def test_it_compiles_to_one_graph():
    leaves = inputs(90)
    torch._dynamo.reset()

    def form(q, k, v, state):
        return lightning_attention(q, k, v, DECAYS["alibi"], initial_state=state, output_final_state=True)

    compiled = torch.compile(form, backend="aot_eager", fullgraph=True)
    assert_same(with_gradients(compiled, leaves), with_gradients(form, leaves), 1e-12)
    torch._dynamo.reset()


def test_autocast_leaves_the_sums_alone():
    q, k, v, _ = inputs(200, dtype=torch.float32)
    expected = lightning_attention(q, k, v, DECAYS["alibi"])[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lightning_attention(q, k, v, DECAYS["alibi"])[0]
        parallel = lightning_attention_parallel(q, k, v, DECAYS["alibi"])
    assert torch.equal(found, expected)
    assert_same([parallel], [expected], 1e-5)


@pytest.mark.parametrize("widths", [(16, 16), (64, 48), (8, 33), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_vectors_and_what_is_left_of_them(widths, dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, H, 137, w) for w in (widths[0], widths[0], widths[1])] + [(2, H, *widths)]
    leaves = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]
    slopes = DECAYS["alibi"]
    expected = with_gradients(lambda q, k, v, s: lightning_attention_recurrent(q, k, v, slopes, s), leaves)
    for chunk_size in (7, 64, 1000):
        found = with_gradients(
            lambda q, k, v, s, c=chunk_size: lightning_attention(
                q, k, v, slopes, initial_state=s, output_final_state=True, chunk_size=c
            ),
            leaves,
        )
        assert_same(found, expected, 1e-10 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("before", ["nothing", "a constant", "a leaf"])
@pytest.mark.parametrize("wanted", ["outputs", "state"])
@pytest.mark.parametrize("tokens", [40, 200])
def test_only_what_is_wanted_has_a_gradient(tokens, wanted, before):
    q, k, v, s = inputs(tokens)
    leaves = [q, k, v, s] if before == "a leaf" else [q, k, v]
    state = None if before == "nothing" else s if before == "a leaf" else s.detach()

    def loss(form) -> list[Tensor]:
        out = form()[wanted == "state"].sin().sum()
        return torch.autograd.grad(out, leaves, allow_unused=True, materialize_grads=True)

    found = loss(
        lambda: lightning_attention(q, k, v, DECAYS["alibi"], initial_state=state, output_final_state=True)
    )
    expected = loss(lambda: lightning_attention_recurrent(q, k, v, DECAYS["alibi"], state))
    assert_same(found, expected, 1e-12)


def test_a_graph_is_that_of_any_batch():
    class Attending(torch.nn.Module):
        def forward(self, q, k, v):
            return lightning_attention(q, k, v, DECAYS["alibi"])[0]

    given, others = ([x.detach() for x in inputs(130, batch=batch)[:3]] for batch in (2, 5))
    several = {0: torch.export.Dim.DYNAMIC}
    graph = torch.export.export(Attending(), tuple(given), dynamic_shapes=(several, several, several))
    assert_same([graph.module()(*others)], [Attending()(*others)], 1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_torch_knows_the_operations(padded, backend):
    """What they promise of types, shapes and inputs that stay as they are."""
    if backend == "torch":
        pytest.skip("they are the loops in C")
    q, k, v, state = (x.detach() for x in inputs(70))
    lengths = torch.tensor([70, 30]) if padded else None
    slopes = DECAYS["alibi"].double()
    operations, checks = torch.ops.zoo_transnormer, ("test_schema", "test_faketensor")
    given = (q, k, v, slopes, state, lengths, 64, True)
    torch.library.opcheck(operations.lightning.default, given, test_utils=checks)
    states = operations.lightning(*given)[2]
    for wanted, last in ((True, None), (False, state)):
        given = (q, k, v, slopes, lengths, states, 64, True, v, last, wanted)
        torch.library.opcheck(operations.lightning_backward.default, given, test_utils=checks)


def test_operations_are_counted():
    q, k, v, _ = inputs(256)
    with OperationCounter() as forward:
        out, _ = lightning_attention(q, k, v, DECAYS["alibi"])
    with OperationCounter() as backward:
        out.sum().backward()
    rows, inter = (
        2 * H * 256,
        4 * D * E,
    )  # what passes through the state; within a chunk it depends on the form
    within = 2 * 64 * (D + E)
    assert rows * (inter + within / 2) <= forward.total <= rows * (inter + within)
    assert 2 * forward.total <= backward.total <= 3 * forward.total
