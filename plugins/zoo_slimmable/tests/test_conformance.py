"""What every component must obey, for those of this plugin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zoo.testing import conformance_cases


@pytest.mark.parametrize("case", conformance_cases("slim", slow=False))
def test_conformance(case: Callable[[], None]) -> None:
    case()
