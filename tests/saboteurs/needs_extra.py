"""Needs a package that no environment has."""

import never_installed  # noqa: F401

from tests.saboteurs.mixers import Mean as Mean
