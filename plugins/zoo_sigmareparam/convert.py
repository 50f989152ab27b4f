"""Convert a model to sigmaReparam, keep its norms current, look at them, and fold them away again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.plugin import Transformed
from zoo_sigmareparam.config import DEFAULT_KINDS, SigmaReparamConfig
from zoo_sigmareparam.parametrization import SigmaReparam, converted
from zoo_sigmareparam.weights import (
    RemovedNorm,
    Weight,
    find_norms,
    find_weights,
    matching,
    owners_of,
    remove_norm,
    why_not,
)

M = TypeVar("M", bound=nn.Module)

#: Of the random vectors that power iterations start from: one model, one conversion.
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a conversion did.

    converted: full names of the weights. skipped: others of the kinds asked for -> why they are as they were.
    zeros: converted ones that were all zeros, and got a random direction. removed_norms: names of layers.
    """

    converted: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    zeros: tuple[str, ...] = ()
    removed_norms: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """What the user of a recipe may not expect, in sentences."""
        notes = [
            f"{name} {why}; it stays as it is"
            for name, why in self.skipped.items()
            if why != "is converted already"
        ]
        if self.zeros:
            notes.append(f"all zeros, so they start with a random direction: {', '.join(self.zeros)}")
        if self.removed_norms:
            notes.append(f"{len(self.removed_norms)} norms are removed: {', '.join(self.removed_norms)}")
        return tuple(notes)


def apply_sigma_reparam(
    model: nn.Module,
    *,
    include: Sequence[str] = DEFAULT_KINDS,
    exclude: Sequence[str] = (),
    gamma_init: Literal["match"] | float = "match",
    reinit_std: float | None = None,
    n_iter_init: int = 30,
    norms: Literal["keep", "remove"] | Sequence[str] = "keep",
    split: Mapping[str, int] | None = None,
) -> Report:
    """Give every linear map of a model a learned spectral norm, in place: W -> gamma / sigma(W) W.

    Device, dtype and `requires_grad` of the weights stay; weights that are converted already are left alone.
    Build the optimiser afterwards (gammas are new parameters), and let it decay neither gammas nor biases.
    u and v move one power step before each training forward of `model` itself; whoever trains through another
    method calls `update_sigma_`.

    Args:
        include: kinds of layers, see `zoo_sigmareparam.config.KINDS`.
        exclude: names of modules to leave alone with all below them, or patterns such as "head*".
        gamma_init: "match" keeps the function (gamma is the norm the weight has), a number is the norm to
            start with; the paper's is 1.0.
        reinit_std: draw the converted weights anew, normal with this deviation (the paper's is 0.02, a patch
            embedding of ViT-L or larger an eighth of it); biases stay.
        n_iter_init: power steps at the start; there is no SVD.
        norms: "keep"; "remove" takes every normalisation layer out, and is refused where it would break
            trained weights that "match" wants kept; names or patterns take out those, whatever else is asked.
        split: names or patterns of layers -> how many maps of equal height stand in their rows, e.g.
            {"*.qkv": 3}, so that queries, keys and values have norms of their own.

    Returns:
        What was converted, left alone and removed.

    Raises:
        ValueError: something named matches nothing, nothing is left to convert, rows cannot be split so, the
            model is sharded, or none. It then is as it was.
    """
    config = SigmaReparamConfig(
        include=_names(include),
        exclude=_names(exclude),
        gamma_init=gamma_init,
        reinit_std=reinit_std,
        n_iter_init=n_iter_init,
        norms=norms if norms in ("keep", "remove") else _names(norms),  # type: ignore[arg-type]
        split=dict(split) if isinstance(split, Mapping) else split or {},
    )
    return convert(model, config)


def apply(model: M, config: SigmaReparamConfig) -> Transformed:
    """The transform `sigmareparam/sigmareparam`."""
    return Transformed(model=model, notes=convert(model, config).notes())


