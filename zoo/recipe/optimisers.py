"""The optimisers that timm knows, so that a mistyped one is caught without importing timm (and torch).

A newer timm knows more: what the file of the installed one names is no mistake either.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from zoo.errors import close_names, either

# fmt: off
#: `timm.optim.list_optimizers()` of timm 1.0.31.
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
    listed = _listed_by_timm()
    if wrapped in listed or not (close or listed):
        return ""
    hint = (
        f"Did you mean {either(close)}?" if close else "There are adamw, sgd, lion, muon and more of timm's."
    )
    return f"there is no optimiser {name!r}. {hint}"


@cache
def _listed_by_timm() -> frozenset[str]:
    """The names in the file in which the installed timm lists its optimisers, read as text."""
    found = find_spec("timm")
    folders = (found.submodule_search_locations if found else None) or ()
    files = [Path(folder, "optim", "_optim_factory.py") for folder in folders]
    text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    return frozenset(re.findall(r"""\bname=['"](\w+)['"]""", text))
