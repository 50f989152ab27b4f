"""KAN: networks whose edges are learned functions of one variable."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo_kan.conv import KANConv2d as KANConv2d
    from zoo_kan.foreign import from_efficient_kan as from_efficient_kan
    from zoo_kan.foreign import from_pykan as from_pykan
    from zoo_kan.formula import snap as snap
    from zoo_kan.functional import bspline_basis as bspline_basis
    from zoo_kan.functional import coef2curve as coef2curve
    from zoo_kan.functional import curve2coef as curve2coef
    from zoo_kan.layers import KANLinear as KANLinear
    from zoo_kan.network import Network as Network
    from zoo_kan.network import prune as prune
    from zoo_kan.plot import plot_kan as plot_kan
    from zoo_kan.symbolic import symbolic_fit as symbolic_fit

# Lazy, so that the plugin's specs and configs load without torch.
_HOME = {
    "KANConv2d": "conv",
    "KANLinear": "layers",
    "Network": "network",
    "bspline_basis": "functional",
    "coef2curve": "functional",
    "curve2coef": "functional",
    "from_efficient_kan": "foreign",
    "from_pykan": "foreign",
    "plot_kan": "plot",
    "prune": "network",
    "snap": "formula",
    "symbolic_fit": "symbolic",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
