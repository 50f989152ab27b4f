"""Weights on disk: safetensors, with the plan of the model in the header. Reading one runs no code.

The header holds one entry, `archzoo`, JSON: `format`, `plan` (see `zoo.contract.Plan.to_dict`),
`revisions`, those of every component at the time of writing, the ones inside the backbone included, and
`plugins`, the distributions that those come from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.catalogue import Catalogue
from zoo.catalogue import catalogue as default_catalogue
from zoo.contract import Plan, plugins_of, revisions_of
from zoo.errors import UnknownName, ZooError
from zoo.layers.model import Model, build_model

HEADER = "archzoo"
FORMAT = 1
#: Named in an error before it says "+n more".
MOST_PROBLEMS = 8


def save_weights(model: Model, path: str | Path, *, catalogue: Catalogue | None = None) -> None:
    """Write the weights and the plan; a file is either complete or not there.

    Raises:
        ZooError: it cannot be written.
    """
    catalogue = catalogue or default_catalogue()
    path = Path(path)
    header = {
        "format": FORMAT,
        "plan": model.plan.to_dict(),
        "revisions": revisions_of(model.plan, catalogue),
        "plugins": plugins_of(model.plan, catalogue),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in _tensors(model).items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, partial, metadata={HEADER: json.dumps(header)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise ZooError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | Path, *, catalogue: Catalogue | None = None) -> Model:
    """The saved model, on the CPU and in evaluation mode.

    Raises:
        ZooError: it is no such file, is damaged, was written with other revisions of its components, or its
            tensors are not those of the model, or a component is not installed.
    """
    catalogue = catalogue or default_catalogue()
    path = Path(path)
    _refuse_strangers(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _read_header(path, file.metadata())
            check_plugins(path, header.get("plugins", {}), catalogue)
            check_revisions(path, header["revisions"], catalogue)
            plan = _read_plan(path, header["plan"], catalogue)
            model = build_model(plan, catalogue=catalogue, fresh=False)
            _fill(path, model, file)
    except SafetensorError as error:
        raise ZooError(f"{path}: is truncated, damaged or no safetensors file ({error})") from None
    return model.eval()


def _refuse_strangers(path: Path) -> None:
    """Say so where a file is something else that people load models from."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ZooError(f"{path}: cannot be read: {error.strerror}") from None
    # safetensors: eight bytes of length, any of which may look like another format's, then JSON.
    if start[8:] not in (b"{", b"") and start.startswith((b"\x80", b"PK\x03\x04")):
        raise ZooError(
            f"{path}: is a pickle (or an archive that holds one), which can run code. Nothing of it was "
            "executed: the zoo loads safetensors only"
        )


def _read_header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or HEADER not in metadata:
        raise ZooError(
            f"{path}: has no {HEADER!r} header, so the zoo did not write it; it cannot say which model it is"
        )
    try:
        header = json.loads(metadata[HEADER])
        known = header["format"] == FORMAT
        if known and not (isinstance(header["plan"], dict) and isinstance(header["revisions"], dict)):
            raise TypeError("plan and revisions must be mappings")
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path}: its header is damaged: {error!r}") from None
    if not known:
        raise ZooError(f"{path}: is of format {header['format']!r}, this zoo reads {FORMAT}; upgrade archzoo")
    return header


def check_plugins(path: Path, plugins: Any, catalogue: Catalogue) -> None:
    """Refuse weights whose components come from plugins that are not here.

    plugins: id -> "distribution version", as the file has them; files of earlier releases have none.

    Raises:
        ZooError: names them, and what to install.
    """
    here = {plugin.id for plugin in catalogue.plugins}  # one that is here but broken says so itself
    missing = {id: str(made) for id, made in dict(plugins).items() if id not in here}
    if missing:
        needed = ", ".join(f"{id!r} ({made})" for id, made in missing.items())
        names = sorted({made.partition(" ")[0] for made in missing.values()})
        raise ZooError(
            f"{path}: needs the plugin {needed}, which is not installed: pip install {' '.join(names)}"
        )


def check_revisions(path: Path, revisions: dict[str, Any], catalogue: Catalogue) -> None:
    """Refuse weights of components that since give other outputs for the same weights.

    Raises:
        ZooError: a revision in `revisions` (see `revisions_of`), read from `path`, is not the installed one.
    """
    for name, written in revisions.items():
        kind, _, id = name.partition(" ")
        try:
            spec = catalogue.get(kind, id)
        except UnknownName as error:
            raise ZooError(f"{path}: {error}") from error
        if spec.revision != written:
            newer = isinstance(written, int) and written > spec.revision
            hint = (
                f"upgrade the plugin {spec.plugin!r}"
                if newer
                else "train it again, or install the older release"
            )
            raise ZooError(
                f"{path}: was written with revision {written} of {kind} {id!r}, but {spec.revision} is "
                f"installed, which gives other outputs for the same weights; {hint}"
            )


def _read_plan(path: Path, data: dict[str, Any], catalogue: Catalogue) -> Plan:
    try:
        return Plan.from_dict(catalogue, data)
    except ZooError as error:
        raise ZooError(f"{path}: its plan does not fit what is installed: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"{path}: its plan is damaged: {error!r}") from None


def _fill(path: Path, model: Model, file: Any) -> None:
    """Copy every tensor of the file into the model, once names, shapes and types agree."""
    take_sizes(model, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    ours, theirs = _tensors(model), set(file.keys())
    problems = [f"{name} is missing" for name in ours if name not in theirs]
    problems += [f"{name} is unexpected" for name in sorted(theirs - ours.keys())]
    loaded: dict[str, Tensor] = {}
    for name in sorted(theirs & ours.keys()):
        found, wanted = file.get_tensor(name), ours[name]
        loaded[name] = found
        if found.shape != wanted.shape:
            problems.append(f"{name} is {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        elif found.is_floating_point() != wanted.is_floating_point():
            problems.append(f"{name} is {found.dtype}, expected {wanted.dtype}")
    if problems:
        more = f" (+{len(problems) - MOST_PROBLEMS} more)" if len(problems) > MOST_PROBLEMS else ""
        raise ZooError(
            f"{path}: its tensors are not the model's: {'; '.join(problems[:MOST_PROBLEMS])}{more}"
        )
    model.load_state_dict(loaded, strict=False)  # names that are tied are there once


def take_sizes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Let layers whose weights change in number while they train make room for saved ones.

    Such a layer has a method `take_sizes(shapes)`, name -> shape of its own tensors. It is called before
    weights are compared with it, and ignores what cannot be its own.
    """
    for path, module in model.named_modules():
        resize = getattr(module, "take_sizes", None)
        if resize is not None:
            start = f"{path}." if path else ""
            resize({name.removeprefix(start): s for name, s in shapes.items() if name.startswith(start)})


def _tensors(model: Model) -> dict[str, Tensor]:
    """Parameters and buffers by name; one that has two names (a tied embedding) by the first."""
    first = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    return {name: t for name, t in model.state_dict(keep_vars=True).items() if first[id(t)] == name}
