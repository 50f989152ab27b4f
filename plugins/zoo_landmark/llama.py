"""The transform `landmark/llama`: a LLaMA of the library transformers attends by landmarks.

Its weights stay, under their names; one vector is new, the landmark, as in the paper's section 4.2. The model
is called as before: landmarks come in behind the embedding and go out behind the last layer, so that ids,
labels, logits, caches and `generate` count tokens alone. B batch, N tokens, M places, D width.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo import torchvision_shim
from zoo.plugin import Transformed
from zoo_landmark.attention import PlacesAttention
from zoo_landmark.cache import turned
from zoo_landmark.config import FetchConfig
from zoo_landmark.grid import insert_rows

torchvision_shim.install()  # transformers imports torchvision

from transformers.cache_utils import CacheLayerMixin, DynamicCache  # noqa: E402
from transformers.models.llama.modeling_llama import (  # noqa: E402
    LlamaAttention,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from zoo.layers import select_rows  # noqa: E402
from zoo_landmark.stream import LandmarkState  # noqa: E402

#: Angles that are a position times a frequency: only those can be turned by distances.
_ROPES = ("default", "linear", "llama3", "yarn")
#: What the forward of a LLaMA calls its cache; the second is the older name, still accepted.
_CACHE_NAMES = ("cache", "past_key_values")


def apply(model: nn.Module, config: FetchConfig) -> Transformed:
    """Give every LLaMA in `model` landmark attention, in place; again, it changes nothing.

    Raises:
        ValueError: there is none, its rotary positions are of a kind that depends on the length, or it has
            landmarks with other parameters. Then nothing is changed.
    """
    found = [module for module in model.modules() if isinstance(module, LlamaModel)]
    if not found:
        raise ValueError(
            f"landmark/llama changes a LLaMA of the library transformers; {type(model).__name__} holds none. "
            "A model of the zoo takes the mixer landmark/landmark, or is landmark/lm"
        )
    fresh = [llama for llama in found if not _has_landmarks(llama, config)]
    for llama in fresh:
        _check(llama)
    for llama in fresh:
        rows = llama.embed_tokens.weight.detach()
        llama.landmark = nn.Parameter(rows.float().mean(0).to(rows.dtype))  # as the authors' code starts
        for layer in llama.layers:
            layer.self_attn = LlamaLandmarks(layer.self_attn, config, llama.rotary_emb)
        llama.register_forward_pre_hook(_enter, with_kwargs=True)
        llama.register_forward_hook(_leave, with_kwargs=True)
    dropped = any(llama.config.attention_dropout for llama in fresh)
    notes = ("attention_dropout is not applied: landmark attention has none",) if dropped else ()
    return Transformed(model=model, notes=notes)


class LlamaLandmarks(PlacesAttention):
    """The attention of one layer, with the projections of the one that it replaces."""

    def __init__(self, attention: LlamaAttention, config: FetchConfig, rotary: Any) -> None:
        super().__init__(config, heads=attention.config.num_attention_heads, turn=partial(_turn, rotary))
        self.layer_idx = attention.layer_idx
        self.groups = attention.num_key_value_groups
        self.head_width = attention.head_dim
        # Queries and keys are both scaled where positions are stretched by yarn.
        self.stretch = float(rotary.attention_scaling) ** 2
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.o_proj,
        )
        self.train(attention.training)

    def forward(self, hidden_states: Tensor, **passed: Any) -> tuple[Tensor, None]:
        """hidden_states: (B, M, D) -> (B, M, D), and no weights. Of what else a layer of transformers passes
        its attention, whose names change from release to release, only the cache is read."""
        cache = _cache_of(passed)
        memory = None if cache is None else cache.layers[self.layer_idx]
        age = 0 if memory is None else memory.age
        q, k, v = self._project(hidden_states, age % self.size)
        if memory is None:
            mixed = self._attend(q, k, v)
        else:
            state = self._empty(k[:, :, :0]) if memory.state is None else memory.state
            mixed, memory.state = self._advance(q, k, v, state, age)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), None

    def _project(self, x: Tensor, phase: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, M, D) -> q, k, v (B, H, M, d), keys turned by their place in the block."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        k, v = (t.repeat_interleave(self.groups, 1) for t in (k, v))
        within = self._within(phase, x.shape[1], x.device)
        return q * self.stretch, turned(k, self.turn, within), v

    def extra_repr(self) -> str:
        config = self.config
        return f"heads={self.heads}, block={config.block}, window={config.window}, top_k={config.top_k}"


class LandmarkLayer(CacheLayerMixin):
    """What one layer remembers, in a cache of transformers. Its length counts tokens, without landmarks."""

    is_sliding = False

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.state: LandmarkState | None = None

    @property
    def age(self) -> int:
        """Places so far, tokens and landmarks; all rows are equally old."""
        return 0 if self.state is None else int(self.state.position[0])

    def get_seq_length(self) -> int:
        return self.age - self.age // self.size

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in older releases

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Nothing is masked."""
        return int(query_length), 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing to prepare."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("this cache belongs to a LLaMA with landmarks; another model cannot write to it")

    def reset(self) -> None:
        self.state = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.state is not None:
            self.state = select_rows(self.state, indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            rows = torch.arange(len(self.state.position), device=self.state.position.device)
            self.state = select_rows(self.state, rows.repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise ValueError("landmark attention takes no token back: assisted generation is not possible")


def _turn(rotary: Any, x: Tensor, at: Tensor) -> Tensor:
    """x: (B, H, N, d) turned by places, int (B or 1, N), with the frequencies of the LLaMA."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    angle = at[:, None, :, None] * rotary.inv_freq.to(x.device, dtype)
    cos, sin = angle.cos(), angle.sin()
    first, second = x.to(dtype).chunk(2, -1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1).to(x.dtype)


def _has_landmarks(llama: LlamaModel, config: FetchConfig) -> bool:
    """Whether it was changed before.

    Raises:
        ValueError: with other parameters.
    """
    mixers = [layer.self_attn for layer in llama.layers]
    if not all(isinstance(mixer, LlamaLandmarks) for mixer in mixers):
        return False
    if any(mixer.config != config for mixer in mixers):
        raise ValueError(f"this LLaMA has landmarks already, with {mixers[0].config}; asked for: {config}")
    return True


def _check(llama: LlamaModel) -> None:
    strange = {type(layer.self_attn).__name__ for layer in llama.layers} - {LlamaAttention.__name__}
    if strange:
        raise ValueError(
            f"landmark/llama takes the place of LlamaAttention; a layer here has {', '.join(sorted(strange))}"
        )
    kind = llama.rotary_emb.rope_type
    if kind not in _ROPES:
        raise ValueError(
            f"rotary positions of kind {kind!r} depend on the length of the text, so that places cannot be "
            f"stingy; landmark/llama takes {', '.join(_ROPES)}"
        )


def _enter(
    llama: LlamaModel, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """Before the forward of a LLaMA: tokens become their embeddings, with landmarks between them."""
    given = inspect.signature(type(llama).forward).bind_partial(llama, *args, **kwargs).arguments
    given.pop("self")
    given |= given.pop("kwargs", {})
    x = given.pop("inputs_embeds", None)
    ids = given.pop("input_ids", None)
    if (x is None) == (ids is None):
        raise ValueError("give either input_ids or inputs_embeds")
    x = llama.embed_tokens(ids) if x is None else x
    every = llama.layers[0].self_attn.config.block
    cache = _prepared_cache(llama, given, every + 1)
    seen = 0 if cache is None else cache.get_seq_length()
    _require_no_padding(given.pop("attention_mask", None), given.pop("position_ids", None), seen, x.shape[1])
    phase = seen % every
    landmarks = llama.landmark.to(x.dtype).expand(len(x), (phase + x.shape[1]) // every, -1)
    given["inputs_embeds"] = insert_rows(x, landmarks, every, phase)
    # A mask of four dimensions is passed on as it is, so that none of M x M is made; nobody reads it.
    given["attention_mask"] = x.new_zeros(1, 1, 1, 1)
    return (), given


def _leave(llama: LlamaModel, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Behind it: what stands at the tokens."""
    size, count = llama.layers[0].self_attn.size, kwargs["inputs_embeds"].shape[1]
    cache = _cache_of(kwargs)
    phase = (0 if cache is None else cache.layers[0].age - count) % size
    at = torch.arange(count, device=kwargs["inputs_embeds"].device)
    tokens = at[(phase + at) % size != size - 1]

    def without(part: Any) -> Any:
        return tuple(map(without, part)) if isinstance(part, tuple) else part.index_select(1, tokens)

    if isinstance(output, tuple):  # return_dict=False
        return (without(output[0]), *output[1:])
    parts = {
        name: without(part) if name in ("last_hidden_state", "hidden_states") else part
        for name, part in output.items()
    }
    return type(output)(**parts)


def _cache_of(passed: dict[str, Any]) -> Any:
    return next((passed[name] for name in _CACHE_NAMES if passed.get(name) is not None), None)


def _prepared_cache(llama: LlamaModel, given: dict[str, Any], size: int) -> Any:
    """The cache of this call, with a place for what each layer remembers; `None` where none is asked for.

    Raises:
        ValueError: it is of another kind or holds something else, or the model is in training.
    """
    cache = _cache_of(given)
    wanted = given.get("use_cache")
    wanted = (cache is not None or llama.config.use_cache) if wanted is None else wanted
    if llama.training:
        if cache is not None:
            raise ValueError(
                "in training every block is seen, without a cache; call eval() first, or pass none"
            )
        given["use_cache"] = False
        return None
    if cache is None:
        given["use_cache"] = wanted
        if not wanted:
            return None
        cache = DynamicCache(config=llama.config)
        known = inspect.signature(type(llama).forward).parameters
        given[next(name for name in _CACHE_NAMES if name in known)] = cache
    if not isinstance(cache, DynamicCache):
        raise ValueError(f"landmark/llama keeps its memory in a DynamicCache, got a {type(cache).__name__}")
    if not all(isinstance(layer, LandmarkLayer) for layer in cache.layers) or not cache.layers:
        if cache.get_seq_length():
            raise ValueError("this cache holds tokens of a model without landmarks; start with an empty one")
        cache.layers = [LandmarkLayer(size) for _ in llama.layers]
    return cache


def _require_no_padding(mask: Tensor | None, positions: Tensor | None, seen: int, count: int) -> None:
    if mask is not None and (mask.dim() != 2 or not bool(mask.bool().all())):
        got = f"{int((mask == 0).sum())} hidden ones" if mask.dim() == 2 else f"a mask {tuple(mask.shape)}"
        raise ValueError(
            "landmark/llama takes rows of one length without padding: attention_mask must be (B, N) of ones, "
            f"got {got}. Give texts of other lengths one by one"
        )
    if positions is not None:
        expected = seen + torch.arange(count, device=positions.device)
        found = positions.flatten()[:8].tolist()
        if positions.shape[-1] != count or not bool((positions == expected).all()):
            raise ValueError(
                f"position_ids must count on from {seen}, got {found}...: landmark attention places tokens "
                "itself, and takes neither packed nor padded rows"
            )


class _Logits(nn.Module):
    """Ids (B, N) -> logits (B, N, vocab)."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        super().__init__()
        self.llama = llama

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.llama(ids).logits
        return logits


def example() -> tuple[nn.Module, Tensor]:
    """A small LLaMA with random weights, and ids for more than a block of the transform's defaults."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return _Logits(LlamaForCausalLM(config)), torch.randint(32, (2, 60))
