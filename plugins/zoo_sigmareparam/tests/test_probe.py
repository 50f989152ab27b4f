"""What the probe sees: attention however it is written, against entropies computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from zoo import torchvision_shim
from zoo.plugin import Classes, Ids, NextId, Series

torchvision_shim.install()

import timm  # noqa: E402
from zoo_sigmareparam import AttentionEntropy, AttentionEntropyConfig, attention_entropies  # noqa: E402
from zoo_sigmareparam.watch import PICTURE, TABLE, History, draw  # noqa: E402

H, D = 2, 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


#: What a mask adds where nothing is to be seen.
LOWEST = {"bias": -math.inf, "lowest number": torch.finfo(torch.float32).min, "very low": -1e9}


class Attention(nn.Module):
    """Attention of one layer, written in one of several ways; `expected` holds the probabilities."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.qkv = way, nn.Linear(D, 3 * D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (3 * self.qkv(x)).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        n = x.shape[1]
        scores, band = q @ k.mT / math.sqrt(D // H), torch.ones(n, n, dtype=torch.bool).tril()
        if self.way not in ("full", "blocks"):
            scores = scores.masked_fill(~band, -math.inf)
        self.expected = scores.softmax(-1)
        if self.way == "by hand":
            return self.expected @ v
        if self.way == "bool mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=band)
        if self.way in LOWEST:
            bias = torch.zeros(n, n).masked_fill(~band, LOWEST[self.way])
            return F.scaled_dot_product_attention(q, k, v, bias)
        if self.way == "blocks":
            q, k, v = (t.unflatten(2, (3, 2)) for t in (q, k, v))  # (B, H, 3, 2, d)
            self.expected = (q @ k.mT / math.sqrt(D // H)).softmax(-1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.way == "causal")


def by_hand(probs: Tensor) -> Tensor:
    """(B, H, ..., T) -> (H,)."""
    return -torch.xlogy(probs, probs).sum(-1).transpose(0, 1).flatten(1).mean(1)


def by_hand_normalized(probs: Tensor) -> Tensor:
    """The same over the logarithm of the keys that are seen, over rows that see two or more."""
    keys = (probs > 0).sum(-1)
    rows = -torch.xlogy(probs, probs).sum(-1) / keys.log()
    return torch.stack([rows[:, h][keys[:, h] > 1].mean() for h in range(probs.shape[1])])


@pytest.mark.parametrize("way", ["full", "causal", "bool mask", *LOWEST, "blocks", "by hand"])
def test_attention_however_it_is_written(way: str) -> None:
    model, x = nn.Sequential(nn.Linear(D, D), Attention(way)), torch.randn(3, 6, D)
    expected_output = model(x)
    expected = by_hand(model[1].expected).detach()
    outputs: list[Tensor] = []
    found = attention_entropies(model, lambda: outputs.append(model(x)))
    assert torch.equal(outputs[0], expected_output)  # looked at, not replaced
    heads = found["1#2"] if way != "by hand" else found["1"]  # this toy computes `expected` by a softmax, too
    torch.testing.assert_close(heads.entropy, expected)
    torch.testing.assert_close(heads.normalized, by_hand_normalized(model[1].expected).detach())
    assert (heads.bound <= heads.entropy).all() and (heads.bound > 0).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_of_torch(need_weights: bool) -> None:
    model, x = nn.MultiheadAttention(D, H, batch_first=True).eval(), torch.randn(3, 5, D)
    nn.init.normal_(model.in_proj_weight)
    causal = torch.ones(5, 5).triu(1).bool()
    outputs: list[Any] = []
    options = {"need_weights": need_weights, "attn_mask": causal, "is_causal": True}
    found = attention_entropies(model, lambda: outputs.append(model(x, x, x, **options)))
    expected, weights = model(x, x, x, attn_mask=causal, average_attn_weights=False)
    torch.testing.assert_close(outputs[0][0], expected)
    assert (outputs[0][1] is not None) == need_weights
    if need_weights:
        torch.testing.assert_close(outputs[0][1], weights.mean(1))
    heads = found[""]
    torch.testing.assert_close(heads.entropy, by_hand(weights).detach())
    assert (heads.bound <= heads.entropy).all() and (heads.bound > 0).all()


def test_the_bound_is_that_of_the_logits_whichever_way_they_came() -> None:
    """`nn.MultiheadAttention` shows probabilities only."""
    fused = nn.MultiheadAttention(D, H, batch_first=True).eval()
    nn.init.normal_(fused.in_proj_weight)
    x = torch.randn(3, 5, D)

    def by_sdpa() -> None:
        q, k, v = F.linear(x, fused.in_proj_weight).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        F.scaled_dot_product_attention(q, k, v)

    (of_probs,) = attention_entropies(fused, lambda: fused(x, x, x)).values()
    (of_logits,) = attention_entropies(nn.Identity(), by_sdpa).values()
    for one, other in zip(vars(of_probs).values(), vars(of_logits).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_of_hugging_face_whose_masks_hold_the_lowest_number() -> None:
    transformers = pytest.importorskip("transformers")
    found = {}
    for how in ("eager", "sdpa"):
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        config._attn_implementation = how
        model = transformers.GPT2LMHeadModel(config).eval()
        (found[how],) = attention_entropies(model, lambda model=model: model(torch.arange(6)[None])).values()
    torch.testing.assert_close(found["eager"].entropy, found["sdpa"].entropy)
    torch.testing.assert_close(found["eager"].normalized, found["sdpa"].normalized)


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_of_torch_whose_fast_path_hides_everything(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(D, H, 16, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    found = attention_entropies(model, lambda: model(torch.randn(3, 5, D)))
    assert list(found) == ["layers.0.self_attn", "layers.1.self_attn"]


@pytest.mark.parametrize("fused", [True, False])
def test_a_vision_transformer_of_timm(fused: bool) -> None:
    model = timm.create_model("test_vit", num_classes=4, img_size=32).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    x = torch.randn(2, 3, 32, 32)
    found = attention_entropies(model, lambda: model(x))
    assert list(found) == [f"blocks.{i}.attn" for i in range(len(model.blocks))]
    again = attention_entropies(torch.compile(model, backend="eager"), lambda: model(x))
    for name, heads in found.items():
        assert (heads.normalized > 0.5).all() and heads.entropy.shape == (model.blocks[0].attn.num_heads,)
        torch.testing.assert_close(again[f"_orig_mod.{name}"].entropy, heads.entropy)


def test_attention_that_tells_itself_is_not_seen_twice() -> None:
    """One that asks a softmax inside, beside one that is found by its call."""

    class Tells(Attention):
        def attention_probs(self, x: Tensor) -> Tensor:
            self(x)
            return self.expected.flip(1)  # not what the calls inside would show

    model, x = nn.Sequential(Tells("full"), Attention("causal")), torch.randn(3, 6, D)
    found = attention_entropies(model, lambda: [layer(x) for layer in model])
    assert list(found) == ["0", "1", "1#2"]
    torch.testing.assert_close(found["0"].entropy, by_hand(model[0].expected).flip(0).detach())
    assert (found["0"].bound <= found["0"].entropy).all()


@pytest.mark.parametrize("mixer", ["aaren/aaren", "combiner/axial", "landmark/landmark"])
def test_mixers_of_the_zoo_that_call_no_softmax(mixer: str) -> None:
    ids, targets = Ids(vocab=9, length=20), NextId(vocab=9)
    made = {"inputs": ids, "targets": targets, "width": 16, "depth": 2, "heads": 2, "layers": [mixer]}
    model = zoo.create_model("core/transformer", **made).eval()
    found = attention_entropies(model, lambda: model(torch.randint(9, (3, 20))))
    assert list(found) == [f"backbone.blocks.{layer}.mixer" for layer in range(2)]
    assert all(len(heads.entropy) == 2 and (heads.normalized > 0).all() for heads in found.values())


def test_padded_queries_do_not_count() -> None:
    model = zoo.create_model(
        "core/transformer", inputs=Series(channels=3, length=6), targets=Classes(count=2), width=16, depth=1
    ).eval()
    x, mask = torch.randn(2, 6, 3), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    (padded,) = attention_entropies(model, lambda: model(x, mask=mask), mask=mask).values()
    (first,) = attention_entropies(model, lambda: model(x[:1])).values()
    (second,) = attention_entropies(model, lambda: model(x[1:, :3])).values()
    torch.testing.assert_close(padded.entropy, (6 * first.entropy + 3 * second.entropy) / 9)


def test_a_model_without_attention_and_a_failing_forward_leave_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert attention_entropies(model, lambda: model(torch.ones(1, 2))) == {}
    with pytest.raises(RuntimeError):
        attention_entropies(model, lambda: model(torch.ones(1, 3)))
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks and not model._forward_pre_hooks


# -- the callback ------------------------------------------------------------------------------


class Run:
    """As much of a run as the callback needs."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.step, self.steps = 0, 4
        self.logged: list[dict[str, float]] = []
        self.notes: list[str] = []

    def forward(self, batch: Any) -> Tensor:
        return self.model(batch["input"])

    def log(self, values: Any) -> None:
        self.logged.append(dict(values))

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_collapse_is_said_once_for_each_layer_and_drawn(tmp_path: Path) -> None:
    model = zoo.create_model(
        "core/transformer", inputs=Ids(vocab=9, length=6), targets=NextId(vocab=9), depth=2
    )
    with torch.no_grad():
        model.backbone.blocks[1].mixer.qkv.weight.mul_(100)
    run, batch = Run(model, tmp_path), {"input": torch.randint(9, (32, 6))}
    watch = AttentionEntropy(AttentionEntropyConfig(every_steps=2, bound=True))
    for step in range(1, 5):
        run.step = step
        watch.after_step(run, batch)
    watch.on_end(run)
    assert watch.history.steps == [1, 2, 4] and len(run.logged) == 3
    assert all(row.keys() == set(watch.columns) for row in run.logged)
    (note,) = run.notes
    assert note.startswith("attention of backbone.blocks.1.mixer has collapsed at step 1: its entropy is")
    rows = (tmp_path / TABLE).read_text().splitlines()
    assert rows[0] == "step,layer,head,entropy,normalized,bound" and len(rows) == 1 + 3 * 2 * 4
    assert (tmp_path / PICTURE).stat().st_size > 5000


def test_a_model_without_attention_is_said_once(tmp_path: Path) -> None:
    run, watch = Run(nn.Linear(2, 2), tmp_path), AttentionEntropy(AttentionEntropyConfig(every_steps=1))
    for step in (1, 2):
        run.step = step
        watch.after_step(run, {"input": torch.ones(3, 2)})
    watch.on_end(run)
    assert run.notes == ["this model has no softmax attention to watch"] and not list(tmp_path.iterdir())


def test_a_layer_that_appears_late_is_drawn(tmp_path: Path) -> None:
    found = attention_entropies(model := Attention("full"), lambda: model(torch.randn(1, 4, D)))
    history = History()
    history.add(1, {"a": found["#2"]})
    history.add(2, {"a": found["#2"], "b": found["#2"]})
    assert [row[:3] for row in history.rows()] == [[1, "a", 0], [1, "a", 1], [1, "b", 0], [1, "b", 1]] + [
        [2, layer, head] for layer in "ab" for head in (0, 1)
    ]
    draw(history, tmp_path / "map.png", bound=True)
