"""Small instances of a component to be checked, and inputs for them.

B batch, N tokens or time steps, D width, K outputs. Everything is seeded; the caller's random numbers go on
as if nothing had happened.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from zoo.catalogue import Catalogue, Part
from zoo.config import ConfigError
from zoo.data.random_inputs import normal, sample_of
from zoo.kinds import (
    PER_TOKEN,
    STEPWISE,
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
from zoo.specs import DatasetSpec, HeadSpec, Spec, StemSpec
from zoo.testing.check import NotApplicable, sees_tokens

#: The first of these that the model's parameters accept.
WIDTHS = (32, 48, 64, 96, 128, 192, 256)
HEADS = 4
#: Layers of a stack whose defaults have more.
DEPTH = 2
#: What modules are built for unless a check says otherwise: more than any ordinary check uses.
MAX_TOKENS = 160
#: Weights are shifted by this much noise, so that a path behind a gate that starts at zero is seen.
NOISE = 0.02

INPUTS: dict[str, DataKind] = {
    "image": Image(channels=2, height=12, width=10),
    "ids": Ids(vocab=13, length=MAX_TOKENS, ragged=True),
    "series": Series(channels=3, length=MAX_TOKENS, ragged=True),
    "events": Events(marks=4, length=MAX_TOKENS, ragged=True, scale=2.0, period=24.0),
    "episodes": Episodes(state=3, action=2, steps=MAX_TOKENS, horizon=MAX_TOKENS),
    "vector": Vector(features=9),
}
TARGETS: dict[str, TargetKind] = {
    "classes": Classes(count=5),
    "values": Values(count=2),
    "next_id": NextId(vocab=13),
    "labels": Labels(count=5),
    "next_event": NextEvent(marks=4, scale=2.0),
    "actions": Actions(count=3),
    "forecast": Forecast(channels=2, horizon=6),
    "multi": Multi(parts={"which": Classes(count=3), "how_much": Values(count=2)}, weights={"which": 0.5}),
    "maps": Maps(height=12, width=10, parts={"which": Classes(count=3), "how_far": Values(count=2)}),
}


class Subject:
    """One component with its parameters. Kinds that are no modules (datasets, tasks) use only the fields.

    Attributes:
        spec, config, part: the component, the parameters it is checked with, and those it was given.
        claims: the spec, refined for these parameters.
        directions: the values of `causal` that it can be built with.
        variant: whether the parameters are not its defaults. Checks that take long look at fewer lengths
            then: what depends on the length alone shows with the defaults.
        takes_tokens, gives_tokens: whether its inputs, its outputs have a token axis, the second.
    """

    takes_tokens = False
    gives_tokens = False

    def __init__(self, spec: Spec, catalogue: Catalogue, *, params: Mapping[str, Any] | None = None) -> None:
        self.catalogue = catalogue
        self.spec = spec
        self.part: Part = catalogue.part(
            spec.kind, spec.id, sample_of_own(spec) if params is None else params
        )
        self.config = self.part.config
        self.variant = params is not None
        refine = getattr(self.config, "claims", None)
        self.claims: Any = refine(spec, catalogue) if refine else spec
        self.width = WIDTHS[0]

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        """A fresh module, as the constructor leaves it. place: `layer` and `depth` of a mixer `by_layer`."""
        raise NotApplicable(f"a {self.spec.kind} is no module")

    def sample(self, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Inputs: (B, N, ...), or (B, ...) where there are no tokens."""
        raise NotApplicable(f"a {self.spec.kind} has no inputs")

    def run(self, module: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The outputs of `module`; the mask is passed only where there is one."""
        return module(x) if mask is None else module(x, mask=mask)

    @property
    def directions(self) -> tuple[bool, ...]:
        causal = getattr(self.claims, "causal", "never")
        return {"never": (False,), "optional": (False, True), "always": (True,)}[causal]

    def build(
        self,
        *,
        causal: bool | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        train: bool = False,
        max_tokens: int = MAX_TOKENS,
        noise: float = NOISE,
    ) -> nn.Module:
        """A module with seeded weights. causal: `None` takes the last of `directions`."""
        causal = self.directions[-1] if causal is None else causal
        limit = getattr(self.claims, "max_tokens", None)
        with seeded(seed):
            module = self.make(causal=causal, max_tokens=min(max_tokens, limit or max_tokens))
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.is_floating_point():
                        parameter.add_(torch.randn_like(parameter), alpha=noise)
        return module.to(dtype).train(train)

    def resized(self, **sizes: int) -> Subject:
        """The same component for modules of another size: `width`, or `heads` of a mixer."""
        other = copy.copy(self)
        for name, size in sizes.items():
            setattr(other, name, size)
        return other

    def lengths(self, *wanted: int) -> tuple[int, ...]:
        """Numbers of tokens within what the component takes; just one where there are no tokens."""
        if not self.takes_tokens:
            return (1,)
        least, most = getattr(self.claims, "min_tokens", 1), getattr(self.claims, "max_tokens", None)
        return tuple(sorted({max(least, min(n, most or n)) for n in wanted}))

    def sized(self, x: Tensor) -> Tensor:
        """Which of the inputs have a size, and are no symbols: bool, of the shape of x."""
        return torch.full_like(x, x.is_floating_point(), dtype=torch.bool)

    def scaled(self, x: Tensor, scale: float) -> Tensor:
        """x with all that has a size `scale` times as large."""
        return torch.where(self.sized(x), x * scale, x).to(x.dtype)

    def told(self, start: int) -> int:
        """How many outputs are settled once `start` tokens came, where none sees what comes later."""
        return start

    def kept(self, module: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        """Which outputs stand for kept tokens: bool (B, outputs)."""
        return mask

    def later_changed(self, x: Tensor, start: int, *, scale: float, seed: int = 1) -> Tensor:
        """x with every token from `start` on replaced; `scale` is the size of the change."""
        changed = x.clone()
        fresh = self.sample(x.shape[0], x.shape[1], seed=seed, dtype=x.dtype)[:, start:]
        if x.is_floating_point():
            changed[:, start:] += scale * fresh
        else:
            changed[:, start:] = fresh
        return changed


class FeedForwardSubject(Subject):
    takes_tokens = gives_tokens = True

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        return self.spec.load()(self.config, width=self.width)

    def sample(self, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return normal((batch, n, self.width), seed=seed, dtype=dtype)


class MixerSubject(FeedForwardSubject):
    heads = HEADS

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        return self.spec.load()(
            self.config, width=self.width, heads=self.heads, causal=causal, max_tokens=max_tokens, **place
        )


class ModelSubject(Subject):
    """The backbone alone; `zoo.testing.whole` builds it with stem and head."""

    #: What a model that takes images itself is given.
    image: ClassVar[Image] = Image(channels=3, height=32, width=32)

    def __init__(self, spec: Spec, catalogue: Catalogue, *, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(spec, catalogue, params=params)
        if not self.variant:
            self.config = shallow(self.config)
        self.width = fitting_width(self.config)
        self.takes_tokens = self.gives_tokens = sees_tokens(self.claims)

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        build = self.spec.load()
        options: dict[str, Any] = {"width": self.width, "causal": causal}
        if self.claims.accepts == "image":
            options["inputs"] = self.image
        else:
            options["max_tokens"] = max_tokens if self.takes_tokens else None
        if "catalogue" in inspect.signature(build).parameters:
            options["catalogue"] = self.catalogue
        return build(self.config, **options)

    def sample(self, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        if self.claims.accepts == "image":
            shape: tuple[int, ...] = (batch, self.image.channels, self.image.height, self.image.width)
        else:
            shape = (batch, n, self.width) if self.takes_tokens else (batch, self.width)
        return normal(shape, seed=seed, dtype=dtype)


class StemSubject(Subject):
    def __init__(self, spec: Spec, catalogue: Catalogue, *, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(spec, catalogue, params=params)
        accepts = cast(StemSpec, spec).accepts
        self.inputs: Any = INPUTS[accepts]
        self.takes_tokens = accepts in STEPWISE
        self.gives_tokens = self.takes_tokens and cast(StemSpec, spec).returns == "tokens"

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        return self.spec.load()(self.config, inputs=self.inputs, width=self.width)

    def sample(self, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return sample_of(self.inputs, batch, n, seed=seed, dtype=dtype)

    def run(self, module: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return module(x, mask=mask)[0]

    def told(self, start: int) -> int:
        """Without the last token of a stem that makes several steps one, where steps of it are to come."""
        if not self.gives_tokens or isinstance(self.inputs, Episodes):
            return start
        now, next_one = (self.config.tokens(replace(self.inputs, length=n)) for n in (start, start + 1))
        return min(start, now if next_one > now else now - 1)

    def kept(self, module: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        return module(x, mask=mask)[1]

    def sized(self, x: Tensor) -> Tensor:
        sized = super().sized(x)
        if isinstance(self.inputs, Events):
            sized[..., 2] = False  # the mark
        if isinstance(self.inputs, Episodes):
            sized[..., :2] = False  # role and time
        return sized

    def later_changed(self, x: Tensor, start: int, *, scale: float, seed: int = 1) -> Tensor:
        changed = super().later_changed(x, start, scale=scale, seed=seed)
        if isinstance(self.inputs, Events):
            changed[..., 2] %= self.inputs.marks
            changed[..., 2].floor_()
        if isinstance(self.inputs, Episodes):
            changed[..., :2] = x[..., :2]
        return changed


class HeadSubject(Subject):
    def __init__(self, spec: Spec, catalogue: Catalogue, *, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(spec, catalogue, params=params)
        self.accepts = cast(HeadSpec, spec).accepts
        self.targets = TARGETS[cast(HeadSpec, spec).answers]
        # A grid of patches is always whole: its tokens are no axis of any length.
        self.stem = self._patches() if isinstance(self.targets, Maps) and self.accepts == "tokens" else None
        self.takes_tokens = self.accepts == "tokens" and self.stem is None
        self.gives_tokens = self.targets.kind in PER_TOKEN

    def make(self, *, causal: bool, max_tokens: int, **place: int) -> nn.Module:
        from zoo.layers.model import make_head

        inputs = INPUTS["image" if isinstance(self.targets, Maps) else "series"]
        head = make_head(self.spec.load(), self.config, inputs=inputs, targets=self.targets, width=self.width)
        if self.stem is not None:
            cast(Any, head).connect(self.stem)
        return head

    def _patches(self) -> nn.Module:
        part = self.catalogue.part("stem", "core/patches")
        return self.catalogue.get("stem", part.id).load()(
            part.config, inputs=INPUTS["image"], width=self.width
        )

    def run(self, module: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
        outputs = super().run(module, x, mask=mask)
        direct = getattr(module, "direct", None)
        if direct is None:
            return outputs
        # Of a head that also takes the model's inputs features stand for them: those of a token for the
        # channels of a step, those of a vector for the steps.
        channels = cast(Series, INPUTS["series"]).channels
        series = x[..., :channels] if self.takes_tokens else x.unsqueeze(-1).expand(-1, -1, channels)
        more = direct(series, mask=mask)
        return outputs if more is None else outputs + more

    def sample(self, batch: int, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        shapes: dict[str, tuple[int, ...]] = {
            "tokens": (batch, n if self.stem is None else math.prod(cast(Any, self.stem).grid), self.width),
            "vector": (batch, self.width),
            "image": (batch, self.width, 3, 4),
        }
        return normal(shapes[self.accepts], seed=seed, dtype=dtype)


@functools.cache
def _sample_folder(name: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"archzoo-{name}-")  # gone when the process ends


def sample_of_own(spec: Spec) -> dict[str, Any] | None:
    """Parameters that load the example of a dataset of the user's own data; `None`: the defaults do."""
    if not isinstance(spec, DatasetSpec) or not spec.own:
        return None
    return spec.make_sample(Path(_sample_folder(spec.name).name))


_SUBJECTS: dict[str, type[Subject]] = {
    "mixer": MixerSubject,
    "model": ModelSubject,
    "feed_forward": FeedForwardSubject,
    "stem": StemSubject,
    "head": HeadSubject,
}


def subject_of(spec: Spec, catalogue: Catalogue, *, params: Mapping[str, Any] | None = None) -> Subject:
    """The subject for a component of any kind.

    Raises:
        ConfigError, ContractError: the parameters do not fit the component.
    """
    return _SUBJECTS.get(spec.kind, Subject)(spec, catalogue, params=params)


def shallow(config: Any) -> Any:
    """The same parameters with fewer layers, where they say `depth`: as many show what more of them would."""
    depth = getattr(config, "depth", None)
    if not isinstance(depth, int) or depth <= DEPTH:
        return config
    try:
        return replace(config, depth=DEPTH)
    except ConfigError:  # other parameters are for more
        return config


def fitting_width(config: Any) -> int:
    """The smallest of `WIDTHS` that a model's parameters accept; their own, where they name one `width`.

    Raises:
        ConfigError: none; what is wrong with the last.
    """
    check = getattr(config, "check_width", None)
    own = getattr(config, "width", None)
    widths = (own,) if isinstance(own, int) else WIDTHS
    for width in widths:
        try:
            if check is not None:
                check(width)
            return width
        except ConfigError:
            if width == widths[-1]:
                raise
    raise AssertionError("unreachable")


class seeded:  # noqa: N801 (reads as a statement: `with seeded(0):`)
    """Torch's random numbers from a seed inside the block; the caller's state comes back after it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self._before = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.random.set_rng_state(self._before)
