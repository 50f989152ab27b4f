"""The backward that is written by hand: first and higher derivatives, transforms, graph capture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from zoo_aaren import AarenState, aaren_pool, aaren_scan
from zoo_aaren.native import obstacle

# torch.func itself still calls torch.jit.script.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled"),
]

FORMS = [
    {"impl": "dense"},
    {"impl": "blocked", "block_size": 4},
    {"impl": "tree"},
    {"impl": "loop"},
]
if not obstacle(torch.zeros(1)):
    FORMS.append({"impl": "native"})
BY_HAND = [form for form in FORMS if form["impl"] in ("blocked", "native")]


def _inputs(tokens: int = 9) -> tuple[Tensor, ...]:
    """scores, values and a state (m, u, w), all of them leaves."""
    torch.manual_seed(0)
    scores, values = torch.randn(2, 1, tokens).double(), torch.randn(2, 1, tokens, 2).double()
    state = torch.randn(2, 1).double(), 1 + torch.rand(2, 1).double(), torch.randn(2, 1, 2).double()
    return tuple(part.requires_grad_() for part in (scores, values, *state))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["impl"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "holes"])
def test_first_and_second_derivatives(form, masked):
    mask = torch.tensor([[0, 0, 1, 1, 0, 1, 1, 1, 0], [0] * 9], dtype=torch.bool) if masked else None

    def run(scores: Tensor, values: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        out, end = aaren_scan(
            scores, values, state=AarenState(m, u, w), key_mask=mask, return_state=True, **form
        )
        return out, end.output()  # m, u, w alone depend on which maximum they are relative to

    assert gradcheck(run, _inputs())
    assert gradgradcheck(run, _inputs())


def test_derivatives_with_padding_and_several_levels_of_totals():
    scores, values, *_ = _inputs(tokens=70)

    def run(scores: Tensor, values: Tensor) -> Tensor:
        return aaren_scan(scores, values, block_size=2)[:, :, ::7]

    assert gradcheck(run, (scores, values))


@pytest.mark.parametrize("form", BY_HAND, ids=lambda form: form["impl"])
def test_the_plain_operations_give_the_same_gradient_as_the_backward_by_hand(form):
    scores, values, m, u, w = _inputs(tokens=50)
    out, end = aaren_scan(30 * scores, values, state=AarenState(m, u, w), return_state=True, **form)
    loss = out.sin().sum() + end.output().cos().sum()
    by_hand = torch.autograd.grad(loss, (scores, values, m, u, w), retain_graph=True)
    plain = torch.autograd.grad(loss, (scores, values, m, u, w), create_graph=True)
    for one, other in zip(by_hand, plain, strict=True):
        assert other.requires_grad
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["impl"])
def test_absent_tokens_make_no_nan_on_the_way_back(form):
    scores, values, *_ = _inputs()
    mask = torch.tensor([[0, 0, 1, 1, 0, 1, 1, 1, 0], [0] * 9], dtype=torch.bool)
    with torch.autograd.detect_anomaly(check_nan=True):
        out = aaren_scan(500 * scores, values, key_mask=mask, **form)
        gradients = torch.autograd.grad(out.sin().sum(), (scores, values), create_graph=True)
        torch.autograd.grad(sum(part.sin().sum() for part in gradients), (scores, values))


def test_pool_derivatives():
    scores, values, *_ = _inputs()
    mask = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1, 0], [0] * 9], dtype=torch.bool)
    assert gradcheck(lambda s, v: aaren_pool(s, v, mask), (scores, values))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("form", BY_HAND, ids=lambda form: form["impl"])
def test_function_transforms(form):
    scores, values, *_ = _inputs(tokens=20)

    def loss(scores: Tensor, values: Tensor) -> Tensor:
        return aaren_scan(scores, values, **form).sin().sum()

    expected = torch.autograd.grad(loss(scores, values), (scores, values))
    for found in (
        torch.func.grad(loss, (0, 1))(scores, values),
        torch.func.vmap(torch.func.grad(lambda s, v: loss(s[None], v[None]), (0, 1)))(scores, values),
    ):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    hessian = torch.func.jacrev(torch.func.grad(loss))(scores, values)
    slow = torch.func.hessian(lambda s: aaren_scan(s, values, impl="tree").sin().sum())(scores)
    torch.testing.assert_close(hessian, slow, rtol=1e-9, atol=1e-11)


def test_graph_capture():
    """A graph has tensor operations, also where loops in C are at hand."""
    scores, values, *_ = _inputs(tokens=40)
    captured = torch.compile(lambda s, v: aaren_scan(s, v), backend="aot_eager", fullgraph=True)
    found, expected = captured(scores, values), aaren_scan(scores, values)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), (scores, values)),
        torch.autograd.grad(expected.sin().sum(), (scores, values)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
