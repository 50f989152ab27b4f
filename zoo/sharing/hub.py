"""Models of the Hugging Face hub, `hf://owner/name[@revision]`: safetensors only, nothing of them is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, one_line

FILE = "model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_ADDRESS = re.compile(r"hf://(?P<repo>[^@]+)(@(?P<revision>[^@\s]+))?\Z")


def fetch_weights(address: str) -> Path:
    """The weights of a model of the hub, from the library's cache where they are there already.

    Raises:
        ZooError: this is no address; there is no such model, revision or file; or the hub cannot be reached.
    """
    found = _ADDRESS.match(address)
    if found is None or not _NAME.match(found["repo"]):
        raise ZooError(
            f"a model on the hub is called hf://owner/name or hf://owner/name@revision, got {address!r}"
        )
    hub = client()
    from huggingface_hub import errors

    repo, revision = found["repo"], found["revision"]
    try:
        return Path(hub.hf_hub_download(repo, FILE, revision=revision))
    except errors.GatedRepoError:
        raise ZooError(f"{address}: ask its owner for access, and log in: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise ZooError(
            f"{address}: there is no such model on the hub, or it is private: then log in, hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise ZooError(f"{address}: model {repo!r} has no revision {revision!r}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise ZooError(
            f"{address}: the Hugging Face hub cannot be reached (or HF_HUB_OFFLINE is set), and it is not "
            "kept here from an earlier time. With a network, run this once; HF_ENDPOINT names a mirror"
        ) from error
    except errors.EntryNotFoundError:
        raise ZooError(f"{address}: is no model of the zoo: it has no {FILE}") from None
    except Exception as error:  # a foreign library over a network: anything may be raised
        raise ZooError(f"{address}: cannot be fetched: {one_line(error)}") from error


def check_repo(repo: str) -> None:
    """Refuse what cannot be the name of a model on the hub.

    Raises:
        ZooError: says how one reads.
    """
    if not _NAME.match(repo):
        raise ZooError(f"a model on the hub is called owner/name, got {repo!r}")


def client() -> Any:
    """The hub's library.

    Raises:
        ZooError: it is not installed.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ZooError("the hub needs huggingface_hub: pip install 'archzoo[hf]'") from None
    return huggingface_hub
