"""What a check is: its name, what it holds a component to, to which components it applies (torch-free).

A check called `no_future` of the theme `causality` is the function `zoo.testing.causality:check_no_future`:
it takes a `Subject`, and raises `ConformanceError` with what was measured and what is allowed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from zoo.catalogue import Catalogue
from zoo.specs import MixerSpec, ModelSpec, Spec

if TYPE_CHECKING:
    from zoo.testing.subject import Subject

#: What a component is held to with the parameters of its spec's `variants`, too: what it promises its users,
#: not how it is built, packed and compiled.
OF_VARIANTS = frozenset(
    (
        "reference",
        "no_future",
        "both_ways",
        "rows_apart",
        "positions_apart",
        "padding_right",
        "padding_left",
        "mask_edges",
        "streams",
        "state_rows",
        "state_size",
        "gradients",
        "state_dict",
    )
)


class ConformanceError(AssertionError):
    """A component does not do what its spec claims."""


class NotApplicable(Exception):  # a reason to skip, no mistake
    """There is nothing to check here, and why."""


def always(claims: Spec) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Check:
    """One named check.

    kinds: the kinds of component that it applies to.
    theme: the module of `zoo.testing` that holds it.
    where: which of them, by what they claim (the spec, refined for default parameters).
    """

    name: str
    theme: str
    summary: str
    kinds: tuple[str, ...]
    cost: Literal["quick", "slow"] = "quick"
    where: Callable[[Spec], bool] = always

    @property
    def of_variants(self) -> bool:
        """Whether it is run with the parameters of a spec's `variants`, too."""
        return self.name in OF_VARIANTS

    def applies(self, claims: Spec) -> bool:
        """Whether a component that claims this is held to the check."""
        return claims.kind in self.kinds and self.where(claims)

    def load(self) -> Callable[[Subject], None]:
        """The function. This is where torch is loaded."""
        module = importlib.import_module(f"zoo.testing.{self.theme}")
        return cast("Callable[[Subject], None]", getattr(module, f"check_{self.name}"))


def claims_of(spec: Spec, catalogue: Catalogue, params: Mapping[str, Any] | None = None) -> Spec:
    """What a component claims with these parameters.

    Raises:
        ConfigError, ContractError: the parameters contradict each other.
    """
    config = catalogue.part(spec.kind, spec.id, params).config
    refine = getattr(config, "claims", None)
    return refine(spec, catalogue) if refine else spec


def spelled(params: Mapping[str, Any]) -> str:
    """`plan=vertical, block_size=4`."""
    return ", ".join(f"{key}={value}" for key, value in params.items())


def sees_tokens(claims: Spec) -> bool:
    """Mixers, and models that take tokens."""
    return isinstance(claims, MixerSpec) or (isinstance(claims, ModelSpec) and claims.accepts == "tokens")
