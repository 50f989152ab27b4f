"""The functions: every form equals the definition, in values and gradients; what holds of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from zoo_landmark import blocked
from zoo_landmark.functional import (
    grouped_softmax,
    landmark_attention,
    landmark_log_weights,
    landmark_softmax,
    section_ids,
)
from zoo_landmark.reference import landmark_weights


def _qkv(places, *, batch=2, heads=2, width=8, dtype=torch.float64, seed=0, queries=None):
    noise = torch.Generator().manual_seed(seed)
    sizes = (queries or places, places, places)
    return [torch.randn(batch, heads, n, width, dtype=dtype, generator=noise).requires_grad_() for n in sizes]


def _scores(places, *, batch=2, heads=2, queries=None, scale=1.0, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, heads, queries or places, places, dtype=torch.float64, generator=noise)


def _same(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def _with_gradients(y, inputs):
    return y.detach(), *torch.autograd.grad(y.sin().sum(), inputs)


# -- every form is the definition ------------------------------------------------------------

LANDMARKS = torch.tensor([[0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]]).bool()


@pytest.mark.parametrize("empty_block", ["drop", "keep"])
@pytest.mark.parametrize("padding", ["none", "right", "left", "scattered"])
@pytest.mark.parametrize("queries", [1, 5, 12])
def test_irregular_landmarks_and_padding_against_the_definition(queries, padding, empty_block):
    hidden = {
        "none": None,
        "right": torch.arange(12) >= torch.tensor([[12], [7]]),
        "left": torch.arange(12) < torch.tensor([[0], [5]]),
        "scattered": torch.rand(2, 12, generator=torch.Generator().manual_seed(3)) < 0.4,
    }[padding]
    hidden = None if hidden is None else hidden[:, None, None]
    scores = _scores(12, queries=queries).requires_grad_()
    found = landmark_softmax(scores, LANDMARKS, hidden, empty_block=empty_block)
    expected = landmark_weights(scores, LANDMARKS, hidden, empty_block=empty_block)
    for one, other in zip(_with_gradients(found, scores), _with_gradients(expected, scores), strict=True):
        _same(one, other)


@pytest.mark.parametrize("impl", ["dense", "blocked"])
@pytest.mark.parametrize(
    ("block_len", "places"), [(1, 7), (3, 1), (3, 3), (3, 4), (3, 5), (5, 6), (5, 15), (4, 50), (9, 4)]
)
def test_the_regular_grid_against_the_definition(block_len, places, impl, monkeypatch):
    monkeypatch.setattr(blocked, "QUERIES", 11)  # several tiles even here: 2 blocks of 5, 3 rows of 4
    monkeypatch.setattr(blocked, "TILE", 1700)
    inputs = _qkv(places)
    found = landmark_attention(*inputs, block_len=block_len, impl=impl)
    expected = landmark_attention(*inputs, block_len=block_len, impl="reference")
    for one, other in zip(_with_gradients(found, inputs), _with_gradients(expected, inputs), strict=True):
        _same(one, other, atol=1e-11)


def test_a_larger_one_against_the_dense_form():
    block_len, places = 50, 520
    inputs = _qkv(places, batch=3, heads=4, dtype=torch.float32)
    found, expected = (
        _with_gradients(landmark_attention(*inputs, block_len=block_len, impl=impl), inputs)
        for impl in ("blocked", "dense")
    )
    for one, other in zip(found, expected, strict=True):
        _same(one, other, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(
    places=st.integers(1, 14),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_any_landmarks_anywhere(places, seed, share, scale):
    landmarks = torch.rand(2, places, generator=torch.Generator().manual_seed(seed)) < share
    scores = _scores(places, scale=scale, seed=seed)
    weights = landmark_softmax(scores, landmarks)
    _same(weights, landmark_weights(scores, landmarks))
    sums = weights.sum(-1)
    seen = (landmark_weights(torch.zeros_like(scores), landmarks) > 0).any(-1)
    _same(sums, seen.double(), atol=1e-9)  # rows sum to 1, or see nothing at all
    assert not weights.masked_select(landmarks[:, None, None, :].expand(weights.shape)).any()


def test_gradients_of_the_blocked_form_are_those_of_finite_differences_twice():
    inputs = _qkv(7, batch=1, heads=1, width=2)

    def form(q, k, v):
        return landmark_attention(q, k, v, block_len=2, impl="blocked")

    assert torch.autograd.gradcheck(form, inputs)
    assert torch.autograd.gradgradcheck(form, inputs)


def test_the_log_weights_are_scores_in_the_own_section():
    scores = _scores(12, scale=2.0)
    later = torch.ones(12, 12, dtype=torch.bool).triu(1)[None, None]
    sections = section_ids(LANDMARKS)
    logits = landmark_log_weights(scores, LANDMARKS, later, sections)
    own = (sections[:, :, None] == sections[:, None, :]) & ~later[0] & ~LANDMARKS[:, None, :]
    own = own[:, None].expand(scores.shape)
    assert own.any() and torch.equal(logits[own], scores[own])
    _same(logits.softmax(-1).nan_to_num(), landmark_weights(scores, LANDMARKS))


# -- what holds of the weights ---------------------------------------------------------------


def test_without_landmarks_it_is_softmax_attention():
    scores, none = _scores(9), torch.zeros(2, 9, dtype=torch.bool)
    later = torch.ones(9, 9, dtype=torch.bool).triu(1)
    _same(landmark_softmax(scores, none), scores.masked_fill(later, -math.inf).softmax(-1))


def test_one_group_is_a_softmax_and_groups_are_apart():
    scores = _scores(8)
    _same(grouped_softmax(scores, torch.ones(8, dtype=torch.int64)), scores.softmax(-1))
    ids = torch.tensor([0, 2, 2, -1, 0, 2, 4, -1])
    weights = grouped_softmax(scores, ids, hidden=torch.arange(8) == 5)
    _same(weights[..., [0, 4]], scores[..., [0, 4]].softmax(-1))
    _same(weights[..., [1, 2]], scores[..., [1, 2]].softmax(-1))
    assert not weights[..., [3, 5, 7]].any() and bool((weights[..., 6] == 1).all())


def test_the_paper_s_products_of_two_softmaxes():
    """Equation by equation with `grouped_softmax`, on a grid of blocks of two and a landmark."""
    scores, landmarks = _scores(9, batch=1), (torch.arange(9) % 3 == 2)[None]
    weights = landmark_softmax(scores, landmarks)
    for i in range(9):
        own = i // 3
        ids = torch.arange(9) // 3  # regular tokens: the group of their block
        ids[landmarks[0]] = own  # other landmarks: the own group
        ids[3 * own + 2] = -1  # the own landmark is ignored
        sigma = grouped_softmax(scores[:, :, i], ids, hidden=torch.arange(9) > i)
        expected = sigma.clone()
        for j in range(9):
            if j // 3 != own:
                expected[..., j] *= sigma[..., j // 3 * 3 + 2]
        _same(weights[:, :, i], expected.masked_fill(landmarks, 0.0))


def test_what_happens_inside_a_block_stays_inside():
    scores, landmarks = _scores(12, batch=1), (torch.arange(12) % 4 == 3)[None]
    weights = landmark_softmax(scores, landmarks)
    shifted = scores.clone()
    shifted[..., 4:7] += 3.0  # all tokens of block 1: nothing changes for queries of block 2
    _same(landmark_softmax(shifted, landmarks)[:, :, 8:], weights[:, :, 8:])
    louder = scores.clone()
    louder[..., 7] += 1.5  # its landmark: its odds grow by e^1.5
    share, more = (landmark_softmax(s, landmarks)[:, :, 8:, 4:7].sum(-1) for s in (scores, louder))
    _same(more / (1 - more), share / (1 - share) * math.exp(1.5))


def test_tokens_of_another_block_may_change_places():
    q, k, v = _qkv(12, batch=1)
    order = torch.tensor([2, 0, 1, *range(3, 12)])
    for impl in ("blocked", "dense"):
        y = landmark_attention(q, k, v, block_len=3, impl=impl)
        mixed = landmark_attention(q, k[:, :, order], v[:, :, order], block_len=3, impl=impl)
        _same(mixed[:, :, 4:], y[:, :, 4:])


@pytest.mark.parametrize("impl", ["blocked", "dense"])
def test_no_query_sees_a_later_key_nor_the_value_of_a_landmark(impl):
    q, k, v = (t.detach() for t in _qkv(23))
    y = landmark_attention(q, k, v, block_len=4, impl=impl)
    changed = [t.clone() for t in (k, v)]
    for t in changed:
        t[:, :, 13:] = 99.0
    after = landmark_attention(q, *changed, block_len=4, impl=impl)
    _same(after[:, :, :13], y[:, :, :13])
    loud = v.clone()
    loud[:, :, 4::5] = 1e9
    _same(landmark_attention(q, k, loud, block_len=4, impl=impl), y)


@pytest.mark.parametrize("impl", ["blocked", "dense"])
@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_huge_scores_stay_finite(impl, scale):
    q, k, v = _qkv(20, dtype=torch.float32)
    y = landmark_attention(q * scale, k, v, block_len=4, impl=impl)
    grads = torch.autograd.grad(y.square().sum(), (q, k, v))
    assert all(bool(t.isfinite().all()) for t in (y, *grads))


@pytest.mark.parametrize("impl", ["blocked", "dense"])
def test_bfloat16_is_near_float32_also_under_autocast(impl):
    inputs = _qkv(40, dtype=torch.float32)
    expected = landmark_attention(*inputs, block_len=7, impl=impl)
    half = landmark_attention(*(t.bfloat16() for t in inputs), block_len=7, impl=impl)
    assert half.dtype == torch.bfloat16
    _same(half.float(), expected, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _same(landmark_attention(*inputs, block_len=7, impl=impl), expected, atol=1e-6)


class _Largest(TorchDispatchMode):
    """The most elements that one tensor has."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = [t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *found])
        return out


