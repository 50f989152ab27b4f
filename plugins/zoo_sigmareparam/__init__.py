"""sigmaReparam: linear maps with a learned spectral norm, and tools to watch attention entropy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_sigmareparam.config import AttentionEntropyConfig, SigmaReparamConfig
    from zoo_sigmareparam.convert import (
        Report,
        apply_sigma_reparam,
        fold_sigma_reparam_,
        spectral_stats,
        update_sigma_,
    )
    from zoo_sigmareparam.functional import (
        attention_entropy,
        entropy_lower_bound,
        power_iterate,
        sigma_reparam_weight,
        spectral_sigma,
    )
    from zoo_sigmareparam.parametrization import SigmaReparam
    from zoo_sigmareparam.probe import HeadEntropies, attention_entropies
    from zoo_sigmareparam.watch import AttentionEntropy

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "AttentionEntropy": "watch",
    "AttentionEntropyConfig": "config",
    "HeadEntropies": "probe",
    "Report": "convert",
    "SigmaReparam": "parametrization",
    "SigmaReparamConfig": "config",
    "apply_sigma_reparam": "convert",
    "attention_entropies": "probe",
    "attention_entropy": "functional",
    "entropy_lower_bound": "functional",
    "fold_sigma_reparam_": "convert",
    "power_iterate": "functional",
    "sigma_reparam_weight": "functional",
    "spectral_sigma": "functional",
    "spectral_stats": "convert",
    "update_sigma_": "convert",
}

__all__ = [
    "AttentionEntropy",
    "AttentionEntropyConfig",
    "HeadEntropies",
    "Report",
    "SigmaReparam",
    "SigmaReparamConfig",
    "apply_sigma_reparam",
    "attention_entropies",
    "attention_entropy",
    "entropy_lower_bound",
    "fold_sigma_reparam_",
    "power_iterate",
    "sigma_reparam_weight",
    "spectral_sigma",
    "spectral_stats",
    "update_sigma_",
]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
