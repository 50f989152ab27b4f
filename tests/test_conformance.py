"""Everything registered is held to what it claims.

Quick checks run over all of it. Of the slow ones an eighth runs each time, chosen by a stable hash of
component and check; the rest is marked slow (`make check-all`).
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from zoo.catalogue import catalogue
from zoo.specs import MixerSpec
from zoo.testing import Case, conformance_cases

SAMPLED = 8


def marks(case: Case) -> Any:
    sampled = zlib.crc32(case.id.encode()) % SAMPLED == 0
    return pytest.mark.slow if case.check.cost == "slow" and not sampled else ()


def marks_in_a_stack(case: Case) -> Any:
    """Work and derivatives are checked mixer by mixer; together they share order, states and padding."""
    return pytest.mark.slow if case.check.name in ("cost", "gradient_values") else marks(case)


def causal_mixers() -> list[str]:
    """Everything that may stand in one causal stack."""
    return [s.id for s in catalogue().specs("mixer") if isinstance(s, MixerSpec) and s.causal != "never"]


def test_collecting_cases_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from zoo.testing import CHECKS, check_component, conformance_cases, run_check\n"
        "assert len(conformance_cases('core')) > 100\n"
        "print([name for name in ('torch', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stack_is_checked_with_few_layers() -> None:
    from zoo.testing.subject import subject_of

    spec = catalogue().get("model", "core/transformer")
    subject = subject_of(spec, catalogue())
    assert (subject.part.config.depth, subject.config.depth) == (4, 2)
    assert subject_of(spec, catalogue(), params={"depth": 3}).config.depth == 3
    uneven = {"depth": 3, "layers": ["core/softmax"] * 3}
    assert subject_of(spec, catalogue(), params=uneven).config.depth == 3


@pytest.mark.parametrize("case", conformance_cases("*", marks=marks))
def test_conformance(case: Callable[[], None]) -> None:
    case()


@pytest.mark.parametrize(
    "case",
    conformance_cases(
        "core/transformer",
        params={"layers": causal_mixers(), "depth": len(causal_mixers())},
        slow=False,
        marks=marks_in_a_stack,
    ),
)
def test_conformance_of_all_mixers_in_one_stack(case: Callable[[], None]) -> None:
    case()
