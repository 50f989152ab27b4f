"""What a recipe computes, as a short hash: runs with the same one are one experiment (torch-free)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.contract import revisions_of
from zoo.recipe.render import resolved

if TYPE_CHECKING:
    from zoo.recipe.load import LoadedRecipe

#: Sections that change nothing of what is computed.
APART = ("title", "paper", "plugins", "output", "expect")


def fingerprint(loaded: LoadedRecipe) -> str:
    """Twelve hexadecimal digits of all that decides the result: settings, seed, revisions."""
    return fingerprint_of(resolved(loaded), revisions_of(loaded.plan, loaded.catalogue))


def fingerprint_of(settings: Mapping[str, Any], revisions: Mapping[str, int]) -> str:
    """The same from plain data, as run.json has it (`settings`, `revisions`).

    Which devices are used, and how often something is logged, count too: they may move the last digits.
    """
    decisive = {key: value for key, value in settings.items() if key not in APART}
    text = json.dumps([decisive, dict(revisions)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
