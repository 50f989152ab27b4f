"""What a plugin says about each of its components: frozen, torch-free records.

A spec holds strings and plain data only. `target` ("package.module:attribute") is imported by
`load()` and nowhere else, so that listing a thousand components costs nothing.

Claims are data: what a spec says of a component (`causal`, `streaming`, `state`, `cost`,
`exact_when`) is what the conformance checks hold it to.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

from zoo.config import Config, ConfigError, param
from zoo.errors import ZooError
from zoo.kinds import DataKind, TargetKind
from zoo.sources import Files
from zoo.targets import resolve, resolve_config

#: never: every output may depend on every input. optional: built either way. always: never sees the future.
Causal = Literal["never", "optional", "always"]
#: What "does not see the future" means. strict: output t depends on inputs <= t. prefix: but for a prefix
#: that is read both ways. approximate: a small leak, stated in the card.
Causality = Literal["strict", "prefix", "approximate"]
#: How the state of a stream grows with the tokens seen. none: cannot stream.
State = Literal["none", "constant", "window", "logarithmic", "linear"]
#: How time and memory grow with the tokens N.
Cost = Literal["linear", "linearithmic", "subquadratic", "quadratic"]

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


class BadSpec(ConfigError):
    """A spec that is mistyped or contradicts itself; a mistake of the plugin's author."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a component comes from."""

    title: str
    url: str
    year: int