def convert(model: nn.Module, config: SigmaReparamConfig) -> Report:
    """As `apply_sigma_reparam`. Everything is checked before anything is changed."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a model, an nn.Module; got {type(model).__name__}")
    weights, skipped = _chosen(model, config)
    maps = {weight.name: _maps(weight, config.split) for weight in weights}
    norms = _norms_to_remove(model, config)
    generator = torch.Generator().manual_seed(_SEED)
    gamma = None if config.gamma_init == "match" else config.gamma_init
    zeros = []
    for weight in weights:
        value = weight.value
        assert value is not None  # why_not() has seen to it
        if config.reinit_std is not None:
            nn.init.trunc_normal_(value, std=config.reinit_std)
        by = SigmaReparam(value, row_dim=weight.row_dim, maps=maps[weight.name])
        by.train(weight.module.training)
        by.start(value, steps=config.n_iter_init, gamma=gamma, generator=generator)
        if not value.is_meta and bool((by.v == 0).all(-1).any()):
            _give_direction(value, by, steps=config.n_iter_init, generator=generator)
            zeros.append(weight.name)
        parametrize.register_parametrization(weight.module, weight.parameter, by, unsafe=True)
    for name in norms:
        remove_norm(model, name)
    if any(True for _ in converted(model)):
        _install_hooks(model)
    return Report(
        converted=tuple(weight.name for weight in weights),
        skipped=skipped,
        zeros=tuple(zeros),
        removed_norms=tuple(norms),
    )


def update_sigma_(model: nn.Module, n: int = 1) -> None:
    """n power steps for every converted weight. Training does one by itself, before each forward."""
    for weight in converted(model):
        weight.by.update(weight.original, n)


def fold_sigma_reparam_(model: M) -> M:
    """Put plain weights in the place of converted ones, in place; evaluation gives the same, bit for bit.

    Norms that were removed stay so. Converted again with gamma_init="match", training goes on.

    Raises:
        ValueError: nothing is converted.
    """
    weights = list(converted(model))
    if not weights and not any(isinstance(module, RemovedNorm) for module in model.modules()):
        raise ValueError("fold_sigma_reparam_: no weight of this model is converted")
    for weight in weights:
        weight.by.eval()  # an evaluation's weight, whatever mode the model is in
        _own_class(weight.module)
        parametrize.remove_parametrizations(weight.module, weight.parameter, leave_parametrized=True)
    _remove_hooks(model)
    return model


def spectral_stats(model: nn.Module) -> dict[str, tuple[float, float]]:
    """(sigma, gamma) of every converted weight: the norm that W has, and the one that it is given.

    A weight of several maps has several entries, `name[0]`, `name[1]`, ...
    """
    stats = {}
    for weight in converted(model):
        pairs = list(zip(weight.by.sigma(weight.original).tolist(), weight.by.gamma.tolist(), strict=True))
        for index, pair in enumerate(pairs):
            stats[weight.name if len(pairs) == 1 else f"{weight.name}[{index}]"] = pair
    return stats


def _chosen(model: nn.Module, config: SigmaReparamConfig) -> tuple[list[Weight], dict[str, str]]:
    """The weights to convert, and why others of these kinds are not."""
    if any(hasattr(parameter, "placements") for parameter in model.parameters()) or any(
        hasattr(module, "_fsdp_wrapped_module") for module in model.modules()
    ):
        raise ValueError(
            "the model's weights are sharded (FSDP or tensor parallel), but sigmaReparam needs whole "
            "matrices: use DistributedDataParallel"
        )
    owners = owners_of(model)
    known = [name for name, _ in model.named_modules(remove_duplicate=False)]
    known += [name for names in owners.values() for name in names]
    for pattern in config.exclude:
        if not any(matching(name, [pattern]) for name in known):
            raise ValueError(f"exclude: {pattern!r} matches no module of this model")
    chosen: list[Weight] = []
    skipped: dict[str, str] = {}
    for weight in find_weights(model, config.include):
        if matching(weight.name, config.exclude):
            continue
        reason = why_not(weight, owners)
        if reason is None:
            chosen.append(weight)
        else:
            skipped[weight.name] = reason
    if config.include and not chosen and "is converted already" not in skipped.values():
        why = "; ".join(f"{name} {reason}" for name, reason in skipped.items()) or "it has no such layer"
        raise ValueError(f"nothing to convert of the kinds {', '.join(config.include)}: {why}")
    for pattern in config.split:
        if not any(matching(weight.name, [pattern]) for weight in find_weights(model, config.include)):
            raise ValueError(f"split: {pattern!r} matches no layer of the kinds {', '.join(config.include)}")
    return chosen, skipped


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """A text by itself is one name, not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def _maps(weight: Weight, split: Mapping[str, int]) -> int:
    value = weight.value
    assert value is not None
    maps = next((n for pattern, n in split.items() if matching(weight.name, [pattern])), 1)
    rows = value.shape[weight.row_dim]
    if rows % maps:
        raise ValueError(f"split: the {rows} rows of {weight.name} are not {maps} maps of equal height")
    return maps


