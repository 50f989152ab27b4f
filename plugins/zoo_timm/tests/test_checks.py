"""The conformance kit on one model of another kind than those shown: a vision transformer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zoo.testing import conformance_cases


@pytest.mark.parametrize("case", conformance_cases("timm/test_vit3", slow=False))
def test_conformance(case: Callable[[], None]) -> None:
    case()
