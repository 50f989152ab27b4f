"""Let torchvision import beside a torch built without CUDA.

The registry's torchvision is linked against CUDA. Beside a CPU torch its compiled operators do not
load, and its own Python code then fails at import: "operator torchvision::nms does not exist". With
it fail timm, torchmetrics and Lightning, which import torchvision. Declaring the missing
schemas is enough for the import; the zoo never calls these operators. With a torchvision that loads,
nothing is left declared.
"""

from __future__ import annotations

import sys
from typing import Any

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept: list[Any] = []  # a Library withdraws its schemas when it is collected


def install() -> None:
    """Declare the schemas that torchvision's own extension does not bring. Safe to call again."""
    if _kept or "torchvision" in sys.modules:
        return
    import torch

    _kept.append(None)  # at once: whoever watches imports of torchvision may call again from within
    if _extension_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        library.define(schema)
    _kept.append(library)


def _extension_loads() -> bool:
    """Whether torchvision's compiled operators load here; loading them twice is harmless."""
    import importlib.util
    from pathlib import Path

    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return True
    for extension in Path(next(iter(found.submodule_search_locations))).glob("_C.*"):
        try:
            torch.ops.load_library(extension)
        except OSError:
            return False
        return hasattr(torch.ops.torchvision, "nms")
    return False
