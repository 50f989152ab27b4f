"""The models: sizes as published, and the whole language model against the formulas written down anew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_transnormer import TransNormerConfig, decay_slopes
from zoo_transnormer.reference import decayed_attention

import zoo
from zoo.plugin import Classes, Ids, NextId, Series

STEM = {"name": "core/embedding", "params": {"scale": "sqrt_width"}}
HEAD = {"name": "core/next_id", "params": {"tied": True, "bias": False}}


def language_model(*, vocab: int, width: int, **options):
    return zoo.create_model(
        "transnormer/llm",
        inputs=Ids(vocab=vocab, length=32),
        targets=NextId(vocab=vocab),
        width=width,
        stem=STEM,
        head=HEAD,
        **options,
    )


@pytest.mark.parametrize(
    ("preset", "width", "parameters"),
    [
        ("tiny", 128, 64_000 * 128 + 4 * (5 * 128**2 + 3 * 128 * 352) + 128),
        ("small", 512, 64_000 * 512 + 8 * (5 * 512**2 + 3 * 512 * 1408) + 512),
        ("385m", 1024, 398_984_192),  # published
        ("1b", 2048, 1_020_266_496),  # published
        ("7b", 4096, 64_000 * 4096 + 30 * (5 * 4096**2 + 3 * 4096 * 11264) + 4096),  # 6.9 billion, "7B"
    ],
)
def test_presets_have_the_published_sizes(preset, width, parameters):
    with torch.device("meta"):
        model = language_model(vocab=64_000, width=width, preset=preset)
    assert model.num_parameters == parameters


def independent(ids: Tensor, weights: dict[str, Tensor], *, depth: int, heads: int, width: int) -> Tensor:
    """Logits of TransNormerLLM from sections 1 to 4 of its papers: ids (B, N) -> (B, N, K)."""

    def norm(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    embedding = weights["stem.token_embedding.weight"]
    x = embedding[ids] * width**0.5
    for layer in range(depth):
        block = f"backbone.blocks.{layer}."
        own = {k.removeprefix(block): w for k, w in weights.items() if k.startswith(block)}
        inner = norm(x)
        q, k, v = (inner @ own["mixer.qkv.weight"].T).chunk(3, -1)
        q, k = q * q.sigmoid(), k * k.sigmoid()
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        if layer == 0:
            angle = torch.arange(ids.shape[1])[:, None] * own["mixer.lrpe.theta"].view(heads, 1, -1)
            q, k = (torch.cat((t * angle.cos(), t * angle.sin()), -1) for t in (q, k))
        slopes = decay_slopes(heads, layer, depth).double()
        found = torch.stack([decayed_attention(*row, slopes) for row in zip(q, k, v, strict=True)])
        found = norm(found.transpose(1, 2).flatten(2))
        x = x + (found * (inner @ own["mixer.gate.linear.weight"].T)) @ own["mixer.out.weight"].T
        one, other = (norm(x) @ own["feed_forward.inner.weight"].T).chunk(2, -1)
        x = x + (one * other) @ own["feed_forward.out.weight"].T
    return norm(x) @ embedding.T


def test_the_whole_language_model_is_the_formulas():
    """Logits, and the gradient of every parameter."""
    torch.manual_seed(0)
    model = language_model(vocab=11, width=16, depth=3, heads=2, init_std=0.2).double()
    ids = torch.randint(11, (2, 21))
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    logits, expected = model(ids), independent(ids, weights, depth=3, heads=2, width=16)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)  # the slopes are float32
    for each in (logits, expected):
        F.cross_entropy(each.flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-7, msg=name)


def test_decay_falls_with_the_layers():
    model = language_model(vocab=11, width=16, depth=3, heads=2)
    found = [block.mixer.slopes for block in model.backbone.blocks]
    for layer, slopes in enumerate(found):
        torch.testing.assert_close(slopes, decay_slopes(2, layer, 3))


def test_options_reach_the_layers():
    model = language_model(
        vocab=11, width=16, depth=2, heads=2, attention={"decay": "paper", "lrpe": "none", "gate": "none"}
    )
    mixer = model.backbone.blocks[1].mixer
    torch.testing.assert_close(mixer.slopes, decay_slopes(2, 1, 2, "paper"))
    assert mixer.lrpe is None and not list(mixer.gate.parameters())


def test_the_same_layers_in_the_core_stack():
    """`transnormer/llm` is the core's stack with these names; there it may stand beside others."""
    torch.manual_seed(0)
    series = {"inputs": Series(channels=2, length=9), "targets": Classes(count=3), "width": 16}
    ours = zoo.create_model("transnormer/llm", depth=2, heads=2, init_std=None, **series)
    params = {
        "depth": 2,
        "heads": 2,
        "layers": ["transnormer/lightning"],
        "feed_forward": "transnormer/sglu",
        "norm": "srms",
        "positions": "none",
    }
    same = zoo.create_model("core/transformer", causal=True, **params, **series)
    same.load_state_dict(ours.state_dict())
    x = torch.randn(2, 9, 2)
    assert torch.equal(same(x), ours(x))
    hybrid = {**params, "layers": ["transnormer/minimax", "core/softmax"]}
    assert zoo.create_model("core/transformer", causal=True, **hybrid, **series)(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("depth", "diag_layers", "diag"), [(12, None, 6), (5, None, 2), (3, 0, 0), (3, 3, 3)]
)
def test_first_diag_layers_then_norm_layers(depth, diag_layers, diag):
    layers = TransNormerConfig(depth=depth, diag_layers=diag_layers).stack().layers
    assert layers == ("transnormer/diag_attention",) * diag + ("transnormer/norm_attention",) * (depth - diag)


def test_v1_norms_what_it_is_given():
    series = {"inputs": Series(channels=2, length=9), "targets": Classes(count=3), "width": 16}
    model = zoo.create_model("transnormer/v1", depth=2, heads=2, **series)
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(model.backbone(10 * x), model.backbone(x), rtol=1e-4, atol=1e-4)
