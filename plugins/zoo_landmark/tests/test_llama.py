"""`landmark/llama`: the same answers in every way of calling it, and those of the paper's definition."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo import torchvision_shim

torchvision_shim.install()
transformers = pytest.importorskip("transformers")

from transformers import LlamaConfig, LlamaForCausalLM, StaticCache  # noqa: E402
from transformers.models.llama import modeling_llama  # noqa: E402
from zoo_landmark import landmark_attention  # noqa: E402
from zoo_landmark.llama import LlamaLandmarks  # noqa: E402

VOCAB = 32
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": None,
        "bos_token_id": None,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval()


def with_landmarks(model: LlamaForCausalLM | None = None, **params: Any) -> LlamaForCausalLM:
    model = copy.deepcopy(model or llama())
    return zoo.apply_transform(model, "landmark/llama", **({"block": 4, "window": 1, "top_k": 2} | params))


def ids(count: int, rows: int = 2) -> Tensor:
    return torch.randint(VOCAB, (rows, count), generator=torch.Generator().manual_seed(count))


def cache_of(output: Any) -> Any:
    return next(output[name] for name in ("cache", "past_key_values") if name in output)


def cache_name() -> str:
    known = inspect.signature(modeling_llama.LlamaModel.forward).parameters
    return next(name for name in ("cache", "past_key_values") if name in known)


def by_definition(model: LlamaForCausalLM, text: Tensor, block: int, row: Tensor) -> Tensor:
    """Logits of a plain LLaMA with the reference as attention and landmarks in the stream, at true places."""
    inner = model.model
    is_landmark: list[bool] = []
    for _ in range(text.shape[1]):
        is_landmark.append(False)
        if len(is_landmark) % (block + 1) == block:
            is_landmark.append(True)
    marks = torch.tensor(is_landmark)
    x = row.expand(len(text), len(marks), -1).clone()
    x[:, ~marks] = inner.embed_tokens(text)
    cos, sin = inner.rotary_emb(x, torch.arange(len(marks))[None])
    for layer in inner.layers:
        attention, y = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (
            projection(y).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (modeling_llama.repeat_kv(t, attention.num_key_value_groups) for t in (k, v))
        mixed = landmark_attention(q, k, v, is_landmark=marks.expand(len(text), -1), impl="reference")
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(inner.norm(x[:, ~marks]))


@pytest.mark.parametrize("rope", [None, YARN], ids=["rope", "yarn"])
def test_while_all_blocks_are_fetched_it_is_the_definition(rope: Any) -> None:
    plain = llama(**({} if rope is None else {"rope_parameters": rope}))
    text = ids(23)
    model = with_landmarks(plain, top_k=None)
    torch.nn.init.normal_(model.model.landmark)
    expected = by_definition(plain, text, 4, model.model.landmark.detach())
    for call in ({"use_cache": False}, {"use_cache": True}):
        torch.testing.assert_close(model(text, **call).logits, expected, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(model.train()(text).logits, expected, rtol=1e-4, atol=2e-4)
    some = with_landmarks(plain, top_k=5)  # 23 tokens: 5 blocks, all near or fetched
    some.model.landmark.data = model.model.landmark.data
    torch.testing.assert_close(some(text).logits, expected, rtol=1e-4, atol=2e-4)


def test_without_a_complete_block_it_is_the_plain_model() -> None:
    plain, text = llama(), ids(20)
    torch.testing.assert_close(with_landmarks(plain, block=20)(text).logits[:, :20], plain(text).logits)


@pytest.mark.parametrize("pieces", [[1] * 40, [40], [3, 1, 9, 4, 23], [5] * 8])
@torch.no_grad()
def test_a_text_in_pieces_gives_what_it_gives_at_once(pieces: list[int]) -> None:
    model, text = with_landmarks(), ids(40)
    whole = model(text, use_cache=False).logits
    outputs, given = [], {}
    for piece in text.split(pieces, 1):
        output = model(piece, use_cache=True, **given)
        given = {cache_name(): cache_of(output)}
        outputs.append(output.logits)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    assert cache_of(output).get_seq_length() == 40


@torch.no_grad()
def test_generation_is_the_best_next_token_of_the_whole_text() -> None:
    model, text = with_landmarks(), ids(9)
    made = model.generate(text, max_new_tokens=24, do_sample=False, attention_mask=torch.ones_like(text))
    for _ in range(24):
        text = torch.cat((text, model(text, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(made, text)


@torch.no_grad()
def test_beams_take_their_memory_with_them() -> None:
    model, text = with_landmarks(), ids(9, rows=1)
    asked = {"num_beams": 3, "max_new_tokens": 20, "do_sample": False}
    asked["attention_mask"] = torch.ones_like(text)
    assert torch.equal(model.generate(text, **asked), model.generate(text, use_cache=False, **asked))


def test_ids_labels_and_hidden_states_count_tokens_alone() -> None:
    model, text = with_landmarks().train(), ids(21)
    output = model(text, labels=text, output_hidden_states=True)
    logits = output.logits[:, :-1].flatten(0, 1)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(logits, text[:, 1:].flatten()))
    assert {tuple(y.shape) for y in output.hidden_states} == {(2, 21, 32)}
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.model.landmark.grad.abs().sum() > 0
    embeds = model.model.embed_tokens(text)
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, output.logits)


def test_weights_keep_their_names_and_the_landmark_begins_as_a_mean_token() -> None:
    plain = llama()
    model = with_landmarks(plain)
    assert model.state_dict().keys() - plain.state_dict().keys() == {"model.landmark"}
    torch.testing.assert_close(model.model.landmark, plain.model.embed_tokens.weight.mean(0))
    model.model.landmark.data.normal_()
    again = with_landmarks(llama(initializer_range=0.1))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(ids(30)).logits, model(ids(30)).logits)


def test_half_precision_and_copies() -> None:
    model, text = with_landmarks(), ids(30)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(text).logits, model(text).logits)
    copied.model.landmark.data.zero_()
    assert not torch.equal(copied(text).logits, model(text).logits)
    exact = with_landmarks(top_k=None)  # which blocks are fetched may hang on a rounding
    half = copy.deepcopy(exact).bfloat16()(text).logits
    assert half.dtype == torch.bfloat16
    expected = exact(text).logits
    assert (half.float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "Linear holds none"),
        (lambda: zoo.create_model("core/transformer", dataset="core/passkey", depth=1), "landmark/lm"),
        (lambda: llama(rope_parameters=DYNAMIC), "kind 'dynamic'"),
        (lambda: with_landmarks(block=5), "has landmarks already, with FetchConfig\\(block=5"),
    ],
    ids=["no LLaMA", "the zoo's", "positions", "twice"],
)
def test_what_it_cannot_change_it_refuses(model: Any, message: str) -> None:
    given = model()
    before = [name for name, _ in given.named_modules()]
    with pytest.raises(zoo.ZooError, match=message):
        zoo.apply_transform(given, "landmark/llama", block=4)
    assert [name for name, _ in given.named_modules()] == before


def test_other_attention_is_refused() -> None:
    model = llama()
    model.model.layers[1].self_attn = torch.nn.Identity()
    with pytest.raises(zoo.ZooError, match="a layer here has Identity"):
        zoo.apply_transform(model, "landmark/llama")
    assert not any(isinstance(module, LlamaLandmarks) for module in model.modules())


def test_dropout_of_attention_is_said_to_be_gone() -> None:
    with pytest.warns(UserWarning, match="attention_dropout is not applied"):
        with_landmarks(llama(attention_dropout=0.1))


def test_padding_and_foreign_caches_are_refused() -> None:
    plain, text = llama(), ids(12)
    model = with_landmarks(plain)
    mask = torch.ones_like(text)
    mask[0, :3] = 0
    for call, message in [
        ({"attention_mask": mask}, "got 3 hidden ones"),
        ({"position_ids": torch.arange(12)[None] + 1}, "must count on from 0"),
        ({cache_name(): cache_of(plain(text, use_cache=True))}, "holds tokens of a model without landmarks"),
        ({cache_name(): StaticCache(config=plain.config, max_cache_len=20)}, "got a StaticCache"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(text, **call)
    mine = cache_of(model(text, use_cache=True))
    with pytest.raises(ValueError, match="another model cannot write to it"):
        plain(text[:, :1], **{cache_name(): mine})
    with pytest.raises(ValueError, match="in training every block is seen"):
        model.train()(text, **{cache_name(): mine})
    with pytest.raises(ValueError, match="takes no token back"):
        mine.crop(-2)
