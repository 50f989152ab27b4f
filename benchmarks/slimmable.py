"""What half the width costs at batch 1: FLOPs in closed form, latency slimmed and cut out, one thread.

    python benchmarks/slimmable.py

timm's resnet18 at 224 x 224, converted by `slim/slimmable`, and `slim/conv` with three decoders at 64 x 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from turns import keep_freed_memory
from zoo_slimmable import Cost, calibrate, export_slim, make_slimmable, set_width
from zoo_slimmable.config import SlimmableConfig

import zoo
from zoo import torchvision_shim
from zoo.bench import in_turns
from zoo.plugin import Classes, Image, Multi, Values

torchvision_shim.install()

import timm  # noqa: E402

WIDTHS = (1.0, 0.75, 0.5, 0.25)
REPEATS = 30


def models() -> dict[str, tuple[nn.Module, Tensor]]:
    """What is measured, and an input of each."""
    resnet = timm.create_model("resnet18", num_classes=0)
    make_slimmable(resnet, SlimmableConfig())
    targets = Multi(parts={"a": Classes(count=10), "b": Classes(count=3), "c": Values(count=1)})
    conv = zoo.create_model(
        "slim/conv",
        inputs=Image(channels=3, height=64, width=64),
        targets=targets,
        width=256,
        head={"name": "slim/decoders", "params": {"hidden": 128}},
    )
    return {
        "resnet18, 224 x 224": (resnet.eval(), torch.randn(1, 3, 224, 224)),
        "slim/conv, 64 x 64": (conv.eval(), torch.randn(1, 3, 64, 64)),
    }


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    for name, (model, x) in models().items():
        cost = Cost(model, x)
        turns = {}
        for width in WIDTHS:
            set_width(model, width)
            calibrate(model, [torch.randn(4, *x.shape[1:])])
            small = export_slim(model).eval()
            same = torch.equal(small(x), model(x))
            turns[f"cut out {width:g}"] = lambda small=small, x=x: small(x)

            def slimmed(width: float = width, model: nn.Module = model, x: Tensor = x) -> Tensor:
                set_width(model, width)
                return model(x)

            turns[f"slimmed {width:g}"] = slimmed
            print(
                f"{name}, width {width:g}: {2 * cost.macs() / 1e6:,.0f} MFLOPs "
                f"({cost.macs() / cost.macs(1.0):.3f}), {cost.parameters():,} parameters "
                f"({cost.parameters() / cost.parameters(1.0):.3f}), cut out equal bit for bit: {same}"
            )
        took = {each: found.wall for each, found in in_turns(turns, REPEATS).items()}
        whole = took["cut out 1"]
        for each, wall in took.items():
            print(f"{name}, {each}: {wall:.2f} ms ({wall / whole:.3f})")


if __name__ == "__main__":
    main()
