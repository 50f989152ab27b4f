"""The conformance kit: what a spec claims, as named checks. Importing it loads no torch.

In a plugin's tests, three lines:

    @pytest.mark.parametrize("case", conformance_cases("swirl"))
    def test_conformance(case):
        case()

On the command line: `zoo check swirl`. A check that a component cannot pass is stated in its spec,
`known_limits={"exports": "why"}`, and is then expected to fail: the day it passes, the kit says so.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.testing.cases import Case as Case
    from zoo.testing.cases import conformance_cases as conformance_cases
    from zoo.testing.check import Check as Check
    from zoo.testing.check import ConformanceError as ConformanceError
    from zoo.testing.checks import CHECKS as CHECKS
    from zoo.testing.checks import checks_for as checks_for
    from zoo.testing.results import Result as Result
    from zoo.testing.results import check_component as check_component
    from zoo.testing.results import run_check as run_check
    from zoo.testing.subject import Subject as Subject

_HOME = {
    "CHECKS": "checks",
    "Case": "cases",
    "Check": "check",
    "ConformanceError": "check",
    "Result": "results",
    "Subject": "subject",
    "check_component": "results",
    "checks_for": "checks",
    "conformance_cases": "cases",
    "run_check": "results",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a checker of types would take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
