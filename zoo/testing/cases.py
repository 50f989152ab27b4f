"""The conformance kit for pytest: each check of each component is one test case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.catalogue import Catalogue
from zoo.catalogue import catalogue as default_catalogue
from zoo.specs import Spec
from zoo.testing.check import Check, spelled
from zoo.testing.results import chosen, find, run_check


@dataclass(frozen=True)
class Case:
    """One check of one component; calling it runs the check as a test."""

    check: Check
    spec: Spec
    catalogue: Catalogue
    params: Mapping[str, Any] | None = None

    def __call__(self) -> None:
        """Pass, fail, skip, or xfail (a known limit)."""
        import pytest

        result = run_check(self.check, self.spec, self.catalogue, self.params)
        if not result.ok:
            pytest.fail(f"{result.kind} {result.subject}, {result.check}: {result.detail}", pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.detail)
        if result.outcome == "expected_failure":
            pytest.xfail(result.detail)

    @property
    def id(self) -> str:
        given = f"({spelled(self.params)})" if self.params else ""
        return f"{self.spec.kind}:{self.spec.id}{given}:{self.check.name}"


def conformance_cases(
    pattern: str = "*",
    *,
    catalogue: Catalogue | None = None,
    slow: bool = True,
    params: Mapping[str, Any] | None = None,
    marks: Callable[[Case], Any] | None = None,
) -> list[Any]:
    """Parameters for `pytest.mark.parametrize("case", conformance_cases("swirl"))`.

    Args:
        pattern: a plugin, a component, or a shell pattern over both.
        slow: also the checks of cost "slow".
        params: parameters to build it with, instead of its defaults and its variants.
        marks: the pytest marks of a case, `()` for none.

    Raises:
        UnknownName: nothing is called that: a plugin that did not load must not pass as one without tests.
    """
    import pytest

    catalogue = catalogue or default_catalogue()
    cases = [
        Case(check, spec, catalogue, given)
        for spec in find(catalogue, pattern)
        for check, given in chosen(spec, catalogue, slow=slow, params=params)
    ]
    return [pytest.param(case, id=case.id, marks=marks(case) if marks else ()) for case in cases]
