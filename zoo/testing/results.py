"""Running checks, and what came of them (torch-free until a check runs)."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.catalogue import Catalogue, filter_specs
from zoo.catalogue import catalogue as default_catalogue
from zoo.errors import UnknownName, ZooError, suggest, suggest_id
from zoo.specs import SPEC_KINDS, Spec
from zoo.testing.check import Check, ConformanceError, NotApplicable, spelled
from zoo.testing.checks import CHECKS, checks_for

Outcome = Literal["passed", "failed", "skipped", "expected_failure", "unexpected_pass"]


@dataclass(frozen=True)
class Result:
    """What one check found out about one component.

    variant: the parameters it was built with, "" for its defaults.
    expected_failure: it failed, and the spec's known limits say so.
    unexpected_pass: they say so, but it passed; as bad as a failure.
    """

    check: str
    kind: str
    component: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    variant: str = ""

    @property
    def subject(self) -> str:
        """The component, with its parameters where they are not its defaults."""
        return f"{self.component}({self.variant})" if self.variant else self.component

    @property
    def ok(self) -> bool:
        return self.outcome not in ("failed", "unexpected_pass")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def run_check(
    check: Check, spec: Spec, catalogue: Catalogue, params: Mapping[str, Any] | None = None
) -> Result:
    """Hold one component, built with these parameters, to one check. Whatever it raises is a result."""
    started = time.perf_counter()
    limit = spec.known_limits.get(check.name)
    try:
        from zoo.testing.subject import subject_of

        _require_extras(spec)
        check.load()(subject_of(spec, catalogue, params=params))
        outcome: Outcome = "passed" if limit is None else "unexpected_pass"
        detail = "" if limit is None else f"it passes; remove the known limit: {limit}"
    except NotApplicable as reason:
        outcome, detail = "skipped", str(reason)
    except (Exception, SystemExit) as error:
        outcome = "failed" if limit is None else "expected_failure"
        told = _explain(error, _folder_of(spec, catalogue))
        detail = f"{told}{f' (known limit: {limit})' if limit is not None else ''}"
    seconds = time.perf_counter() - started
    return Result(check.name, spec.kind, spec.id, outcome, detail, seconds, spelled(params or {}))


def check_component(
    name: str,
    *,
    catalogue: Catalogue | None = None,
    only: Sequence[str] | None = None,
    slow: bool = True,
    params: Mapping[str, Any] | None = None,
) -> list[Result]:
    """Hold a component (or each that matches) to its checks, and its variants to those of variants.

    Args:
        name: a component, of any kind; a plugin; or a shell pattern over both (`aaren/*`).
        only: names of checks; `None` runs all that apply.
        slow: also those of cost "slow".
        params: parameters to build it with, instead of its defaults and its variants.

    Raises:
        UnknownName: nothing is called that; there is no such check.
    """
    catalogue = catalogue or default_catalogue()
    return [
        run_check(check, spec, catalogue, given)
        for spec in find(catalogue, name)
        for check, given in chosen(spec, catalogue, only=only, slow=slow, params=params)
    ]


def chosen(
    spec: Spec,
    catalogue: Catalogue,
    *,
    only: Sequence[str] | None = None,
    slow: bool = True,
    params: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Check, Mapping[str, Any] | None]]:
    """The checks of one component that are asked for, each with parameters: `None` for the defaults.

    Without `params` they are those of the defaults, then those of each of the spec's variants.

    Raises:
        UnknownName: there is no such check.
    """
    names = [check.name for check in CHECKS]
    for name in only or ():
        if name not in names:
            raise UnknownName(f"there is no check {name!r}.{suggest(name, names)}")
    for given in (None, *spec.variants) if params is None else (params,):
        for check in checks_for(spec, catalogue, given):
            # A known limit speaks of the defaults.
            of_it = given is params or (check.of_variants and check.name not in spec.known_limits)
            if of_it and (only is None or check.name in only) and (slow or only or check.cost == "quick"):
                yield check, given


def find(catalogue: Catalogue, name: str) -> list[Spec]:
    """Components of every kind with this name, in this plugin, or matching this pattern.

    Raises:
        UnknownName: there is none.
    """
    every = [spec for cls in SPEC_KINDS for spec in catalogue.specs(cls.kind)]
    found = [spec for spec in every if name in (spec.plugin, spec.id)]
    found = found or list(filter_specs(every, name.replace("-", "_")))
    found = found or catalogue.matching("model", name.replace("-", "_"))  # members of a family
    if not found:
        plugins = sorted({spec.plugin for spec in every})
        hint = suggest_id(name, (spec.id for spec in every)) or suggest(name, plugins)
        raise UnknownName(f"no component and no plugin is called {name!r}.{hint}")
    return found


def _require_extras(spec: Spec) -> None:
    """Skip a component whose optional requirements are not installed here."""
    if spec.extras:
        try:
            spec.load()
        except ZooError as error:
            own = spec.target.partition(".")[0]
            missing = getattr(error.__cause__, "name", None) or own
            if missing.partition(".")[0] != own:  # else the plugin itself is broken
                raise NotApplicable(str(error)) from error


def _folder_of(spec: Spec, catalogue: Catalogue) -> str:
    """Where the plugin's own code lies."""
    plugin = next((p for p in catalogue.plugins if p.id == spec.plugin and p.file), None)
    return str(Path(plugin.file).parent) if plugin is not None else ""


def _explain(error: BaseException, folder: str) -> str:
    """A finding as it is; any other error with its type, and the place in the plugin where it came from."""
    text = " ".join(str(error).split())
    if isinstance(error, ConformanceError):
        return text
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    frames = [frame for each in chain for frame in traceback.extract_tb(each.__traceback__)]
    inside = [frame for frame in frames if folder and frame.filename.startswith(folder + os.sep)]
    # A mistake that the zoo itself tells in words has no place worth knowing outside of the plugin.
    place = inside or ([] if isinstance(error, ZooError) else frames)
    where = f" ({place[-1].filename}:{place[-1].lineno})" if place else ""
    return f"{type(error).__name__}: {text[:500]}{where}"