def test_the_blocked_form_never_holds_all_scores():
    batch, heads, places = 4, 2, 816
    inputs = _qkv(places, batch=batch, heads=heads, dtype=torch.float32)
    with _Largest() as largest:
        y = landmark_attention(*inputs, block_len=50)
        torch.autograd.grad(y.sum(), inputs)
    assert largest.elements <= blocked.TILE < batch * heads * places**2
    with _Largest() as largest:
        landmark_attention(*inputs, block_len=50, impl="dense")
    assert largest.elements >= batch * heads * places**2


def test_it_compiles():
    inputs = _qkv(17)

    def form(q, k, v):
        return landmark_attention(q, k, v, block_len=4)

    torch._dynamo.reset()
    compiled = torch.compile(form, backend="aot_eager")
    for one, other in zip(
        _with_gradients(compiled(*inputs), inputs), _with_gradients(form(*inputs), inputs), strict=True
    ):
        _same(one, other)
    torch._dynamo.reset()


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Give is_landmark, bool .B, S., or block_len"),
        ({"block_len": 0}, "block_len must be at least 1"),
        (
            {"block_len": 3, "impl": "flash"},
            "impl must be one of auto, dense, blocked, reference, got",
        ),
        ({"is_landmark": torch.zeros(2, 8)}, "is_landmark must be bool"),
        ({"is_landmark": torch.zeros(2, 9, dtype=torch.bool)}, r"is_landmark must be \(2, 8\), got \(2, 9\)"),
        ({"is_landmark": torch.zeros(2, 8, dtype=torch.bool), "impl": "blocked"}, "needs block_len"),
        (
            {"is_landmark": (torch.arange(8) == 2).expand(2, 8), "block_len": 3, "impl": "blocked"},
            "needs landmarks on the grid of block_len 3, but row 0 leaves it at place 2",
        ),
        (
            {"block_len": 3, "hidden": torch.zeros(2, 1, 1, 8, dtype=torch.bool), "impl": "blocked"},
            "cannot hide keys",
        ),
        ({"block_len": 3, "hidden": torch.zeros(2, 1, 1, 8)}, "hidden must be bool"),
        ({"block_len": 3, "hidden": torch.zeros(2, 8, dtype=torch.bool)}, r"hidden must be \(B or 1"),
    ],
)
def test_what_attention_refuses(options, said):
    with pytest.raises(ValueError, match=said):
        landmark_attention(*_qkv(8), **options)


