"""Everything this plugin claims, held to it: `zoo check example` runs the same."""

from collections.abc import Callable

import pytest
from zoo.testing import conformance_cases


@pytest.mark.parametrize("case", conformance_cases("example"))
def test_conformance(case: Callable[[], None]) -> None:
    case()
