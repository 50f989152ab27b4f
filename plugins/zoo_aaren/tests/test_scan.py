"""Every form of the scan is the softmax over each prefix, for any scores, masks, lengths and splits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_aaren import AarenState, aaren_combine, aaren_pool, aaren_scan, aaren_step
from zoo_aaren.chunked import prefix_sums, suffix_sums
from zoo_aaren.native import obstacle
from zoo_aaren.reference import prefix_attention, recurrent_attention

from zoo.layers import native
from zoo.layers.operations import OperationCounter

NEEDS_COMPILER = pytest.mark.skipif(bool(obstacle(torch.zeros(1))), reason="no C compiler")
FORMS = [
    pytest.param({"impl": "native"}, id="native", marks=NEEDS_COMPILER),
    pytest.param({"impl": "loop"}, id="loop"),
    pytest.param({"impl": "tree"}, id="tree"),
    pytest.param({"impl": "dense"}, id="dense"),
    pytest.param({"impl": "blocked", "block_size": 1}, id="blocked-1"),
    pytest.param({"impl": "blocked", "block_size": 7}, id="blocked-7"),
    pytest.param({"impl": "blocked"}, id="blocked"),
    pytest.param({"impl": "auto"}, id="auto"),
]
N = 83


def _score_regimes() -> dict[str, Tensor]:
    noise = torch.randn(2, 3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    spike = noise.clone()
    spike[..., 40] = 500.0
    return {
        "normal": noise,
        "wide": 30 * noise,
        "rising": torch.linspace(0, 400, N).double() + noise,
        "falling": torch.linspace(400, 0, N).double() + noise,
        "plus_500": torch.full_like(noise, 500.0),
        "minus_500": torch.full_like(noise, -500.0),
        "alternating": 500.0 * (-1.0) ** torch.arange(N) + noise,
        "constant": torch.zeros_like(noise),
        "spike": spike,
    }


REGIMES = _score_regimes()


def _values(tokens: int = N, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, tokens, 5, dtype=torch.float64, generator=generator)


def _holes(tokens: int = N) -> Tensor:
    """One row with holes anywhere and an empty start, one row right-padded."""
    mask = torch.rand(2, tokens, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[0, :20] = False
    mask[1] = torch.arange(tokens) < 30
    return mask


def _outputs_and_gradients(form: dict, scores: Tensor, values: Tensor, **options) -> list[Tensor]:
    scores, values = scores.clone().requires_grad_(), values.clone().requires_grad_()
    out = aaren_scan(scores, values, **form, **options)
    return [out, *torch.autograd.grad((out * torch.sin(out + 1)).sum(), (scores, values))]


def test_the_two_references_agree():
    for scores in REGIMES.values():
        torch.testing.assert_close(
            recurrent_attention(scores, _values()), prefix_attention(scores, _values()), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("masked", [False, True], ids=["all", "holes"])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_a_softmax_per_prefix(form, regime, masked):
    mask = _holes() if masked else None
    scores = REGIMES[regime].clone().requires_grad_()
    values = _values().requires_grad_()
    expected = prefix_attention(scores, values, mask)
    gradients = torch.autograd.grad((expected * torch.sin(expected + 1)).sum(), (scores, values))
    found = _outputs_and_gradients(form, scores.detach(), values.detach(), key_mask=mask)
    for one, other in zip(found, (expected, *gradients), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)

    _, (m, u, w) = aaren_scan(scores.detach(), values.detach(), key_mask=mask, return_state=True, **form)
    kept = torch.ones(2, N, dtype=torch.bool) if mask is None else mask
    largest = scores.detach().masked_fill(~kept[:, None], float("-inf")).amax(-1)
    weights = (scores.detach() - largest[..., None]).exp() * kept[:, None]
    assert torch.equal(m, largest)
    torch.testing.assert_close(u, weights.sum(-1), rtol=0, atol=1e-11)
    torch.testing.assert_close(w, torch.einsum("bhn,bhnd->bhd", weights, values), rtol=0, atol=1e-11)

    single = _outputs_and_gradients(form, scores.detach().float(), values.detach().float(), key_mask=mask)
    rounded = prefix_attention(scores.detach().float(), values.detach().float(), mask)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in single)
    torch.testing.assert_close(single[0].double(), rounded, rtol=0, atol=5e-6)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_form_for_graphs_is_the_same_function(regime, monkeypatch):
    """Exported, running maxima are taken without `cummax`; a long row has a scan over totals as well."""
    scores, values, mask = REGIMES[regime], _values(), _holes()
    long = scores.repeat(1, 1, 12), values.repeat(1, 1, 12, 1)

    def run(impl: str) -> list[Tensor]:
        found = [aaren_scan(scores, values, key_mask=m, impl=impl) for m in (None, mask)]
        return [
            *found,
            aaren_scan(*long, impl=impl),
            aaren_scan(scores[..., :1], values[..., :1, :], impl=impl),
        ]

    expected = run("blocked")
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert all(map(torch.equal, run("auto"), expected))


@pytest.mark.parametrize("form", FORMS)
def test_scores_as_large_as_a_float_can_be(form):
    values = _values().float()
    for largest in (1e4, 1e20, 3e38):  # differences overflow to -inf, whose weight is 0
        scores = (REGIMES["normal"].float().tanh() * largest).requires_grad_()
        out, *gradients = _outputs_and_gradients(form, scores.detach(), values)
        torch.testing.assert_close(out.double(), prefix_attention(scores, values), rtol=0, atol=5e-6)
        assert all(gradient.isfinite().all() for gradient in gradients)


def _global_max_cumsum(scores: Tensor, values: Tensor) -> Tensor:
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return (weights.unsqueeze(-1) * values).cumsum(2) / weights.cumsum(2).unsqueeze(-1)


def _running_max_without_rescale(scores: Tensor, values: Tensor) -> Tensor:
    weights = (scores - scores.cummax(-1).values).exp()
    return (weights.unsqueeze(-1) * values).cumsum(2) / weights.cumsum(2).unsqueeze(-1)


@pytest.mark.parametrize("regime", ["wide", "rising"])
@pytest.mark.parametrize("wrong", [_global_max_cumsum, _running_max_without_rescale])
def test_the_regimes_catch_known_wrong_shortcuts(wrong, regime):
    scores, values = REGIMES[regime].float(), _values().float()
    error = (wrong(scores, values).double() - prefix_attention(scores, values)).abs().max()
    assert not error < 1e-2  # NaN counts as wrong


def test_equals_causal_attention_with_one_query():
    torch.manual_seed(0)
    query, key, values = torch.randn(3, 16), torch.randn(2, 3, N, 16), torch.randn(2, 3, N, 16)
    scores = torch.einsum("bhnd,hd->bhn", key, query) / 4
    queries = query[:, None].expand(2, 3, N, 16).contiguous()
    expected = F.scaled_dot_product_attention(queries, key, values, is_causal=True)
    torch.testing.assert_close(aaren_scan(scores, values), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 64])
def test_any_block_size_gives_the_same(tokens):
    scores, values = 10 * REGIMES["normal"][..., :tokens], _values(tokens)
    expected = _outputs_and_gradients({"impl": "loop"}, scores, values)
    for block_size in range(1, tokens + 4):
        found = _outputs_and_gradients({"block_size": block_size}, scores, values)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100, 1025])
def test_sums_over_chunk_totals_equal_their_dense_form(count):
    torch.manual_seed(0)
    levels = torch.randn(2, count, dtype=torch.float64).mul(5).cummax(1).values
    levels[1, : count // 3] = float("-inf")
    leaves = torch.randn(2, count, 3, dtype=torch.float64) * levels.isfinite().unsqueeze(-1)
    safe = levels.nan_to_num(neginf=0.0)
    dense = (levels.unsqueeze(1) - safe.unsqueeze(2)).exp().tril()
    torch.testing.assert_close(prefix_sums(levels, leaves), dense @ leaves, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        suffix_sums(levels, leaves) * levels.isfinite().unsqueeze(-1),
        dense.mT @ leaves,
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", [0, 1, 40, N - 1, N])
def test_a_scan_in_two_parts_equals_one_scan(form, split):
    scores, values, mask = REGIMES["wide"].clone().requires_grad_(), _values().requires_grad_(), _holes()
    whole, end = aaren_scan(scores, values, key_mask=mask, return_state=True, **form)
    first, state = aaren_scan(
        scores[..., :split], values[..., :split, :], key_mask=mask[:, :split], return_state=True, **form
    )
    second, last = aaren_scan(
        scores[..., split:],
        values[..., split:, :],
        key_mask=mask[:, split:],
        state=state,
        return_state=True,
        **form,
    )
    parts = torch.cat([first, second], 2)
    for one, other in zip((parts, *last), (whole, *end), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    # Gradients go through the state between the parts too, and through the one handed out at the end.
    expected, gradients = (
        torch.autograd.grad(out.sin().sum() + state.output().cos().sum(), (scores, values))
        for out, state in ((whole, end), (parts, last))
    )
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_a_detached_state_cuts_the_gradient():
    scores, values = REGIMES["normal"].clone().requires_grad_(), _values()
    _, state = aaren_scan(scores[..., :40], values[..., :40, :], return_state=True)
    out = aaren_scan(scores[..., 40:], values[..., 40:, :], state=state.detach())
    (gradient,) = torch.autograd.grad(out.sum(), scores)
    assert gradient[..., :40].eq(0).all() and gradient[..., 40:].ne(0).any()


@pytest.mark.parametrize("form", FORMS)
def test_reverse_scans_suffixes(form):
    scores, values = REGIMES["wide"], _values()
    found = aaren_scan(scores, values, reverse=True, key_mask=_holes(), **form)
    expected = prefix_attention(scores.flip(-1), values.flip(-2), _holes().flip(-1)).flip(-2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_steps_equal_the_scan_and_skip_what_is_not_valid():
    scores, values, mask = REGIMES["wide"], _values(), _holes()
    expected, end = aaren_scan(scores, values, key_mask=mask, return_state=True)
    state = AarenState.empty(2, 3, 5, dtype=torch.float64)
    for t in range(N):
        out, state = aaren_step(scores[..., t], values[..., t, :], state, valid=mask[:, t])
        torch.testing.assert_close(out, expected[:, :, t], rtol=0, atol=1e-11)
    for one, other in zip(state, end, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("regime", REGIMES)
def test_pool_is_the_last_prefix(regime):
    scores, values = REGIMES[regime], _values()
    torch.testing.assert_close(aaren_pool(scores, values), aaren_scan(scores, values)[:, :, -1])
    torch.testing.assert_close(
        aaren_pool(scores, values, _holes()), aaren_scan(scores, values, key_mask=_holes())[:, :, -1]
    )


def test_combine_is_associative_commutative_and_has_an_identity():
    torch.manual_seed(0)

    def summary() -> AarenState:
        m = 300 * torch.randn(4, 50, dtype=torch.float64)
        u, w = 1 + torch.rand_like(m), torch.randn(4, 50, 3, dtype=torch.float64)
        gone = torch.rand_like(m) < 0.3
        return AarenState(
            m.masked_fill(gone, float("-inf")), u.masked_fill(gone, 0), w.masked_fill(gone.unsqueeze(-1), 0)
        )

    a, b, c = summary(), summary(), summary()
    empty = AarenState.empty(4, 50, 3, dtype=torch.float64)
    for left, right in [
        (aaren_combine(aaren_combine(a, b), c), aaren_combine(a, aaren_combine(b, c))),
        (aaren_combine(a, b), aaren_combine(b, a)),
        (aaren_combine(a, empty), a),
        (aaren_combine(empty, a), a),
        (aaren_combine(empty, empty), empty),
    ]:
        for one, other in zip(left, right, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_the_future_has_no_influence_at_all(form):
    scores, values = REGIMES["wide"].float(), _values().float()
    before = aaren_scan(scores, values, **form)
    for t in (0, 16, 50, N - 1):
        changed_scores, changed_values = scores.clone(), values.clone()
        changed_scores[..., t:] += 50
        changed_values[..., t:, :] -= 3
        after = aaren_scan(changed_scores, changed_values, **form)
        assert torch.equal(before[:, :, :t], after[:, :, :t])
        assert not torch.equal(before[:, :, t], after[:, :, t])
        leaf_scores, leaf_values = scores.clone().requires_grad_(), values.clone().requires_grad_()
        out = aaren_scan(leaf_scores, leaf_values, **form)[:, :, t].sum()
        for gradient in torch.autograd.grad(out, (leaf_scores, leaf_values)):
            assert gradient[:, :, t + 1 :].eq(0).all()


@pytest.mark.parametrize("form", FORMS)
def test_masked_tokens_are_never_seen(form):
    """Padding on the right, on the left or in between: as if it were not there, even where it is NaN."""
    kept = torch.arange(60) % 4 != 0
    for mask in (kept, torch.arange(60) < 45, torch.arange(60) >= 15):
        keys = mask.expand(2, -1)
        scores, values = REGIMES["wide"][..., :60].clone(), _values(60)
        alone = _outputs_and_gradients(form, scores[..., mask], values[..., mask, :])
        scores[..., ~mask], values[..., ~mask, :] = float("nan"), float("nan")
        padded = aaren_scan(scores, values, key_mask=keys, **form)
        torch.testing.assert_close(padded[:, :, mask], alone[0], rtol=0, atol=1e-11)
        last = keys.long().cumsum(1)[0] - 1  # which kept token comes last
        assert padded[:, :, last < 0].eq(0).all()
        torch.testing.assert_close(
            padded[:, :, last >= 0], alone[0][:, :, last[last >= 0]], rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("form", FORMS)
def test_a_row_without_any_token_gives_zeros_and_no_gradient(form):
    mask = torch.stack([torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)])
    with torch.autograd.set_detect_anomaly(True):
        out, *gradients = _outputs_and_gradients(form, REGIMES["normal"], _values(), key_mask=mask)
    assert out[0].eq(0).all() and all(gradient[0].eq(0).all() for gradient in gradients)
    assert all(gradient[1].ne(0).any() and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("lead", [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("form", FORMS)
def test_any_memory_layout(form, lead):
    """Transposed and expanded inputs, and gradients that come back in such a layout."""
    generator = torch.Generator().manual_seed(6)
    base_scores = torch.randn(lead[0], N, lead[1], generator=generator, dtype=torch.float64)
    base_values = torch.randn(lead[0], N, lead[1], 5, generator=generator, dtype=torch.float64)
    for scores, values in [
        (base_scores.transpose(1, 2), base_values.transpose(1, 2)),
        (
            base_scores[:1, :, :1].transpose(1, 2).expand(*lead, N),
            base_values[:1, :, :1, :1].transpose(1, 2).expand(*lead, N, 5),
        ),
    ]:
        scores, values = scores.requires_grad_(), values.requires_grad_()
        out, expected = aaren_scan(scores, values, **form), prefix_attention(scores, values)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
        for gradient in (torch.ones(()).double().expand(*lead, N, 5), base_values.transpose(1, 2)):
            found = torch.autograd.grad(out, (scores, values), gradient, retain_graph=True)
            wanted = torch.autograd.grad(expected, (scores, values), gradient, retain_graph=True)
            for one, other in zip(found, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_a_mask_per_head():
    mask = torch.rand(2, 3, N, generator=torch.Generator().manual_seed(4)) > 0.5
    found = aaren_scan(REGIMES["normal"], _values(), key_mask=mask)
    for head in range(3):
        expected = prefix_attention(REGIMES["normal"][:, [head]], _values()[:, [head]], mask[:, head])
        torch.testing.assert_close(found[:, [head]], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_no_tokens_at_all(form):
    _, state = aaren_scan(REGIMES["normal"], _values(), return_state=True)
    out, after = aaren_scan(torch.zeros(2, 3, 0).double(), _values(0), state=state, return_state=True, **form)
    assert out.shape == (2, 3, 0, 5)
    assert all(torch.equal(one, other) for one, other in zip(after, state, strict=True))
    assert aaren_pool(torch.zeros(2, 3, 0), torch.zeros(2, 3, 0, 5)).eq(0).all()
    assert aaren_scan(torch.zeros(0, 3, 9), torch.zeros(0, 3, 9, 5), **form).shape == (0, 3, 9, 5)


def test_outputs_are_averages_of_what_was_seen():
    for scores in REGIMES.values():
        values = _values()
        out = aaren_scan(scores, values)
        assert (out <= values.cummax(2).values + 1e-12).all() and (
            out >= values.cummin(2).values - 1e-12
        ).all()
        torch.testing.assert_close(
            aaren_scan(scores, torch.full_like(values, 7.0)), torch.full_like(values, 7.0)
        )
    means = _values().cumsum(2) / torch.arange(1, N + 1).view(-1, 1)
    torch.testing.assert_close(aaren_scan(REGIMES["constant"], _values()), means)


@pytest.mark.parametrize("drift", [0.0, 1e3, -1e3], ids=["level", "rising", "falling"])
def test_a_long_stream_stays_exact(drift):
    """100,000 tokens in float32 against float64: in one scan, and in pieces through a carried state."""
    tokens = 100_000
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(1, 1, tokens, generator=generator) + torch.linspace(-drift, drift, tokens)
    values = torch.randn(1, 1, tokens, 2, generator=generator)
    exact = aaren_scan(scores.double(), values.double(), impl="tree")
    torch.testing.assert_close(aaren_scan(scores, values).double(), exact, rtol=0, atol=1e-5)
    state = AarenState.empty(1, 1, 2)
    size = sum(part.untyped_storage().nbytes() for part in state)
    for start in range(0, tokens, 12_500):
        piece = slice(start, start + 12_500)
        out, state = aaren_scan(scores[..., piece], values[..., piece, :], state=state, return_state=True)
        torch.testing.assert_close(out.double(), exact[:, :, piece], rtol=0, atol=1e-5)
        assert sum(part.untyped_storage().nbytes() for part in state) == size


def test_a_float32_stream_of_single_steps_stays_exact():
    generator = torch.Generator().manual_seed(5)
    scores, values = (
        3 * torch.randn(1, 2, 5000, generator=generator),
        torch.randn(1, 2, 5000, 3, generator=generator),
    )
    exact = aaren_scan(scores.double(), values.double())
    state, worst = AarenState.empty(1, 2, 3), 0.0
    for t in range(5000):
        out, state = aaren_step(scores[..., t], values[..., t, :], state)
        worst = max(worst, (out.double() - exact[:, :, t]).abs().max().item())
    assert worst < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_values_are_summed_in_float32(form, dtype):
    scores, values = REGIMES["wide"].float(), _values().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = aaren_scan(scores, values, return_state=True, **form)
    assert out.dtype == dtype and all(part.dtype == torch.float32 for part in state)
    exact = prefix_attention(scores, values).to(dtype)
    torch.testing.assert_close(out, exact, rtol=torch.finfo(dtype).eps, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the backward too
        _, grad_scores, grad_values = _outputs_and_gradients(form, scores, values.float())
    _, exact_scores, exact_values = _outputs_and_gradients({"impl": "tree"}, scores.double(), values.double())
    for found, expected in ((grad_scores, exact_scores), (grad_values, exact_values)):
        assert (found - expected).abs().max() < 5e-5 * expected.abs().max()


def test_without_kernels_auto_is_blocked(monkeypatch):
    scores, values = REGIMES["wide"], _values()
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert torch.equal(aaren_scan(scores, values), aaren_scan(scores, values, impl="blocked"))
    with pytest.raises(ValueError, match='impl="native" needs a C compiler'):
        aaren_scan(scores, values, impl="native")


@NEEDS_COMPILER
def test_rows_are_the_same_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(native, "PER_THREAD", 1)
    scores, values = REGIMES["wide"].float(), _values().float()
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5, 7):
            torch.set_num_threads(count)
            found.append(_outputs_and_gradients({"impl": "native"}, scores, values))
    finally:
        torch.set_num_threads(threads)
    for one in found[1:]:
        assert all(map(torch.equal, one, found[0]))


@NEEDS_COMPILER
def test_operations_of_the_loops_are_counted():
    scores, values = REGIMES["wide"].clone().requires_grad_(), _values()
    with OperationCounter() as forward:
        out = aaren_scan(scores, values, impl="native")
    with OperationCounter() as backward:
        out.sum().backward()
    assert forward.total == 4 * values.numel() and backward.total == 9 * values.numel()
