"""The optimisers that timm knows, so that a mistyped one is caught without importing timm (and torch).

Only what resembles a known name is refused, and not beside a newer timm: it learns new ones.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from zoo.errors import close_names, either

#: The timm that NAMES come from: its `timm.optim.list_optimizers()`.
TIMM_VERSION = "1.0.31"
# fmt: off
NAMES = (
    "adabelief", "adadelta", "adafactor", "adafactorbv", "adafactorbvc", "adagrad", "adahessian", "adam",
    "adamax", "adamc", "adamp", "adamuon", "adamw", "adamwlegacy", "adan", "adanw", "adopt", "adoptc",
    "adoptw", "bnbadam", "bnbadam8bit", "bnbadamw", "bnbadamw8bit", "bnbademamix", "bnbademamix8bit",
    "bnblion", "bnblion8bit", "bnbsgd", "bnbsgd8bit", "cadafactor", "cadafactorbv", "cadafactorbvc",
    "cadamc", "cadamp", "cadamw", "cadan", "cadanw", "cadopt", "cadoptc", "cadoptw", "clamb", "clambw",
    "claprop", "clion", "clionc", "cmars", "cnadamc", "cnadamw", "crmsproptf", "csgdc", "csgdp", "csgdw",
    "fusedadam", "fusedadamw", "fusedlamb", "fusednovograd", "fusedsgd", "kron", "kronc", "kronw", "lamb",
    "lambc", "lambcd", "lambcw", "lambw", "laprop", "lapropc", "larc", "lars", "lion", "lionc", "madgrad",
    "madgradw", "mars", "momentum", "muon", "nadam", "nadamc", "nadamlegacy", "nadamuon", "nadamw",
    "nesterov", "nesterovw", "nlarc", "nlars", "nmuon", "novograd", "novogradc", "novogradw", "radabelief",
    "radam", "radamlegacy", "radamw", "rmsprop", "rmsproptf", "rmsproptfc", "rmsproptfw", "sgd", "sgdc",
    "sgdp", "sgdw",
)
# fmt: on


def misspelt(name: str) -> str:
    """What is wrong with the name of an optimiser, or nothing."""
    # timm's own reading: case does not count, and what stands before '_' wraps another optimiser.
    wrapped = name.lower().rpartition("_")[2]
    if wrapped in NAMES:
        return ""
    # Nearly all resemble "adam"; those that begin alike are meant first.
    close = close_names(wrapped, NAMES, most=20)
    close = sorted(close, key=lambda known: known[:4] != wrapped[:4])[:3]
    return f"there is no optimiser {name!r}. Did you mean {either(close)}?" if close and not _newer() else ""


def _newer() -> bool:
    """Whether the installed timm may know names that are not listed here."""
    from packaging.version import Version

    try:
        return Version(version("timm")) > Version(TIMM_VERSION)
    except PackageNotFoundError:
        return False