def test_shapes_and_types_that_do_not_fit_are_refused():
    q, k, v = _qkv(8)
    with pytest.raises(ValueError, match="expected q"):
        landmark_attention(q, k[:, :1], v, block_len=3)
    with pytest.raises(ValueError, match="with S >= T"):
        landmark_attention(q, k[:, :, :5], v[:, :, :5], block_len=3)
    with pytest.raises(ValueError, match="one floating type"):
        landmark_attention(q, k.float(), v, block_len=3)
    with pytest.raises(ValueError, match="as many queries as keys, got 3 and 8"):
        landmark_attention(q[:, :, :3], k, v, block_len=3, impl="blocked")
    scores, landmarks = _scores(12), LANDMARKS
    with pytest.raises(ValueError, match="empty_block must be one of drop, keep"):
        landmark_softmax(scores, landmarks, empty_block="hide")
    with pytest.raises(ValueError, match=r"query_offset must lie within 0\.\.0"):
        landmark_softmax(scores, landmarks, query_offset=1)
    with pytest.raises(ValueError, match=r"query_sections must be \(2, 12\)"):
        landmark_log_weights(scores, landmarks, None, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="group_ids must be whole numbers"):
        grouped_softmax(scores, torch.zeros(12))
    with pytest.raises(ValueError, match="group_ids must be at least -1"):
        grouped_softmax(scores, torch.full((12,), -2))
    with pytest.raises(ValueError, match="group_ids must spread over"):
        grouped_softmax(scores, torch.zeros(5, dtype=torch.int64))
