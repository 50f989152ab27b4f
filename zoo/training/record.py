"""What run.json says of the circumstances: versions, machine, source, command. Facts only, no paths."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from zoo.catalogue import Catalogue

_LIBRARIES = (
    "archzoo",
    "torch",
    "pytorch-lightning",
    "timm",
    "torchmetrics",
    "omegaconf",
    "numpy",
    "safetensors",
)


def circumstances(catalogue: Catalogue) -> dict[str, Any]:
    """Versions of everything involved, the platform, the state of the source, the command."""
    return {
        "command": ["zoo", *sys.argv[1:]] if sys.argv[0].endswith(("zoo", "zoo/__main__.py")) else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "plugins": {p.id: f"{p.distribution} {p.version}" for p in catalogue.plugins if p.status == "ok"},
        "platform": {
            "system": platform.platform(),
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": torch.get_num_threads(),
        },
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory and whether files differ from it; `None` outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
