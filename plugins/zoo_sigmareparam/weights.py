"""Which weights of a model are linear maps, and which of its layers are norms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from zoo_sigmareparam.parametrization import SigmaReparam

#: Kind -> (class, the dimension of the weight that counts outputs).
_LAYERS: dict[str, tuple[type[nn.Module], int]] = {
    "Linear": (nn.Linear, 0),
    "Conv1d": (nn.Conv1d, 0),
    "Conv2d": (nn.Conv2d, 0),
    "Conv3d": (nn.Conv3d, 0),
    "ConvTranspose1d": (nn.ConvTranspose1d, 1),
    "ConvTranspose2d": (nn.ConvTranspose2d, 1),
    "ConvTranspose3d": (nn.ConvTranspose3d, 1),
}
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
#: How other libraries call theirs.
_NORM_NAME = re.compile(r"\w*(Layer|RMS|Rms|Group|Batch|Instance)Norm(\dd)?")


class Weight(NamedTuple):
    """A weight that could be converted: full name, owner, its name there, the dimension of its outputs."""

    name: str
    module: nn.Module
    parameter: str
    row_dim: int

    @property
    def value(self) -> Tensor | None:
        """The parameter as it is registered; `None` where there is none."""
        return self.module._parameters.get(self.parameter)


class RemovedNorm(nn.Sequential):
    """Where a norm was. A layer that is a norm and more (timm's norm with activation) keeps the rest."""

    @property
    def eps(self) -> float:
        """No number equals it: torch's encoder layers compare, and else would use the weights of norms."""
        return float("nan")


def find_weights(model: nn.Module, kinds: Sequence[str]) -> Iterator[Weight]:
    """The weights of all layers of these kinds, the model itself included; each once."""
    seen: set[tuple[int, str]] = set()
    for path, module in model.named_modules():
        for parameter, row_dim in _parameters(module, kinds):
            owner: nn.Module = module
            name = f"{path}.{parameter}" if path else parameter
            if parameter == "out_proj.weight":  # read raw by the attention that owns it
                owner, parameter = module.out_proj, "weight"  # type: ignore[assignment]
            if (id(owner), parameter) not in seen:
                seen.add((id(owner), parameter))
                yield Weight(name, owner, parameter, row_dim)


def why_not(weight: Weight, owners: Mapping[int, Sequence[str]]) -> str | None:
    """Why a weight cannot be converted, if so."""
    if parametrize.is_parametrized(weight.module, weight.parameter):
        first = weight.module.parametrizations[weight.parameter][0]  # type: ignore[union-attr, index]
        ours = isinstance(first, SigmaReparam)
        return "is converted already" if ours else f"is parametrized already, by {type(first).__name__}"
    value = weight.value
    if value is None:
        return "is no parameter: something else computes it"
    if isinstance(value, UninitializedParameter):
        return "has no values yet: run one batch through the model first"
    if not value.is_floating_point():
        return f"is of {value.dtype}, not floating point"
    if value.numel() == 0:
        return "is empty"
    names = owners[id(value)]
    if len(names) > 1:
        others = ", ".join(name for name in names if name != weight.name)
        return f"is shared with {others}, whose tie a parametrization would break"
    return None


def owners_of(model: nn.Module) -> dict[int, list[str]]:
    """The names of every parameter, by its identity; two for one that is tied."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    return owners


def find_norms(model: nn.Module) -> list[str]:
    """The names of all normalisation layers, those that were removed before included."""
    return [path for path, module in model.named_modules(remove_duplicate=False) if _is_norm(module)]


def remove_norm(model: nn.Module, name: str) -> None:
    """Replace a norm by nothing, or by what it does besides."""
    parent_name, _, own = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    norm = parent._modules[own]
    if norm is not None and not isinstance(norm, RemovedNorm):
        parent._modules[own] = RemovedNorm(*norm.children()).train(norm.training)


def matching(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is, matches, or lies below one of the patterns."""
    return any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in patterns)


def _parameters(module: nn.Module, kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    if isinstance(module, nn.MultiheadAttention) and "MultiheadAttention" in kinds:
        for parameter in _ATTENTION:
            if module._parameters.get(parameter) is not None or parametrize.is_parametrized(
                module, parameter
            ):
                yield parameter, 0
        yield "out_proj.weight", 0
    for kind in kinds:
        cls, row_dim = _LAYERS.get(kind, (None, 0))
        if cls is not None and isinstance(module, cls):
            yield "weight", row_dim
    if "Conv1D" in kinds and _is_conv1d(module):
        yield "weight", 1


def _is_conv1d(module: nn.Module) -> bool:
    """Hugging Face's GPT-2 keeps its linear maps transposed, in a class of this name or one made from it."""
    return hasattr(module, "nf") and any(cls.__name__ == "Conv1D" for cls in type(module).__mro__)


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, (*_NORMS, RemovedNorm)):
        return True
    leaf = not any(True for _ in module.children())
    return leaf and _NORM_NAME.fullmatch(type(module).__name__) is not None
