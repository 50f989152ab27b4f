"""Stems, heads and whole models: shapes, padding, streams, copies, new heads."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo.plugin as zp
from zoo.catalogue import Part, catalogue
from zoo.contract import Plan, resolve
from zoo.layers import Model, Pool, build_model
from zoo.layers.heads import ImageHead
from zoo.layers.heads_config import ImageHeadConfig
from zoo.layers.stems import Convolutions, Patches, SeriesPool
from zoo.layers.stems_config import ConvolutionsConfig, PatchesConfig, SeriesPoolConfig

IMAGE = zp.Image(channels=2, height=7, width=9)
IDS = zp.Ids(vocab=11, length=6, ragged=True)
SERIES = zp.Series(channels=3, length=6, ragged=True)
VECTOR = zp.Vector(features=5)
CLASSES, VALUES, NEXT = zp.Classes(count=4), zp.Values(count=2), zp.NextId(vocab=11)
SMALL = {"depth": 2, "heads": 2}


def part(kind: str, name: str, **params: Any) -> Part:
    return catalogue().part(kind, name, params)


def plan(
    inputs: zp.DataKind, targets: zp.TargetKind, model: str = "core/transformer", **options: Any
) -> Plan:
    params = options.pop("params", {})
    small = SMALL if model == "core/transformer" else {"depth": 2}
    return resolve(
        catalogue(),
        model=part("model", model, **{**small, **params}),
        width=16,
        inputs=inputs,
        targets=targets,
        **options,
    )


def build(*args: Any, **options: Any) -> Model:
    torch.manual_seed(0)
    return build_model(plan(*args, **options))


def batch(inputs: zp.DataKind, size: int = 3) -> Tensor:
    if isinstance(inputs, zp.Image):
        return torch.randn(size, inputs.channels, inputs.height, inputs.width)
    if isinstance(inputs, zp.Ids):
        return torch.randint(inputs.vocab, (size, inputs.length))
    if isinstance(inputs, zp.Series):
        return torch.randn(size, inputs.length, inputs.channels)
    return torch.randn(size, inputs.features)


@pytest.mark.parametrize("targets", [CLASSES, VALUES], ids=str)
@pytest.mark.parametrize("inputs", [IMAGE, IDS, SERIES, VECTOR], ids=str)
@pytest.mark.parametrize("model", ["core/transformer", "core/mlp_net"])
def test_every_kind_reaches_every_answer(model: str, inputs: zp.DataKind, targets: Any) -> None:
    module, x = build(inputs, targets, model), batch(inputs)
    assert module(x).shape == (3, targets.count)
    features, mask = module.forward_features(x)
    expected = (3, 16) if module.plan.tokens is None else (3, module.plan.tokens, 16)
    assert features.shape == expected and module.num_features == 16
    torch.testing.assert_close(module.forward_head(features, mask=mask), module(x))
    assert module.forward_head(features, pre_logits=True).shape == (3, 16)
    assert [f.shape for f in module.forward_intermediates(x)] == [expected] * 2
    torch.testing.assert_close(torch.cat([module(row.unsqueeze(0)) for row in x]), module(x))
    (module(x) * torch.randn(3, targets.count)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert module.num_parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("pool", ["mean", "max", "last", "attention"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("inputs", [IDS, SERIES], ids=str)
def test_padding_changes_no_answer(inputs: Any, causal: bool, pool: str) -> None:
    module = build(inputs, CLASSES, causal=causal, head=part("head", "pooled_classifier", pool=pool))
    x, n = batch(inputs), inputs.length
    for left, right in ((0, 3), (3, 0)):
        sides = (left, right) if x.dim() == 2 else (0, 0, left, right)
        mask = torch.zeros(3, n + 3, dtype=torch.bool)
        mask[:, left : left + n] = True
        padded = nn.functional.pad(x, sides, value=5)
        torch.testing.assert_close(module(padded, mask=mask), module(x), rtol=1e-4, atol=1e-5)
    nothing = module(x, mask=torch.zeros(3, n, dtype=torch.bool))
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize("inputs", [IDS, SERIES], ids=str)
def test_padding_changes_no_vector(inputs: Any) -> None:
    module, x = build(inputs, CLASSES, "core/mlp_net"), batch(inputs)
    mask = torch.ones(3, inputs.length, dtype=torch.bool)
    mask[:, 4:] = False
    torch.testing.assert_close(module(x, mask=mask), module(x[:, :4]))
    assert torch.isfinite(module(x, mask=mask & False)).all()


def test_pools_pool_what_is_kept() -> None:
    x = torch.tensor([[[1.0], [5.0], [3.0], [-9.0]]])
    mask = torch.tensor([[True, False, True, False]])
    assert Pool("mean", width=1)(x, mask=mask).item() == 2.0
    assert Pool("max", width=1)(x, mask=mask).item() == 3.0
    assert Pool("last", width=1)(x, mask=mask).item() == 3.0
    assert Pool("last", width=1)(x).item() == -9.0
    weighed = Pool("attention", width=1)
    nn.init.constant_(weighed.query, 0.7)
    share = torch.tensor([0.7, 2.1]).softmax(0)
    torch.testing.assert_close(weighed(x, mask=mask).squeeze(), share @ torch.tensor([1.0, 3.0]))
    for name in ("mean", "max", "last", "attention"):
        assert Pool(name, width=1)(x, mask=mask & False).item() == 0.0
    with pytest.raises(ValueError, match=r"'sum'.*mean, max, last, attention"):
        Pool("sum", width=1)


def test_patches_cover_the_image_row_by_row() -> None:
    config = PatchesConfig(patch=4)
    stem = Patches(config, inputs=IMAGE, width=2 * 16)
    with torch.no_grad():
        stem.project.weight.copy_(torch.eye(32))
    x = batch(IMAGE)
    patches, mask = stem(x)
    assert mask is None and patches.shape == (3, 6, 32) and config.tokens(IMAGE) == 6
    whole = nn.functional.pad(x, (0, 3, 0, 1))  # 8 x 12
    for index in range(6):
        top, left = 4 * (index // 3), 4 * (index % 3)
        torch.testing.assert_close(patches[:, index], whole[:, :, top : top + 4, left : left + 4].flatten(1))


def test_the_patch_size_follows_the_image() -> None:
    def tokens(side: int, **options: Any) -> int:
        return PatchesConfig(**options).tokens(zp.Image(channels=1, height=side, width=side))

    assert [tokens(side) for side in (1, 2, 8, 28, 32, 224)] == [1, 1, 16, 49, 64, 49]
    assert tokens(8, patch=3) == 9
    with pytest.raises(zp.ContractError, match=r"patch=9 is larger than image\(1, 8, 8\)"):
        tokens(8, patch=9)


@pytest.mark.parametrize("length", [1, 7, 8, 29])
def test_convolutions_are_those_of_torch(length: int) -> None:
    config = ConvolutionsConfig(layers=2, stride=2, kernel_size=3)
    stem = Convolutions(config, inputs=SERIES, width=8)
    x = torch.randn(2, length, SERIES.channels)
    y = x.mT
    for project in stem.projections:
        weight = project.weight.unflatten(1, (-1, 3))
        y = F.pad(y, (1, -y.shape[2] % 2))
        y = F.gelu(F.conv1d(y, weight, project.bias, stride=2))
    torch.testing.assert_close(stem(x)[0], y.mT)
    assert stem(x)[0].shape[1] == config.tokens(zp.Series(channels=SERIES.channels, length=length))


def test_a_convolution_skips_no_step() -> None:
    with pytest.raises(zp.ConfigError, match="kernel_size: 2 is smaller than the stride, 4"):
        ConvolutionsConfig(stride=4, kernel_size=2)


def test_labels_need_a_token_for_each_step() -> None:
    labels, stem = zp.Labels(count=3), catalogue().part("stem", "core/convolutions")
    model = catalogue().part("model", "core/transformer")
    with pytest.raises(zp.ContractError, match="makes 2 tokens of 9 steps; choose a stem that makes each"):
        resolve(
            catalogue(),
            model=model,
            inputs=zp.Series(channels=2, length=9),
            targets=labels,
            stem=stem,
        )


def test_series_statistics() -> None:
    stem = SeriesPool(SeriesPoolConfig(), inputs=zp.Series(channels=1, length=4), width=4)
    with torch.no_grad():
        stem.project.weight.copy_(torch.eye(4))
    x = torch.tensor([[[1.0], [3.0], [8.0], [100.0]]], requires_grad=True)
    got, mask = stem(x, mask=torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(got, torch.tensor([[4.0, (26 / 3) ** 0.5, 1.0, 8.0]]))
    assert mask is None
    stem(x[:, :1])[0].sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_image_heads_average_a_map() -> None:
    head, x = ImageHead(ImageHeadConfig(), targets=CLASSES, width=8), torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(head(x), head(x.mean((2, 3))))
    with pytest.raises(ValueError, match=r"\(2, 8, 3\)"):
        head(x[..., 0])


@pytest.mark.parametrize(
    ("inputs", "wrong", "message"),
    [
        (IMAGE, torch.zeros(2, 1, 7, 9), r"\(B, 2, 7, 9\), got shape \(2, 1, 7, 9\)"),
        (SERIES, torch.zeros(2, 6, 4), r"\(B, N, 3\), got shape \(2, 6, 4\)"),
        (VECTOR, torch.zeros(2, 6), r"\(B, 5\), got shape \(2, 6\)"),
        (IDS, torch.zeros(2, 6), r"whole numbers \(B, N\), got torch.float32"),
        (IDS, torch.full((2, 6), 11), r"ids must lie in \[0, 11\), got 11 to 11"),
    ],
)
def test_wrong_inputs_are_named(inputs: zp.DataKind, wrong: Tensor, message: str) -> None:
    for model in ("core/transformer", "core/mlp_net"):
        with pytest.raises(ValueError, match=message):
            build(inputs, CLASSES, model)(wrong)


def test_masks_are_checked() -> None:
    module, x = build(IDS, CLASSES), batch(IDS)
    for mask in (torch.ones(3, 6), torch.ones(3, 5, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"bool \(3, 6\), True = keep"):
            module(x, mask=mask)


# -- language models and streams -------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_streams(tied: bool) -> None:
    module, x = build(IDS, NEXT, causal=True, head=part("head", "next_id", tied=tied)), batch(IDS)
    logits = module(x)
    assert logits.shape == (3, 6, 11)
    state, outputs = module.initial_state(3), []
    for piece in x.split(2, dim=1):
        y, state = module.step(piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), logits)
    shared = module.head.linear.weight is module.stem.token_embedding.weight  # type: ignore[union-attr]
    assert shared is tied
    assert logits.std() < 0.5  # a fresh model prefers no symbol
    copied = copy.deepcopy(module)
    assert (copied.head.linear.weight is copied.stem.token_embedding.weight) is tied  # type: ignore[union-attr]
    assert module.num_parameters == build(IDS, NEXT, causal=True).num_parameters - (11 * 16 if tied else 0)


def test_scaled_embeddings_are_the_same_function() -> None:
    """Stored smaller by sqrt(width) and scaled by it, with a tied head that knows; scores without bias."""
    models = []
    for scale in ("one", "sqrt_width"):
        torch.manual_seed(0)
        head = part("head", "next_id", tied=True, bias=False)
        models.append(build(IDS, NEXT, causal=True, head=head, stem=part("stem", "embedding", scale=scale)))
    plain, scaled = models
    assert plain.head.linear.bias is None
    weights = [m.stem.token_embedding.weight for m in models]  # type: ignore[union-attr]
    torch.testing.assert_close(weights[0], weights[1] * weights[1].shape[1] ** 0.5)
    x = batch(IDS)
    torch.testing.assert_close(plain(x), scaled(x))


def test_series_stream_into_next_ids() -> None:
    module, x = build(SERIES, NEXT, causal=True), batch(SERIES)
    y, _ = module.step(x, module.initial_state(3))
    torch.testing.assert_close(y, module(x))


def test_tying_needs_an_embedding_of_the_same_size() -> None:
    tied = part("head", "next_id", tied=True)
    with pytest.raises(ValueError, match="stem Steps has none; use tied=False"):
        build(SERIES, NEXT, causal=True, head=tied)
    with pytest.raises(ValueError, match=r"embedding is \(11, 16\), but the answer needs \(12, 16\)"):
        build(IDS, zp.NextId(vocab=12), causal=True, head=tied)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'core/transformer' does not stream: it is built to see both directions"),
        ({"inputs": IMAGE, "causal": True}, "stem 'core/patches' does not stream"),
        ({"causal": True}, "head 'core/pooled_classifier' does not stream"),
        ({"model": "core/mlp_net"}, "'core/mlp_net' does not stream: it needs all tokens at once"),
    ],
)
def test_what_cannot_stream_says_why(options: dict[str, Any], message: str) -> None:
    module = build(**{"inputs": IDS, "targets": CLASSES, **options})
    with pytest.raises(ValueError, match=message):
        module.initial_state(1)


# -- heads again, copies ---------------------------------------------------------------------


def test_reset_head() -> None:
    module, x = (
        build(SERIES, CLASSES, head=part("head", "pooled_classifier", pool="last")).double(),
        batch(SERIES),
    )
    before = module.forward_features(x.double())[0]
    module.eval().reset_head(zp.Classes(count=9))
    assert module(x.double()).shape == (3, 9) and module.plan.targets == zp.Classes(count=9)
    assert module.head.pool.name == "last" and not module.head.training
    assert torch.equal(module.forward_features(x.double())[0], before)
    module.reset_head(VALUES)
    assert module(x.double()).shape == (3, 2) and module.plan.head.id == "core/pooled_regressor"
    assert Plan.from_dict(catalogue(), module.plan.to_dict()).head == module.plan.head
    with pytest.raises(zp.ContractError, match="the answer would leak"):
        module.reset_head(NEXT)  # it is built to see both directions
    flat = build(VECTOR, CLASSES, "core/mlp_net")
    with pytest.raises(zp.ContractError, match="mlp_net' cannot do task 'core/language_modelling'"):
        flat.reset_head(NEXT)
    assert flat(batch(VECTOR)).shape == (3, 4)  # a refusal changes nothing


@pytest.mark.parametrize("inputs", [IMAGE, IDS, SERIES, VECTOR], ids=str)
def test_copies_compute_the_same(inputs: zp.DataKind) -> None:
    module, x = build(inputs, CLASSES), batch(inputs)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(x), module(x)) and copied.plan == module.plan
    with torch.device("meta"):
        hollow = build(inputs, CLASSES)
    assert hollow(x.to("meta")).shape == (3, 4)
    hollow.to_empty(device="cpu").load_state_dict(module.state_dict())
    assert torch.equal(hollow(x), module(x))


def test_a_backbone_that_takes_images_has_no_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    """`build` gets the kind of the images; the head is as wide as the backbone says."""
    import sys
    from types import ModuleType

    import zoo.core
    from zoo.catalogue import Catalogue

    class Convolution(nn.Conv2d):
        num_features = 6

    def build_images(config: None, *, width: int, inputs: zp.Image, causal: bool) -> nn.Module:
        return Convolution(inputs.channels, 6, 3)

    stranger: Any = ModuleType("zoo_stranger")
    stranger.__zoo_api__, stranger.build = 1, build_images
    spec = zp.ModelSpec(name="conv", target="zoo_stranger:build", accepts="image", causal="never")
    stranger.zoo_components = zp.hookimpl(lambda: (spec,))
    monkeypatch.setitem(sys.modules, "zoo_stranger", stranger)
    fresh = Catalogue()
    fresh.add(zoo.core, id="core", distribution="archzoo")
    fresh.add(stranger, id="stranger")
    found = resolve(fresh, model=fresh.part("model", "conv"), inputs=IMAGE, targets=CLASSES)
    module = build_model(found, catalogue=fresh)
    assert module.stem is None and module.num_features == 6
    assert module(batch(IMAGE)).shape == (3, 4)
    assert module.forward_features(batch(IMAGE))[0].shape == (3, 6, 5, 7)
    module.reset_head(VALUES, catalogue=fresh)
    assert module(batch(IMAGE)).shape == (3, 2)
    with pytest.raises(ValueError, match="does not show its layers"):
        module.forward_intermediates(batch(IMAGE))


# -- the linear skip of forecasts ------------------------------------------------------------


def forecaster(skip: str = "linear", *, length: int = 7, ragged: bool = False) -> Model:
    found = catalogue()
    return build_model(
        resolve(
            found,
            model=found.part("model", "core/transformer", {"depth": 1, "heads": 2}),
            width=8,
            inputs=zp.Series(channels=3, length=length, ragged=ragged),
            targets=zp.Forecast(channels=2, horizon=4),
            head=found.part("head", "core/pooled_forecaster", {"skip": skip}),
        )
    ).eval()


def test_a_forecast_starts_as_the_last_value_and_adds_what_is_learned() -> None:
    model = forecaster()
    x = torch.randn(5, 7, 3)
    features, _ = model.forward_features(x)
    rest = model.forward_head(features)
    torch.testing.assert_close(model(x) - rest, x[:, -1:, :2].expand(-1, 4, -1))
    torch.nn.init.normal_(model.head.skip.map.weight)
    skip = model.head.skip.map
    past = (x - x[:, -1:])[..., :2]
    expected = torch.einsum("hn,bnc->bhc", skip.weight, past) + skip.bias[:, None] + x[:, -1:, :2]
    torch.testing.assert_close(model(x) - rest, expected)
    without = forecaster("none")
    assert without.num_parameters == model.num_parameters - 7 * 4 - 4
    torch.testing.assert_close(without(x), without.forward_head(without.forward_features(x)[0]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_skip_of_a_padded_series_is_that_of_the_series(side: str) -> None:
    model = forecaster(ragged=True)
    torch.nn.init.normal_(model.head.skip.map.weight)
    skip, lengths = model.head.skip, [7, 4, 1]
    x = torch.randn(3, 7, 3)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = True
    if side == "left":
        mask = mask.flip(1)
    together = skip(x, mask=mask)
    other = skip(torch.where(mask[..., None], x, 1e4), mask=mask)
    torch.testing.assert_close(together, other)
    for row in range(3):
        torch.testing.assert_close(together[row], skip(x[row][mask[row]][None])[0])
    assert not skip(x, mask=torch.zeros_like(mask)).any()  # nothing is known: zeros, never NaN
