"""All that a plugin imports at top level: hook markers, specs, kinds and configs (torch-free).

    import zoo.plugin as zp

    __zoo_api__ = 1

    @zp.hookimpl
    def zoo_components():
        return (zp.MixerSpec(name="swirl", target="zoo_swirl.layers:Swirl", ...),)

The module that holds the hooks is named by an entry point of the group `zoo.plugins`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from zoo.config import Config, ConfigError, Problem, param
from zoo.errors import ContractError, ZooError
from zoo.kinds import (
    IGNORE,
    Actions,
    Classes,
    DataKind,
    Episodes,
    Events,
    Forecast,
    Ids,
    Image,
    Labels,
    Maps,
    Multi,
    NextEvent,
    NextId,
    Series,
    TargetKind,
    Values,
    Vector,
)
from zoo.sources import Deb, Files, Folder, Installed, Npm, Original, PyPI
from zoo.specs import (
    CallbackSpec,
    CommandSpec,
    DatasetSpec,
    DecoderSpec,
    FeedForwardSpec,
    HeadSpec,
    MixerSpec,
    ModelFamilySpec,
    ModelSpec,
    Paper,
    Spec,
    StemSpec,
    TaskSpec,
    Transformed,
    TransformSpec,
)

#: Raised only when something is removed or changes its meaning; a plugin states it as `__zoo_api__`.
API_VERSION = 1

ENTRY_POINT_GROUP = "zoo.plugins"

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


class Hooks:
    """Every hook a plugin may implement. All are optional."""

    @hookspec
    def zoo_components(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Return the specs of everything this plugin provides."""

    @hookspec
    def zoo_recipe_ready(self, recipe: Any) -> None:
        """A recipe is about to run; raise `ZooError` to refuse it. The recipe is frozen."""

    @hookspec
    def zoo_trainer_options(self, recipe: Any) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Return keyword arguments for Lightning's Trainer; two plugins that disagree are an error."""

    @hookspec
    def zoo_run_finished(self, run: Any) -> None:
        """A run ended well and its folder is complete: write reports, upload."""


__all__ = [
    "API_VERSION",
    "ENTRY_POINT_GROUP",
    "IGNORE",
    "Actions",
    "CallbackSpec",
    "Classes",
    "CommandSpec",
    "Config",
    "ConfigError",
    "ContractError",
    "DataKind",
    "DatasetSpec",
    "Deb",
    "DecoderSpec",
    "Episodes",
    "Events",
    "FeedForwardSpec",
    "Files",
    "Folder",
    "Forecast",
    "HeadSpec",
    "Hooks",
    "Ids",
    "Image",
    "Installed",
    "Labels",
    "Maps",
    "MixerSpec",
    "ModelFamilySpec",
    "ModelSpec",
    "Multi",
    "NextEvent",
    "NextId",
    "Npm",
    "Original",
    "Paper",
    "Problem",
    "PyPI",
    "Series",
    "Spec",
    "StemSpec",
    "TargetKind",
    "TaskSpec",
    "TransformSpec",
    "Transformed",
    "Values",
    "Vector",
    "ZooError",
    "hookimpl",
    "hookspec",
    "param",
]