@dataclass(frozen=True, kw_only=True)
class Spec(Config):
    """What every kind of component has. Types and choices are checked on construction.

    name: short name, `[a-z][a-z0-9_]*`; the full name is `plugin/name`.
    target: "package.module:attribute" in the plugin's own distribution.
    config: "package.module:Dataclass" in a torch-free module; `None` means that it takes no parameters.
    summary: one line for lists and cards.
    paper: where it comes from.
    tags: words to find it by.
    aliases: earlier names, which still work and warn.
    status: faithful to its paper, a variant of it (the card says how), or experimental.
    since: the version of the distribution that brought it.
    revision: raised whenever outputs change for the same weights; stored in checkpoints.
    extras: extras of the distribution that the target needs, e.g. `("timm",)`.
    known_limits: conformance check -> why it cannot pass (expected, strictly).
    variants: parameters other than the defaults with which it must keep what it claims, too: settings that go
        another way through its code, e.g. `({"plan": "vertical"}, {"plan": "average"})`.
    plugin: the id of the plugin that provides it; filled in by the catalogue.
    """

    kind: ClassVar[str] = "component"
    name_pattern: ClassVar[re.Pattern[str]] = NAME

    name: str
    target: str = ""
    config: str | None = None
    summary: str = ""
    paper: Paper | None = None
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    known_limits: Mapping[str, str] = param(factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()
    status: Literal["faithful", "variant", "experimental"] = "faithful"
    since: str = ""
    revision: int = param(1, at_least=1)
    extras: tuple[str, ...] = ()
    plugin: str = ""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ConfigError as error:
            raise BadSpec(error.problems, owner=f"{type(self).__name__}(name={self.name!r})") from None

    def check(self) -> Iterator[tuple[str, str]]:
        given = (("name", (self.name,), self.name_pattern), ("aliases", self.aliases, NAME))
        for field, names, pattern in given:
            for name in names:
                if not pattern.match(name):
                    yield (
                        field,
                        f"must be lower case, a letter first, then letters, digits, '_'; got {name!r}",
                    )
        for field in ("target", "config", "reference", "members", "fold", "example", "sample"):
            path = getattr(self, field, None)
            if path and not _TARGET.match(path):
                yield field, f"must read 'package.module:attribute', got {path!r}"
        if not self.target and not getattr(self, "base", None):
            yield "target", "is missing: 'package.module:attribute'"

    @property
    def id(self) -> str:
        """The full name, `plugin/name`."""
        return f"{self.plugin}/{self.name}" if self.plugin else self.name

    def load(self) -> Any:
        """Import the target. This is where torch may be loaded.

        Raises:
            ZooError: the target's module needs a package that is not installed, or has no such attribute.
        """
        return resolve(self.target, self)

    def config_class(self) -> type[Any] | None:
        """Import the (torch-free) parameter dataclass.

        Raises:
            ZooError: it cannot be imported, is no dataclass, or a type in it is not known.
        """
        return resolve_config(self.config, self) if self.config else None


@dataclass(frozen=True, kw_only=True)
class SequenceSpec(Spec):
    """What is claimed of whatever works on tokens, a model or a mixer.

    causal: whether it can be built so that it does not see later tokens.
    causality: what that means.
    streaming: it has `initial_state` and `step` when built causal.
    state: how the state of a stream grows with the tokens seen.
    cost: how time and memory grow with the tokens.
    min_tokens, max_tokens: how many tokens it takes; `None` for any number.
    exact_when: parameters with which it equals softmax attention.
    reference: "package.module:function", the slow and obvious form `f(module, x, *, mask=None) -> y` with the
        weights of `module`; the fast form must equal it.
    """

    causal: Causal = "optional"
    causality: Causality = "strict"
    streaming: bool = False
    state: State = "none"
    cost: Cost = "linear"
    min_tokens: int = 1
    max_tokens: int | None = None
    exact_when: Mapping[str, Any] | None = None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec(SequenceSpec):
    """An architecture: tokens -> tokens, vector -> vector, or image -> features.

    Target: `build(config, *, width, max_tokens, causal, ...) -> nn.Module`, see docs/architecture.md.

    accepts: what it takes, and gives back in the same shape (features, where it takes images).
    base, params: a preset of another model with other defaults, e.g. `base="core/transformer",
        params={"layers": ["aaren/aaren"]}`; then `target` and `config` stay empty and the claims are the
        base's, refined by its config.
    presets: named sets of parameters, e.g. `{"tiny": {"depth": 2}}`.
    """

    kind: ClassVar[str] = "model"

    accepts: Literal["tokens", "vector", "image"] = "tokens"
    base: str | None = None
    params: Mapping[str, Any] = param(factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = param(factory=dict)


@dataclass(frozen=True, kw_only=True)
class FamilyMemberSpec(ModelSpec):
    """One model of a family, made by the catalogue when it is asked for; its name is the library's."""

    name_pattern: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9][a-z0-9_.]*\Z")

    def load(self) -> Any:
        """Import the family's target, with `member=` bound to this name."""
        return functools.partial(super().load(), member=self.name)


@dataclass(frozen=True, kw_only=True)
class ModelFamilySpec(ModelSpec):
    """Every model of another library, by the names that library gives: `timm/resnet18`.

    Target: as a model's, with one argument more: `build(config, *, member, ...)`, the name.

    name: always "*"; a plugin has one family at most.
    members: "package.module:function" in a torch-free module; `function() -> Collection[str]` gives the
        names: lower case letters, digits, '_'. A name with a dot is a variant of the one before the dot
        (weights of timm's resnet18): found and suggested, but neither counted nor listed unless a pattern
        has a dot too. It is called when a name or a list is asked for, not at start-up.
    shown: members that stand for all where everything is gone through (matrix, conformance, docs), each with
        its own known limits.
    """

    name_pattern: ClassVar[re.Pattern[str]] = re.compile(r"\*\Z")

    name: str = "*"
    members: str
    shown: Mapping[str, Mapping[str, str]] = param(factory=dict)

    def names(self) -> Collection[str]:
        """Every name that a member can have."""
        names: Collection[str] = resolve(self.members, self)()
        return names

    def member(self, name: str) -> FamilyMemberSpec:
        """The member of this name; that there is one is for the caller to know."""
        same = {field.name: getattr(self, field.name) for field in fields(ModelSpec)}
        own = {
            "name": name,
            "summary": f"{name}, {self.summary}",
            "known_limits": {**self.known_limits, **self.shown.get(name, {})},
        }
        return FamilyMemberSpec(**{**same, **own})

    def matching(self, pattern: str) -> list[FamilyMemberSpec]:
        """The members whose full or short name matches a shell pattern."""
        short = pattern.removeprefix(f"{self.plugin}/")
        return [
            self.member(name)
            for name in sorted(self.names())
            if fnmatchcase(name, short) and ("." in short or "." not in name)
        ]


@dataclass(frozen=True, kw_only=True)
class MixerSpec(SequenceSpec):
    """Token mixing, (B, N, D) -> (B, N, D): a layer of any transformer stack.

    Target: `Mixer(config, *, width, heads, causal, max_tokens[, rotary][, layer, depth])` with
    `forward(x, *, mask=None)`, and where `streaming` also `initial_state(batch_size)` and
    `step(x, state) -> (y, state)`. One with attention may have `attention_probs(x, *, mask=None)`, who looks
    how much at whom, (B, H, N, N): the attention of others is found where they call torch's.

    rotary: takes a `rotary=` module and turns its queries and keys with it.
    by_layer: differs from layer to layer: takes `layer=`, which it is (from 0), and `depth=`, of how many.
    """

    kind: ClassVar[str] = "mixer"

    rotary: bool = False
    by_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class FeedForwardSpec(Spec):
    """Channel mixing, position by position: (..., D) -> (..., D). Target: `FeedForward(config, *, width)`."""

    kind: ClassVar[str] = "feed_forward"


@dataclass(frozen=True, kw_only=True)
class TransformSpec(Spec):
    """A change to a built model, the zoo's or a stranger's. Target: `apply(model, config) -> model`.

    `apply` takes any `nn.Module`, or refuses it with a `ValueError` that says why and changes nothing. The
    zoo's own models it changes in place. What it has changed already it leaves alone, so that it may be
    applied again (a new head needs that), and the names and shapes of the weights follow from the model's
    and the parameters alone, so that saved weights find their place. What its user may not expect is said
    by giving back `Transformed(model=..., notes=...)`.

    fold: "package.module:function", `fold(model) -> model` with plain weights that compute the same in
        evaluation mode, however often the transform was applied. Where more than weights was changed, the
        config has the torch-free method `folded()`: the parameters that still turn a plain model into the
        folded one, or `None`.
    example: "package.module:function", `example() -> (model, x)`, for a transform of one kind of model only:
        a small one that it takes, random, with an input for which `model(x)` is a tensor. The conformance kit
        tries the transform on it, beside models of torch, timm and the zoo.
    """

    kind: ClassVar[str] = "transform"

    fold: str | None = None
    example: str | None = None

    def load_fold(self) -> Any:
        """Import `fold`.

        Raises:
            ZooError: the transform has none, or it cannot be imported.
        """
        if self.fold is None:
            raise ZooError(f"transform {self.id!r} cannot be folded: it has no plain form")
        return resolve(self.fold, self)

    def make_example(self) -> Any:
        """Import and call `example`: the model and its input, or `None` where there is none."""
        return None if self.example is None else resolve(self.example, self)()


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """What a transform may give back instead of the model alone.

    notes: sentences on what the user may not expect, e.g. layers that were left as they are.
    """

    model: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CallbackSpec(Spec):
    """Behaviour added to a run. Target: `Callback(config)`, a subclass of `zoo.callbacks.Callback`.

    changes_model: it changes the model, its weights or their shapes; others only look on. Such a run trains
        in one process and without averaging of the weights.
    """

    kind: ClassVar[str] = "callback"

    changes_model: bool = False


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(Spec):
    """How the next symbol is chosen. Target: `Decoder(config)`, see `zoo.decoders.Decoder`."""

    kind: ClassVar[str] = "decoder"


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Spec):
    """`zoo PLUGIN NAME RUN`: something to do with a trained run. Target: `command(run, config) -> Answer`.

    `run` is a `zoo.commands.SavedRun`; the fields of the config are the command's options.
    """

    kind: ClassVar[str] = "command"


