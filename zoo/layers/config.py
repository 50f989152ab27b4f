"""Parameters of the core's models, mixers and feed-forwards (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from zoo.config import Config, ConfigError, Problem, join, param
from zoo.errors import ContractError, UnknownName, suggest
from zoo.specs import Causal, Causality, Cost, MixerSpec, ModelSpec, State

if TYPE_CHECKING:
    from zoo.catalogue import Catalogue, Part

Norm = Literal["layer", "rms", "srms"]

# From best to worst: what holds for a stack is the worst of its layers.
_COSTS: tuple[Cost, ...] = ("linear", "linearithmic", "subquadratic", "quadratic")
_CAUSALITIES: tuple[Causality, ...] = ("strict", "prefix", "approximate")
_STATES: tuple[State, ...] = ("constant", "window", "logarithmic", "linear", "none")


# -- mixers and feed-forwards ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SoftmaxConfig(Config):
    """Parameters of `core/softmax`."""

    window: int | None = param(
        None,
        "a token sees itself and this many minus one before it (and after it, unless causal)",
        at_least=1,
    )
    bias: bool = param(True, "biases in the four projections")
    qk_norm: Literal["none", "layer", "rms", "srms"] = param(
        "none", "norm of each head's queries and keys, which bounds their products (QK-norm)"
    )
    dropout_prob: float = param(0.0, "dropout of attention weights", at_least=0, below=1)

    def claims(self, spec: MixerSpec, catalogue: Catalogue) -> MixerSpec:
        """With a window, time is linear and the cache bounded."""
        return replace(spec, state="window", cost="linear") if self.window is not None else spec


@dataclass(frozen=True, kw_only=True)
class MlpConfig(Config):
    """Parameters of `core/mlp`."""

    ratio: float = param(4.0, "hidden width / width", above=0)
    dropout_prob: float = param(0.0, "dropout of hidden activations", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class SwiGluConfig(Config):
    """Parameters of `core/swiglu`."""

    ratio: float = param(8 / 3, "hidden width / width, rounded to a multiple of 8", above=0)
    dropout_prob: float = param(0.0, "dropout of hidden activations", at_least=0, below=1)


# -- models ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MlpNetConfig(Config):
    """Parameters of `core/mlp_net`."""

    depth: int = param(3, "number of residual blocks", at_least=1)
    ratio: float = param(2.0, "hidden width / width in each block", above=0)
    norm: Norm = param("layer", "normalisation")
    dropout_prob: float = param(0.0, "dropout inside each block", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Config):
    """Parameters of `core/transformer`: which mixer each layer has, and what goes around it."""

    depth: int = param(4, "number of layers", at_least=1)
    heads: int = param(4, "attention heads; must divide the width", at_least=1)
    layers: tuple[str, ...] = param(
        ("core/softmax",), "mixers of the layers, from the first; repeated until `depth` is reached"
    )
    mixer_params: dict[str, dict[str, Any]] = param(factory=dict, help="parameters by mixer name")
    feed_forward: str = param("core/mlp", "feed-forward of every layer")
    feed_forward_params: dict[str, Any] = param(factory=dict, help="its parameters")
    norm: Norm = param("layer", "normalisation of each branch")
    norm_first: bool = param(
        True, "norms stand before the branches and at the end; false: after each residual sum (post-norm)"
    )
    positions: Literal["learned", "rope", "none"] = param("learned", "how tokens know where they stand")
    dropout_prob: float = param(0.0, "dropout of embeddings and of each branch's output", at_least=0, below=1)
    drop_path_prob: float = param(
        0.0,
        "stochastic depth: chance to skip a branch of the last layer, rising linearly to it",
        at_least=0,
        below=1,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.layers:
            yield "layers", "must name at least one mixer"
        if len(self.layers) > self.depth:
            yield (
                "layers",
                f"names {len(self.layers)} mixers, but depth is {self.depth}; raise depth or shorten it",
            )

    def check_width(self, width: int) -> None:
        """Refuse a width that the heads do not divide.

        Raises:
            ConfigError: naming both numbers.
        """
        if width % self.heads:
            fits = [h for h in range(1, width + 1) if width % h == 0]
            near = sorted(sorted(fits, key=lambda h: abs(h - self.heads))[:3])
            hint = f"heads could be {', '.join(map(str, near))}"
            raise ConfigError([Problem("heads", f"{self.heads} heads do not divide width {width}; {hint}")])
        if self.positions == "rope" and width // self.heads % 2:
            odd = f"width {width} / {self.heads} heads is {width // self.heads}"
            message = f"'rope' needs an even head width, but {odd}"
            raise ConfigError([Problem("positions", message)])

    def mixer_parts(self, catalogue: Catalogue) -> tuple[Part, ...]:
        """The mixer of each layer, `depth` of them.

        Raises:
            ConfigError: unknown mixers, parameters that do not fit, parameters of a mixer that no layer has.
        """
        problems: list[Problem] = []

        def find(path: str, name: str) -> str | None:
            try:
                return catalogue.get("mixer", name).id
            except UnknownName as error:
                problems.append(Problem(path, str(error)))
                return None

        ids = [find(f"layers.{index}", name) for index, name in enumerate(self.layers)]
        given: dict[str, tuple[str, dict[str, Any]]] = {}  # full name -> (path as written, parameters)
        for name, params in self.mixer_params.items():
            path = join("mixer_params", name)
            id = find(path, name)
            if id in given:
                problems.append(
                    Problem(path, f"the parameters of {id!r} are already given as {given[id][0]!r}")
                )
            elif id is not None:
                given[id] = path, params
                if id not in ids and None not in ids:
                    problems.append(Problem(path, f"no layer is {name!r}.{suggest(name, self.layers)}"))
        parts: dict[str | None, Part] = {}
        for id in filter(None, dict.fromkeys(ids)):
            path, params = given.get(id, (join("mixer_params", id), {}))
            try:
                parts[id] = catalogue.part("mixer", id, params)
            except ConfigError as error:
                problems += [Problem(join(path, p.path), p.message) for p in error.problems]
        if problems:
            raise ConfigError(problems)
        return tuple(parts[ids[layer % len(ids)]] for layer in range(self.depth))

    def feed_forward_part(self, catalogue: Catalogue) -> Part:
        """The feed-forward of every layer.

        Raises:
            ConfigError: it is unknown, or its parameters do not fit.
        """
        try:
            return catalogue.part("feed_forward", self.feed_forward, self.feed_forward_params)
        except UnknownName as error:
            raise ConfigError([Problem("feed_forward", str(error))]) from None
        except ConfigError as error:
            nested = [Problem(join("feed_forward_params", p.path), p.message) for p in error.problems]
            raise ConfigError(nested) from None

    def parts(self, catalogue: Catalogue) -> tuple[Part, ...]:
        """Everything the stack is made of: the mixer of each layer, then the feed-forward.

        Raises:
            ConfigError: every mistake of `layers`, `mixer_params` and the feed-forward at once.
        """
        found: list[Part] = []
        problems: list[Problem] = []
        try:
            found += self.mixer_parts(catalogue)
        except ConfigError as error:
            problems += error.problems
        try:
            found.append(self.feed_forward_part(catalogue))
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(problems)
        return tuple(found)

    def claims(self, spec: ModelSpec, catalogue: Catalogue) -> ModelSpec:
        """What holds for the stack: for each claim, the worst of its mixers.

        Raises:
            ConfigError: unknown components, or parameters that do not fit.
            ContractError: one mixer is always causal and another never.
        """
        *mixer_parts, _ = self.parts(catalogue)
        mixers = [_mixer_claims(part, catalogue) for part in mixer_parts]
        if self.positions == "rope" and not any(mixer.rotary for mixer in mixers):
            names = ", ".join(dict.fromkeys(mixer.id for mixer in mixers))
            message = (
                f"'rope' reaches no layer: {names} cannot turn queries and keys; use 'learned' or 'none'"
            )
            raise ConfigError([Problem("positions", message)])
        streaming = all(mixer.streaming for mixer in mixers)
        limits = [spec.max_tokens, *(m.max_tokens for m in mixers)]
        return replace(
            spec,
            causal=_direction(mixers),
            streaming=streaming,
            state=max((m.state for m in mixers), key=_STATES.index) if streaming else "none",
            cost=max((m.cost for m in mixers), key=_COSTS.index),
            causality=max((m.causality for m in mixers), key=_CAUSALITIES.index),
            min_tokens=max(spec.min_tokens, *(m.min_tokens for m in mixers)),
            max_tokens=min((limit for limit in limits if limit is not None), default=None),
        )


def _mixer_claims(part: Part, catalogue: Catalogue) -> MixerSpec:
    """What a mixer claims with these parameters."""
    spec = cast(MixerSpec, catalogue.get("mixer", part.id))
    refine = getattr(part.config, "claims", None)
    return cast(MixerSpec, refine(spec, catalogue)) if refine else spec


def _direction(mixers: list[MixerSpec]) -> Causal:
    always = next((m.id for m in mixers if m.causal == "always"), None)
    never = next((m.id for m in mixers if m.causal == "never"), None)
    if always and never:
        raise ContractError(
            f"mixers {always!r} and {never!r} cannot stand in one stack: the first never sees the future, "
            "the second always does; keep one of the two"
        )
    return "always" if always else "never" if never else "optional"
