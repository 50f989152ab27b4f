"""Conversion of layers and whole models: parity with the reference, what is kept, what is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import zoo
from zoo import torchvision_shim
from zoo.layers import load_weights, save_weights
from zoo.plugin import Classes, Image

torchvision_shim.install()

import timm  # noqa: E402
from zoo_sigmareparam import (  # noqa: E402
    apply_sigma_reparam,
    fold_sigma_reparam_,
    reference,
    spectral_stats,
    update_sigma_,
)
from zoo_sigmareparam.parametrization import SigmaReparam, converted  # noqa: E402


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def by(module: nn.Module) -> SigmaReparam:
    return next(converted(module)).by


def mlp() -> nn.Sequential:
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    return nn.Sequential(first, nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), last)


def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> float:
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# -- parity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 7),
        nn.Conv2d(3, 4, 3, stride=2, dilation=2),
        nn.Conv2d(3, 6, 4, stride=4),
        nn.Conv2d(4, 5, 1),
        nn.Conv2d(2, 3, (3, 5), padding_mode="circular", padding=1),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv1d(3, 4, 3),
        nn.ConvTranspose2d(3, 5, 2),
    ],
    ids=lambda layer: f"{layer}",
)
def test_ten_steps_are_the_references(layer: nn.Module) -> None:
    """With a weight that moves, from a u that has not converged, in training and in evaluation."""
    layer = layer.double()
    rows = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    weight = layer.weight.detach().clone().requires_grad_()
    apply_sigma_reparam(layer, include=(type(layer).__name__,), n_iter_init=1)
    ours, gamma, u = by(layer), by(layer).gamma.detach().clone()[0].requires_grad_(), by(layer).u[0].clone()
    x = drawn(2, *_input_shape(layer))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)

    def apply_reference(training: bool, u: Tensor) -> tuple[Tensor, Tensor]:
        moved = weight.movedim(rows, 0)
        made, u = reference.reparametrised(moved.flatten(1), gamma, u, training=training)
        return made.reshape(moved.shape).movedim(0, rows), u

    for _ in range(10):
        layer.train()
        made, u = apply_reference(True, u)
        loss = (made * drawn(*made.shape, seed=5)).mean().square()
        loss.backward()
        layer(x)  # moves u, as the first forward of a step
        found = (layer.weight * drawn(*made.shape, seed=5)).mean().square()
        torch.testing.assert_close(found, loss, rtol=1e-10, atol=1e-10)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        with torch.no_grad():
            for parameter in (weight, gamma):
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
        torch.testing.assert_close(ours.gamma[0], gamma, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours.u[0], u, rtol=0, atol=1e-10)
        layer.eval()
        torch.testing.assert_close(layer.weight, apply_reference(False, u)[0], rtol=1e-10, atol=1e-10)


def _input_shape(layer: nn.Module) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return (layer.in_features,)
    return (layer.in_channels, *(12,) * (layer.weight.dim() - 2))  # type: ignore[operator, return-value, union-attr]


def test_a_dense_layer_of_the_jax_code_is_ours_transposed() -> None:
    """Kernel (in, out), gamma 1, u in output space: the same iteration on the transposed kernel."""
    kernel, u_out = drawn(5, 7), drawn(7, seed=1)
    made, _ = reference.reparametrised(kernel, torch.tensor(1.0).double(), u_out, training=True)
    layer = nn.Linear(7, 5, bias=False).double()
    layer.weight.data.copy_(kernel)
    apply_sigma_reparam(layer, gamma_init=1.0)
    by(layer).u.copy_(u_out)
    layer.train()
    layer(drawn(2, 7))
    torch.testing.assert_close(layer.weight, made)


# -- whole models ------------------------------------------------------------------------------

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit": (lambda: timm.create_model("test_vit", num_classes=4, img_size=32), (2, 3, 32, 32)),
    "convnext": (lambda: timm.create_model("test_convnext", num_classes=4), (2, 3, 64, 64)),
    "resnet": (lambda: timm.create_model("test_resnet", num_classes=4), (2, 3, 64, 64)),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            num_classes=4,
            img_size=56,
            window_size=7,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 2),
        ),
        (2, 3, 56, 56),
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 5, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_it_has_never_seen(name: str) -> None:
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(shape)
    before, kept = model(x), {n: p.requires_grad for n, p in model.named_parameters()}
    keys = model.state_dict().keys()
    report = apply_sigma_reparam(model)
    assert len(report.converted) >= 4 and report.skipped == {} and report.removed_norms == ()
    assert {n.replace(".original", "").replace("parametrizations.", "") for n in kept} == set(kept)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    again = apply_sigma_reparam(model)
    assert again.converted == () and set(again.skipped.values()) == {"is converted already"}
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step(model, x, optimizer)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    after = model(x)
    torch.testing.assert_close(model(x), after, rtol=0, atol=0)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    fold_sigma_reparam_(model)
    assert model.state_dict().keys() == keys
    torch.testing.assert_close(model(x), after, rtol=0, atol=0)


def test_every_kind_of_attention_weight_is_reached() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    report = apply_sigma_reparam(attention, include=("MultiheadAttention",))
    assert report.converted == ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    attention(q, k, v)[0].sum().backward()
    assert all(p.grad is not None for p in attention.parameters())
    together = nn.MultiheadAttention(8, 2)
    assert apply_sigma_reparam(together).converted == ("in_proj_weight", "out_proj.weight")


def test_queries_keys_and_values_get_norms_of_their_own() -> None:
    attention = nn.MultiheadAttention(8, 2).double()
    weights = attention.in_proj_weight.detach().clone().chunk(3)
    apply_sigma_reparam(attention, split={"in_proj_weight": 3}, n_iter_init=500)
    stats = spectral_stats(attention)
    for index, weight in enumerate(weights):
        sigma, gamma = stats[f"in_proj_weight[{index}]"]
        assert sigma == pytest.approx(torch.linalg.matrix_norm(weight, 2).item(), rel=1e-6)
        assert gamma == pytest.approx(sigma)
    torch.testing.assert_close(attention.in_proj_weight, torch.cat(weights))


def test_a_hugging_face_model() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(11, (2, 6))
    before = model(ids).logits
    report = apply_sigma_reparam(model)
    assert "transformer.h.0.attn.c_attn.weight" in report.converted
    assert "is shared with" in report.skipped["lm_head.weight"]
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-5)
    again = apply_sigma_reparam(model)
    assert again.converted == () and again.skipped["transformer.h.0.attn.c_attn.weight"].endswith("already")
    model.train()
    model(ids, labels=ids).loss.backward()
    assert by(model.transformer.h[0].attn.c_attn).gamma.grad is not None
    model.eval()
    expected = model(ids).logits
    assert torch.equal(fold_sigma_reparam_(model)(ids).logits, expected)


# -- training ----------------------------------------------------------------------------------


def test_the_norm_becomes_gamma_in_training_and_stats_tell_them_apart() -> None:
    layer = nn.Linear(12, 9)
    apply_sigma_reparam(layer, gamma_init=2.0)
    for _ in range(30):
        layer(torch.randn(1, 12))
    sigma, gamma = spectral_stats(layer)["weight"]
    original = layer.parametrizations.weight.original  # type: ignore[union-attr]
    assert gamma == 2.0 and sigma == pytest.approx(torch.linalg.matrix_norm(original, 2).item(), rel=1e-4)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(2.0, rel=1e-4)


def test_u_moves_once_before_each_training_forward_of_the_model_alone() -> None:
    model, x = mlp().double(), drawn(4, 6)
    apply_sigma_reparam(model, n_iter_init=1)
    twin = copy.deepcopy(model)
    model[0](x)  # a layer by itself
    assert torch.equal(by(model).u, by(twin).u)
    model(x)
    update_sigma_(twin)
    assert torch.equal(by(model).u, by(twin).u)
    model.eval()(x)
    assert torch.equal(by(model).u, by(twin).u)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_gradients_with_checkpointing_are_those_without(use_reentrant: bool, whole: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Sequential) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            for block in self.inner:
                x = checkpoint(block, x, use_reentrant=use_reentrant)
            return x

    plain, x = mlp().double(), drawn(4, 6).requires_grad_()
    apply_sigma_reparam(plain, n_iter_init=1)
    other = copy.deepcopy(plain)
    if whole:
        y = checkpoint(other, x, use_reentrant=use_reentrant)
    else:
        model = Checkpointed(other)
        apply_sigma_reparam(model)  # its root takes over
        y = model(x)
    y.square().sum().backward()
    plain(x).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-12, msg=name)
    torch.testing.assert_close(by(other).u, by(plain).u, rtol=0, atol=0)


def test_two_forwards_before_one_backward() -> None:
    model, x = mlp(), torch.randn(4, 6)
    apply_sigma_reparam(model)
    (model(x) + model(2 * x)).sum().backward()


def test_saved_loaded_and_continued_is_uninterrupted() -> None:
    x, losses = torch.randn(16, 6), []
    for cut in (False, True):
        torch.manual_seed(1)
        model = mlp()
        apply_sigma_reparam(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run = [step(model, x, optimizer) for _ in range(5)]
        if cut:
            file = io.BytesIO()
            torch.save((model.state_dict(), optimizer.state_dict()), file)
            file.seek(0)
            weights, moments = torch.load(file, weights_only=True)
            torch.manual_seed(9)
            model = mlp()
            apply_sigma_reparam(model)
            model.load_state_dict(weights, assign=True)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            optimizer.load_state_dict(moments)
        losses.append(run + [step(model, x, optimizer) for _ in range(5)])
    assert losses[0] == losses[1]


def test_bfloat16_modules_and_autocast_keep_the_norms_in_float32() -> None:
    model, x = mlp(), torch.randn(4, 6)
    apply_sigma_reparam(model)
    expected = spectral_stats(model)
    model.bfloat16()
    for each in (by(model).u, by(model).v, by(model).gamma):
        assert each.dtype == torch.float32
    model(x.bfloat16()).sum().backward()
    assert model[0].weight.dtype == torch.bfloat16
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).sum().backward()
        found = spectral_stats(model)
    for name, (_, gamma) in expected.items():
        assert found[name][1] == pytest.approx(gamma, rel=1e-5)
    assert by(model.double()).u.dtype == torch.float64


@pytest.mark.slow
def test_compiled_whole_it_follows_the_updates() -> None:
    model, x = mlp(), torch.randn(4, 6)
    apply_sigma_reparam(model, n_iter_init=1)
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), eager(x))
        compiled(x).sum().backward(), eager(x).sum().backward()
        torch.testing.assert_close(by(model).u, by(eager).u)
        torch.testing.assert_close(by(model).gamma.grad, by(eager).gamma.grad)
    model.eval(), eager.eval()
    torch.testing.assert_close(compiled(x), eager(x))


# -- what is kept, and what is refused -----------------------------------------------------------


def test_paper_conventions() -> None:
    model = mlp()
    biases = [layer.bias.clone() for layer in model if isinstance(layer, nn.Linear)]
    report = apply_sigma_reparam(model, gamma_init=1.0, reinit_std=0.02, norms="remove")
    assert report.removed_norms == ("1",) and not any(isinstance(m, nn.LayerNorm) for m in model)
    assert all(gamma == 1.0 for _, gamma in spectral_stats(model).values())
    assert by(model).gamma.shape == (1,)
    found = [layer.bias for layer in model if isinstance(layer, nn.Linear)]
    assert all(torch.equal(a, b) for a, b in zip(found, biases, strict=True))
    assert next(converted(model)).original.std().item() == pytest.approx(0.02, rel=0.4)


def test_a_norm_that_is_more_than_a_norm_keeps_the_rest() -> None:
    model = timm.create_model("test_resnet", num_classes=4)
    fused = timm.layers.BatchNormAct2d(4)
    report = apply_sigma_reparam(model, gamma_init=1.0, norms="remove")
    assert len(report.removed_norms) > 4
    one = nn.Sequential(nn.Conv2d(3, 4, 1), fused)
    apply_sigma_reparam(one, norms=["1"])
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(one(x), F.relu(one[0](x)))


def test_an_encoder_layer_without_norms_evaluates() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True).eval()
    apply_sigma_reparam(layer, norms=["norm*"])
    x = torch.randn(2, 5, 8)
    expected = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("gamma_init", ["match", 1.0])
def test_zero_weights_get_a_direction_and_learn(gamma_init: Any) -> None:
    layer = nn.Linear(6, 4)
    nn.init.zeros_(layer.weight)
    report = apply_sigma_reparam(layer, gamma_init=gamma_init)
    assert report.zeros == ("weight",) and "random direction" in report.notes()[0]
    x = torch.randn(3, 6)
    if gamma_init == "match":
        torch.testing.assert_close(layer(x), layer.bias.expand(3, 4))
    layer(x).square().sum().backward()
    assert layer.parametrizations.weight[0].gamma.grad.abs() > 0  # type: ignore[union-attr, index]


def test_ties_and_strangers_parametrizations_are_left_alone_and_reported() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embedding.weight
            self.body = nn.Linear(4, 4)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.lazy = nn.LazyLinear(3)

    model = Tied()
    report = apply_sigma_reparam(model)
    assert report.converted == ("body.weight",)
    assert report.skipped["head.weight"].startswith("is shared with embedding.weight")
    assert report.skipped["normed.weight"] == "is parametrized already, by _WeightNorm"
    assert "run one batch" in report.skipped["lazy.weight"]
    assert len(report.notes()) == 3 and model.head.weight is model.embedding.weight


def test_folding_a_copy_leaves_the_original_as_it_was() -> None:
    model, x = nn.Sequential(mlp()).eval(), torch.randn(3, 6)
    apply_sigma_reparam(model)
    expected = model(x)
    folded = fold_sigma_reparam_(copy.deepcopy(model))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(folded(x), expected, rtol=0, atol=0)
    assert type(folded[0][0]) is nn.Linear


def test_a_folded_model_can_be_converted_again_where_it_stood() -> None:
    model, x = mlp().eval(), torch.randn(3, 6)
    apply_sigma_reparam(model, gamma_init=1.5)
    expected = model(x)
    apply_sigma_reparam(fold_sigma_reparam_(model))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_a_plain_model_are_refused_and_the_reverse(strict: bool) -> None:
    plain, model = mlp(), mlp()
    apply_sigma_reparam(model)
    before = model(torch.ones(1, 6))
    with pytest.raises(RuntimeError, match=r"weights of a model without sigmaReparam.*load them first"):
        model.load_state_dict(plain.state_dict(), strict=strict)
    model.load_state_dict(model.state_dict())
    assert before is not None
    if strict:
        with pytest.raises(RuntimeError, match=r"parametrizations\.weight\.original"):
            plain.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norms": "remove"}, "remove breaks trained weights"),
        ({"norms": ["norm9"]}, "'norm9' matches no normalisation layer; there is: 1"),
        ({"exclude": ["heads"]}, "'heads' matches no module"),
        ({"exclude": ["*"]}, "nothing to convert"),
        ({"include": ["Conv2d"]}, "nothing to convert of the kinds Conv2d: it has no such layer"),
        ({"include": ["Lineal"]}, "no kind of layer 'Lineal'"),
        ({"gamma_init": 0.0}, "must be above 0"),
        ({"gamma_init": "one"}, "expected one of match or a number"),
        ({"n_iter_init": 0}, "must be at least 1"),
        ({"split": {"0": 5}}, "8 rows of 0.weight are not 5 maps"),
        ({"split": {"qkv": 3}}, "'qkv' matches no layer"),
        ({"split": ["0"]}, "split"),
        ({"norms": "norm9"}, "'norm9' matches no normalisation layer"),
        ({"exclude": "heads"}, "'heads' matches no module"),
    ],
)
def test_mistakes_are_sentences_and_change_nothing(options: dict[str, Any], says: str) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=says):
        apply_sigma_reparam(model, **options)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_two_conversions_of_a_model_of_the_zoo_fold_and_save_as_one(tmp_path: Path) -> None:
    """As the README has it for large models: the patch embedding first, from another deviation."""
    inputs, targets = Image(channels=1, height=8, width=8), Classes(count=4)
    model = zoo.create_model(
        "core/transformer", inputs=inputs, targets=targets, width=16, depth=1, heads=2
    ).eval()
    plan, x = model.plan, torch.randn(2, 1, 8, 8)
    zoo.apply_transform(model, "sigmareparam", include=["Linear"], exclude=["backbone", "head"])
    zoo.apply_transform(model, "sigmareparam", gamma_init=1.5)
    assert len(model.plan.transforms) == 2 and next(converted(model)).by.gamma.item() != 1.5
    save_weights(model, tmp_path / "twice.safetensors")
    expected = model(x)
    assert torch.equal(load_weights(tmp_path / "twice.safetensors").eval()(x), expected)
    zoo.fold_transforms(model)
    assert model.plan == plan and torch.equal(model(x), expected)


def test_a_model_without_norms_has_none_to_remove() -> None:
    with pytest.raises(ValueError, match="no normalisation layer to remove"):
        apply_sigma_reparam(nn.Linear(2, 2), norms=["*"])
    with pytest.raises(ValueError, match="no weight of this model is converted"):
        fold_sigma_reparam_(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="got list"):
        apply_sigma_reparam([nn.Linear(2, 2)])  # type: ignore[arg-type]


def test_it_converts_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = mlp()
        apply_sigma_reparam(model)
    real = mlp()
    apply_sigma_reparam(real)
    shapes = [{n: t.shape for n, t in each.state_dict().items()} for each in (model, real)]
    assert shapes[0] == shapes[1]