@dataclass(frozen=True, kw_only=True)
class StemSpec(Spec):
    """A data kind -> what a backbone accepts. Target: `Stem(config, *, inputs, width)`.

    The config class (required) has the torch-free method
    `tokens(inputs) -> int | None`: how many tokens come out (`None` for a vector); it raises
    `ContractError` where this input cannot be taken.

    accepts: the `kind` of a data kind.
    returns: what comes out.
    cost: the contract picks the cheapest stem that fits; ties go to the first name.
    """

    kind: ClassVar[str] = "stem"

    accepts: Literal["image", "ids", "series", "events", "episodes", "vector"]
    returns: Literal["tokens", "vector"]
    cost: int = 10

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.config is None:
            yield "config", "is missing: a stem needs one, with the method tokens(inputs)"


@dataclass(frozen=True, kw_only=True)
class HeadSpec(Spec):
    """Features -> the outputs a task asks for. Target: `Head(config, *, targets, width)`.

    accepts: what the backbone gives.
    answers: the `kind` of a target kind, e.g. "classes".
    cost: the contract picks the cheapest head that fits; ties go to the first name.
    """

    kind: ClassVar[str] = "head"

    accepts: Literal["tokens", "vector", "image"]
    answers: str
    cost: int = 10


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """Data: what comes in, what is asked, and where it comes from. Target: `load(config) -> Splits`.

    inputs, targets: the kinds at default parameters. Where parameters change them, the config class
    has the torch-free method `kinds() -> (DataKind, TargetKind)`.
    licence: terms of use, one line for the card, like the next two.
    source: where it comes from.
    examples: how many there are in each split.
    synthetic: it is generated.
    baseline: what a naive answer gets, one line for the card.
    known_good: a score that somebody measured, and with what.
    files: what must be fetched first, at default parameters; `None`: it is bundled or generated. Where
        parameters change them, the config class has the torch-free method `files() -> Files`.
    sample: makes it a dataset of the user's own data, to which parameters must point.
        "package.module:function" in a torch-free module; `function(folder) -> parameters` writes a small
        example into a folder, the same each time, and gives the parameters that load it. `inputs` and
        `targets` are those of this example, which the conformance checks, `zoo matrix` and the docs use in
        place of default parameters.

    The config class may also have `notes() -> Iterable[str]`: what was found in the data, for `zoo plan`.
    """

    kind: ClassVar[str] = "dataset"

    inputs: DataKind
    targets: TargetKind
    licence: str = ""
    source: str = ""
    examples: str = ""
    synthetic: bool = False
    baseline: str = ""
    known_good: str = ""
    files: Files | None = None
    sample: str | None = None

    @property
    def own(self) -> bool:
        """Whether it is the user's own data."""
        return self.sample is not None

    def make_sample(self, folder: Path) -> dict[str, Any]:
        """Write the example of a dataset of the user's own data; the parameters that load it."""
        parameters: dict[str, Any] = resolve(self.sample or "", self)(folder)
        return parameters

    @property
    def fetched(self) -> bool:
        """Whether its files do not come with the package."""
        return self.files is not None

    @property
    def origin(self) -> str:
        """How the data gets here: "bundled", "generated", "fetched", or "yours"."""
        if self.own:
            return "yours"
        return "generated" if self.synthetic else "fetched" if self.fetched else "bundled"

    @property
    def ready(self) -> bool:
        """Whether it loads (at default parameters) without fetching anything."""
        return not self.own and (self.files is None or self.files.cached)


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Spec):
    """Target kind -> loss and metrics. Target: `Task(config, *, targets)`.

    answers: the `kind` of a target kind, e.g. "classes".
    needs_causal: the model must not see the future, or the answer leaks.
    monitor: the metric that says which checkpoint is best; fields of the target kind may be named,
        e.g. `val/bits_per_{unit}`.
    mode: whether less or more of it is better.
    metrics: names of its metrics without the split, fields as in `monitor`; `*` stands for what depends on
        the targets (`r2_*`). They let a recipe be checked before torch is imported; empty: not checked.
    played: names of what it scores besides by playing, on the test split alone.
    cost: where several answer the same targets, the cheapest is taken; ties go to the first name.
    """

    kind: ClassVar[str] = "task"

    answers: str
    needs_causal: bool = False
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    metrics: tuple[str, ...] = ()
    played: tuple[str, ...] = ()
    cost: int = 10


SPEC_KINDS: tuple[type[Spec], ...] = (
    ModelSpec,
    MixerSpec,
    FeedForwardSpec,
    TransformSpec,
    StemSpec,
    HeadSpec,
    DatasetSpec,
    TaskSpec,
    CallbackSpec,
    DecoderSpec,
    CommandSpec,
)