def _norms_to_remove(model: nn.Module, config: SigmaReparamConfig) -> list[str]:
    if config.norms == "keep":
        return []
    there = find_norms(model)
    if not there:
        raise ValueError("norms: this model has no normalisation layer to remove")
    patterns = ["*"] if config.norms == "remove" else config.norms
    for pattern in patterns:
        if not any(matching(name, [pattern]) for name in there):
            raise ValueError(
                f"norms: {pattern!r} matches no normalisation layer; there is: {', '.join(there)}"
            )
    if "" in there:
        raise ValueError("norms: the model itself is a normalisation layer")
    return [
        name
        for name in there
        if matching(name, patterns) and not isinstance(model.get_submodule(name), RemovedNorm)
    ]


@torch.no_grad()
def _give_direction(value: Tensor, by: SigmaReparam, *, steps: int, generator: torch.Generator) -> None:
    """A map that is all zeros has no direction to learn from: draw one. With "match" gamma stays 0."""
    zero = (by.v == 0).all(-1)  # (s,)
    drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    matrices, random = by.as_matrices(value), by.as_matrices(drawn)
    new = torch.where(zero[:, None, None], random, matrices)
    value.copy_(new.reshape(value.movedim(by.row_dim, 0).shape).movedim(0, by.row_dim))
    gamma = by.gamma.clone()
    by.start(value, steps=steps, gamma=1.0, generator=generator)
    by.gamma.copy_(gamma)


def _own_class(module: nn.Module) -> None:
    """A class of its own: a deep copy shares its class, from which torch deletes the folded weight."""
    cls = type(module)
    content = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, content)


def _install_hooks(model: nn.Module) -> None:
    _remove_hooks(model)  # a part that was converted before would be updated twice
    model.register_forward_pre_hook(_update_before_training_forward)
    model.register_load_state_dict_pre_hook(_explain_plain_weights)


def _remove_hooks(model: nn.Module) -> None:
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._load_state_dict_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "hook", hook) in (_update_before_training_forward, _explain_plain_weights):
                    del hooks[key]


def _update_before_training_forward(model: nn.Module, inputs: Any) -> None:
    """On the model, not on layers: checkpointed ones run again in the backward, where nothing may move."""
    # A whole model that is checkpointed runs again inside the backward, too.
    again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
    if model.training and not again:
        update_sigma_(model)


def _explain_plain_weights(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Weights of a plain model would be passed over, without a word where strict=False."""
    plain = [prefix + weight.name for weight in converted(model) if prefix + weight.name in state_dict]
    if plain:
        errors.append(
            f"these are weights of a model without sigmaReparam ({plain[0]}, ...): load them first, then "
            "convert; or fold_sigma_reparam_(model), load, and convert again"
        )
