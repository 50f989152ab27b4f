"""The fast forms equal the partitions written out: values, gradients, supports, masks, limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from zoo_combiner import combiner_attention, combiner_mixture, implied_attention
from zoo_combiner.checks import PLANS
from zoo_combiner.grid import default_block_size
from zoo_combiner.reference import implied, partition

#: Tokens and tokens per block: ragged, exact, one block, blocks of one, two tokens.
SHAPES = ((10, 4), (12, 4), (5, 8), (3, 1), (2, 2), (1, 4))
#: Around the powers of two, where the authors' code is one level short.
LOGSPARSE = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17)


def _cases() -> list[tuple[str, int, int | None]]:
    blocks = [(plan, *shape) for plan in PLANS if plan != "logsparse" for shape in SHAPES]
    return blocks + [("logsparse", tokens, None) for tokens in LOGSPARSE]


def _qkv(tokens: int, *, batch: int = 2, channels: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    noise = torch.Generator().manual_seed(seed)
    shape = (3, batch, 2, tokens, channels)
    return tuple(
        x.requires_grad_() for x in torch.randn(shape, generator=noise, dtype=torch.float64).unbind(0)
    )


def _mask(plan: str, tokens: int) -> Tensor:
    """Holes, or padding on the right for the plan that takes no holes."""
    if plan == "axial_rowmajor":
        return torch.arange(tokens) < torch.tensor([[max(1, tokens - tokens // 3)], [tokens // 2]])
    return torch.rand(2, tokens, generator=torch.Generator().manual_seed(1)) < 0.6


def _expected(q: Tensor, k: Tensor, mask: Tensor | None, **options) -> Tensor:
    size = options.pop("block_size")
    size = None if size is None else min(size, q.shape[2])
    keep = [None if mask is None else mask[b].nonzero().flatten().tolist() for b in range(len(q))]
    if mask is not None:  # what an absent token holds has no influence
        q, k = (x.masked_fill(~mask[:, None, :, None], 0.0) for x in (q, k))
    features = options.pop("span_qk", None)
    return torch.stack(
        [
            implied(
                q[b],
                k[b],
                block_size=size,
                keep=keep[b],
                span_qk=None if features is None else (features[0][b], features[1][b]),
                **options,
            )
            for b in range(len(q))
        ]
    )


def _refused(plan: str, tokens: int, size: int | None, causal: bool) -> bool:
    return plan == "axial_rowmajor" and not causal and bool(tokens % min(size or 1, tokens))


def _compare(found: Tensor, expected: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    gradients = (
        torch.autograd.grad(
            y.sin().sum(), leaves, allow_unused=True, materialize_grads=True, retain_graph=True
        )
        for y in (found, expected)
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize(("plan", "tokens", "size"), _cases())
def test_equals_the_implied_matrix_with_gradients(plan, tokens, size, causal, masked):
    if _refused(plan, tokens, size, causal):
        pytest.skip("refused, see test_checks.py")
    q, k, v = _qkv(tokens)
    mask = _mask(plan, tokens) if masked else None
    weights = _expected(q, k, mask, plan=plan, block_size=size, causal=causal)
    impls = ("auto", "einsum", "sdpa") if plan == "fixed" else ("auto", "einsum")
    for impl in impls:
        found = combiner_attention(
            q, k, v, plan=plan, block_size=size, causal=causal, key_mask=mask, impl=impl
        )
        _compare(found, weights @ v, (q, k, v))


@pytest.mark.parametrize("pooling", ["mean", "deepset"])
@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "axial_rowmajor"])
def test_other_poolings(plan, pooling):
    tokens, size = 10, None if plan == "logsparse" else 4
    q, k, v = _qkv(tokens)
    mask, options = _mask(plan, tokens), {"pooling": "mean"}
    if pooling == "deepset":
        w = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        options = {"span_qk": ((q @ w[0]).relu(), (k @ w[1]).relu())}
    for causal in (True, False):
        weights = _expected(q, k, mask, plan=plan, block_size=size, causal=causal, **options)
        found = combiner_attention(
            q, k, v, plan=plan, block_size=size, causal=causal, key_mask=mask, **options
        )
        _compare(found, weights @ v, (q, k, v))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
def test_row_keys(causal):
    q, k, v = _qkv(12)
    options = {"plan": "axial_rowmajor", "block_size": 4, "causal": causal}
    found = combiner_attention(q, k, v, row_summary="wsum", **options)
    _compare(found, _expected(q, k, None, row_summary="wsum", **options) @ v, (q, k, v))
    keys = torch.randn(2, 3, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = combiner_attention(q, k, v, row_summary="proj", row_keys=keys, **options)
    by_place = [{(r, c): keys[b, r, c] for r in range(3) for c in range(4)} for b in range(2)]
    expected = [implied(q[b], k[b], row_keys=by_place[b], **options) @ v[b] for b in range(2)]
    _compare(found, torch.stack(expected), (q, k, v))


@settings(max_examples=25, deadline=None)
@given(
    plan=st.sampled_from(PLANS),
    tokens=st.integers(1, 40),
    size=st.integers(1, 12),
    causal=st.booleans(),
)
def test_rows_sum_to_one_and_reach_all_that_may_be_seen(plan, tokens, size, causal):
    size = None if plan == "logsparse" else size
    if _refused(plan, tokens, size, causal):
        causal = True
    q, k, _ = _qkv(tokens, batch=1)
    weights = implied_attention(q, k, plan=plan, block_size=size, causal=causal)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    support = torch.ones(tokens, tokens).tril() if causal else torch.ones(tokens, tokens)
    assert torch.equal(weights > 0, (support > 0).expand_as(weights))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both"])
@pytest.mark.parametrize("plan", PLANS)
def test_partitions_cover_each_token_once(plan, causal):
    for tokens, size in ((17, 4), (16, 4), (9, 2)):
        for i in range(tokens):
            direct, spans = partition(plan, i, tokens, size, causal)
            covered = sorted(direct + [j for span in spans for j in span])
            seen = list(range(i + 1 if causal else tokens))
            if plan == "axial_mixture":  # what is not direct is covered by a row and by a column
                assert sorted(direct + [j for j in covered if j not in direct][::2]) == seen
            else:
                assert covered == seen


@pytest.mark.parametrize("plan", ["fixed", "axial_vertical", "axial_horizontal", "axial_mixture"])
def test_summaries_have_rank_one(plan):
    q, k, _ = _qkv(16, batch=1, channels=8)
    weights = implied_attention(q, k, plan=plan, block_size=4)[0, 0]
    if plan == "fixed":
        assert torch.linalg.matrix_rank(weights[8:12, :4], rtol=1e-10) == 1
        assert torch.linalg.matrix_rank(weights[8:12, 8:12], rtol=1e-10) == 4
    else:  # queries of one row but other columns look at one column through the same law; (0, 0) and (1, 0)
        columns = weights[[9, 10, 11]][:, [0, 4]]
        assert (torch.linalg.matrix_rank(columns, rtol=1e-10) == 1) == (plan == "axial_vertical")


@pytest.mark.parametrize("plan", PLANS)
def test_the_future_has_no_influence(plan):
    size = None if plan == "logsparse" else 4
    q, k, v = _qkv(15)
    out = combiner_attention(q, k, v, plan=plan, block_size=size)
    for at in (3, 6, 11):
        changed = [x.detach().clone() for x in (q, k, v)]
        for x in changed:
            x[:, :, at:] += 1
        other = combiner_attention(*changed, plan=plan, block_size=size)
        torch.testing.assert_close(other[:, :, :at], out[:, :, :at], rtol=0, atol=1e-13)
        for gradient in torch.autograd.grad(out[:, :, at - 1].sum(), (q, k, v), retain_graph=True):
            assert gradient[:, :, at:].eq(0).all()


@pytest.mark.parametrize(("size", "impl"), [(16, "sdpa"), (40, "einsum"), (1, "sdpa"), (1, "einsum")])
@pytest.mark.parametrize("causal", [True, False])
def test_fixed_is_softmax_attention_in_its_limits(size, impl, causal):
    q, k, v = _qkv(16)
    found = combiner_attention(q, k, v, block_size=size, causal=causal, impl=impl)
    _compare(found, F.scaled_dot_product_attention(q, k, v, is_causal=causal), (q, k, v))


def test_equal_keys_within_a_span_are_weighed_alike():
    q, k, _ = _qkv(12, batch=1)
    k = k.detach().unflatten(2, (3, 4))[:, :, :, :1].expand(-1, -1, -1, 4, -1).flatten(2, 3)
    weights = implied_attention(q, k, block_size=4)
    earlier = weights[:, :, 8:, :8].unflatten(3, (2, 4))
    torch.testing.assert_close(earlier, earlier.mean(-1, keepdim=True).expand_as(earlier))


def test_mixture_is_the_mean_of_its_plans():
    q, k, v = _qkv(10)
    plans = ("axial_vertical", "axial_horizontal", "logsparse")
    singles = [
        combiner_attention(q, k, v, plan=plan, block_size=None if plan == "logsparse" else 4)
        for plan in plans
    ]
    torch.testing.assert_close(
        combiner_mixture(q, k, v, plans=plans, block_size=4), torch.stack(singles).mean(0)
    )
    weighted = combiner_mixture(q, k, v, plans=plans[:2], weights=(0.25, 0.75), block_size=4)
    torch.testing.assert_close(weighted, 0.25 * singles[0] + 0.75 * singles[1])


SPARSE = {
    "fixed": lambda i, j: i // 4 == j // 4 or j % 4 == 3,
    "axial_rowmajor": lambda i, j: i // 4 == j // 4 or i % 4 == j % 4,
    "axial_vertical": lambda i, j: i // 4 == j // 4 or i % 4 == j % 4,
    "axial_mixture": lambda i, j: i // 4 == j // 4 or i % 4 == j % 4,
    "logsparse": lambda i, j: i == j or any(i >> b & 1 and j == (i >> b << b) - 1 for b in range(5)),
}


@pytest.mark.parametrize("plan", SPARSE)
def test_without_summaries_it_is_sparse_attention(plan):
    q, k, v = _qkv(16)
    allowed = torch.tensor([[j <= i and SPARSE[plan](i, j) for j in range(16)] for i in range(16)])
    found = combiner_attention(
        q, k, v, plan=plan, block_size=None if plan == "logsparse" else 4, pooling="none"
    )
    _compare(found, F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), (q, k, v))


@pytest.mark.parametrize("plan", PLANS)
def test_a_row_of_a_batch_that_keeps_nothing_is_zero(plan):
    tokens, size = 12, None if plan == "logsparse" else 4
    q, k, v = _qkv(tokens)
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[1] = False
    for causal in (True, False):
        out = combiner_attention(q, k, v, plan=plan, block_size=size, causal=causal, key_mask=mask)
        assert out[1].eq(0).all() and out[0].ne(0).all()
        with torch.autograd.detect_anomaly(check_nan=True):
            gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
        assert all(g.isfinite().all() and g[1].eq(0).all() for g in gradients)


@pytest.mark.parametrize("plan", PLANS)
def test_absent_tokens_may_hold_anything(plan):
    size = None if plan == "logsparse" else 4
    q, k, v = _qkv(10)
    mask = torch.arange(10) < 7
    broken = [x.detach().masked_fill(~mask[:, None], float("nan")) for x in (q, k, v)]
    found = combiner_attention(*broken, plan=plan, block_size=size, key_mask=mask.expand(2, -1))
    expected = combiner_attention(q[:, :, :7], k[:, :, :7], v[:, :, :7], plan=plan, block_size=size)
    torch.testing.assert_close(found[:, :, :7], expected)


@pytest.mark.parametrize("plan", PLANS)
def test_gradients_equal_finite_differences(plan):
    size = None if plan == "logsparse" else 2
    inputs = tuple(x[:1, :1] for x in _qkv(5, channels=2))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return combiner_attention(q, k, v, plan=plan, block_size=size)

    assert torch.autograd.gradcheck(attend, tuple(x.detach().requires_grad_() for x in inputs))


@pytest.mark.parametrize("plan", ["fixed", "logsparse"])
def test_gradients_can_be_differentiated(plan):
    size = None if plan == "logsparse" else 2

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return combiner_attention(q, k, v, plan=plan, block_size=size)

    inputs = tuple(x[:1, :1, :, :1].detach().requires_grad_() for x in _qkv(4))
    assert torch.autograd.gradgradcheck(attend, inputs)


@pytest.mark.parametrize("plan", PLANS)
def test_dropout_keeps_the_mean(plan):
    size = None if plan == "logsparse" else 4
    q, k, v = (x[:1] for x in _qkv(12))
    torch.manual_seed(0)
    many = [x.expand(2000, -1, -1, -1) for x in (q, k, v)]
    out = combiner_attention(*many, plan=plan, block_size=size, dropout_p=0.2)
    assert (out[0] - out[1]).abs().max() > 1e-3
    exact = combiner_attention(q, k, v, plan=plan, block_size=size)
    torch.testing.assert_close(out.mean(0, keepdim=True), exact, rtol=0, atol=0.1)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


class Sizes(TorchDispatchMode):
    """The largest tensor that is made, and how many products of a query and a key end in a softmax."""

    largest, scores = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        made = out if isinstance(out, tuple | list) else (out,)
        self.largest = max([self.largest, *(x.numel() for x in made if isinstance(x, Tensor))])
        if name == "aten::_softmax":
            self.scores += out.numel()
        elif "scaled_dot_product" in name and "backward" not in name:
            self.scores += args[0].shape[:-1].numel() * args[1].shape[-2]
        return out


@pytest.mark.parametrize("plan", PLANS)
def test_scores_are_as_many_as_said_and_no_tensor_is_quadratic(plan):
    tokens, s, n = 512, 16, 32
    q, k, v = (x[:1, :1] for x in _qkv(tokens))
    with Sizes() as sizes:
        out = combiner_attention(q, k, v, plan=plan, block_size=None if plan == "logsparse" else s)
    direct_and_spans = {  # the joint softmax of a query
        "fixed": s + n,
        "logsparse": 9 + 1,
        "axial_rowmajor": s + n,
        "axial_vertical": n + 2 * s,
        "axial_horizontal": s + 3 * n,
        "axial_mixture": 2 * s + 3 * n,
    }
    within_spans = {  # the local laws; of the nodes of logsparse the left half is asked for
        "fixed": 1,
        "logsparse": 8 / 2,
        "axial_rowmajor": s,
        "axial_vertical": n,
        "axial_horizontal": 2 * s,
        "axial_mixture": n + 2 * s,
    }
    assert sizes.scores == tokens * (direct_and_spans[plan] + within_spans[plan])
    with sizes:
        torch.autograd.grad(out.sum(), (q, k, v))
    assert sizes.largest <= tokens * max(direct_and_spans[plan], q.shape[-1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("plan", PLANS)
def test_low_precision_is_finite_and_close(plan, dtype):
    size = None if plan == "logsparse" else 4
    q, k, v = (x.detach() for x in _qkv(20))
    low = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    mask = torch.arange(20) < torch.tensor([[13], [0]])
    for causal, key_mask in ((True, None), (False, None), (True, mask), (False, mask)):
        options = {"plan": plan, "block_size": size, "causal": causal, "key_mask": key_mask}
        out = combiner_attention(*low, **options)
        assert out.dtype == dtype
        exact = combiner_attention(*(x.detach().double() for x in low), **options)
        atol = {torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=atol)
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), low))


def test_known_mistakes_would_be_noticed():
    """What goes wrong in the authors' code: own block counted twice, sums for maxima, a level too few."""
    q, k, v = _qkv(9)
    fixed = combiner_attention(q, k, v, block_size=3, causal=False)
    blocks = [x.unflatten(2, (3, 3)) for x in (q, k, v)]
    keys = blocks[1].amax(3)
    law = (torch.einsum("bhnd,bhnjd->bhnj", blocks[0].amax(3), blocks[1]) / 3**0.5).softmax(-1)
    values = torch.einsum("bhnj,bhnjd->bhnd", law, blocks[2])
    twice = torch.cat(
        [
            F.scaled_dot_product_attention(
                blocks[0][:, :, b],
                torch.cat((blocks[1][:, :, b], keys), 2),
                torch.cat((blocks[2][:, :, b], values), 2),
            )
            for b in range(3)
        ],
        2,
    )
    assert (twice - fixed).abs().max() > 1e-2
    sums = combiner_attention(
        q, k, v, plan="axial_vertical", block_size=3, span_qk=(q.cumsum(2), k.cumsum(2))
    )
    assert (sums - combiner_attention(q, k, v, plan="axial_vertical", block_size=3)).abs().max() > 1e-2
    last = combiner_attention(q, k, v, plan="logsparse")[:, :, -1]
    assert (last - v[:, :, -1]).abs().max() > 1e-2  # one level short, the last of 2^p + 1 sees itself alone


@pytest.mark.parametrize(
    ("tokens", "size"), [(1, 1), (2, 1), (16, 4), (64, 8), (2048, 32), (4096, 64), (200, 16)]
)
def test_default_block_size(tokens, size):
    assert default_block_size(tokens) == size
