"""Reaching the Hugging Face hub, or saying at once that it cannot be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import datasets
from huggingface_hub import constants

from zoo.errors import ZooError, one_line

if TYPE_CHECKING:
    from zoo.data.own.library_config import HuggingFaceConfig

#: Seconds that the hub may take to answer before it counts as out of reach; the library itself tries for 24.
PATIENCE = 3.0


def from_hub(config: HuggingFaceConfig) -> Mapping[str, Any]:
    """A dataset of the hub, by split; without a network, what the library has kept of it.

    Raises:
        ZooError: there is no such dataset, or it is neither kept nor can it be reached.
    """
    offline = not reachable()
    try:
        with _offline() if offline else _as_it_is():
            loaded: Mapping[str, Any] = datasets.load_dataset(config.dataset, config.subset)
    except Exception as error:  # a foreign library over a network: anything may be raised
        if not offline:
            what = f"{config.dataset!r} of the Hugging Face hub cannot be loaded"
            raise ZooError(f"{what}: {one_line(error)}") from error
        why = (
            "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hugging Face hub cannot be reached"
        )
        raise ZooError(
            f"{why}, and {config.dataset!r} is not kept here from an earlier time. With a network: run this "
            f"once, or 'hf download --repo-type dataset {config.dataset}'; HF_ENDPOINT names a mirror. "
            "Without: a local file (dataset: csv, json, parquet, text or imagefolder, with a path), or "
            "core/table, core/image_folder, core/text_files"
        ) from error
    return loaded


def reachable() -> bool:
    """Whether a connection to the hub (or to the mirror that HF_ENDPOINT names) can be opened, soon."""
    if constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if address.scheme in getproxies() or not address.hostname:
        return True  # it is the proxy's to say
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """For what is soon done."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.utils.enable_progress_bars()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _offline() -> Iterator[None]:
    """Let the libraries look into their caches only."""
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
