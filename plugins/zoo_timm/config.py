"""Parameters of timm's models (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zoo.plugin import Config, param

#: Arguments of timm.create_model that are settled elsewhere, and where.
SETTLED = {
    "num_classes": "the head gives the outputs",
    "in_chans": "the dataset says how many channels its images have",
    "img_size": "the dataset says how large its images are",
    "pretrained": "write it beside kwargs",
    "drop_rate": "write dropout_prob beside kwargs",
    "drop_path_rate": "write drop_path_prob beside kwargs",
    "features_only": "forward_intermediates gives what each stage passes on",
    "checkpoint_path": "the zoo loads weights from its own files alone",
    "pretrained_cfg": "the model's name says which weights, e.g. resnet18.a1_in1k",
    "pretrained_cfg_overlay": "the model's name says which weights, e.g. resnet18.a1_in1k",
    "pretrained_strict": "weights fit or they do not",
    "pretrained_model_args": "the model's name says which weights, e.g. resnet18.a1_in1k",
    "device": "the trainer says where it runs",
    "dtype": "the trainer says in which precision it runs",
    "cache_dir": "set HF_HOME to move the cache",
    "scriptable": "it changes timm's layers for every model of the process",
    "exportable": "it changes timm's layers for every model of the process",
    "no_jit": "it changes timm's layers for every model of the process",
}


@dataclass(frozen=True, kw_only=True)
class TimmConfig(Config):
    pretrained: bool = param(
        False, "start from the weights that the name says, e.g. resnet18.a1_in1k, or from timm's default ones"
    )
    dropout_prob: float = param(0.0, "timm's drop_rate: dropout before the head", at_least=0, below=1)
    drop_path_prob: float = param(
        0.0, "timm's drop_path_rate: chance that a residual block is skipped", at_least=0, below=1
    )
    kwargs: dict[str, Any] = param(
        factory=dict, help="further arguments of the model in timm, e.g. {patch_size: 2}; checked when built"
    )

    def check(self) -> Iterator[tuple[str, str]]:
        for name, why in SETTLED.items():
            if name in self.kwargs:
                yield f"kwargs.{name}", f"cannot be given here: {why}"
