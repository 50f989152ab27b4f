"""What a resumed run goes on from, and whether it still is the run that was begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.config import join
from zoo.errors import ZooError
from zoo.layers.weights import check_revisions
from zoo.recipe import LoadedRecipe
from zoo.recipe.render import resolved
from zoo.runs import Run
from zoo.training.checkpoint import read_checkpoint

#: Named in an error before it says how many more there are.
MOST_CHANGES = 3


def newest_checkpoint(run: Run, notes: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """The file and content of the checkpoint to go on from; `None`: there is none, begin again.

    Any checkpoint leads to the same end. Where the last one is damaged, an older one serves, with a note.

    Raises:
        ZooError: there are checkpoints, all of them damaged; what is wrong with the newest.
    """
    older = {_steps(path): path for path in run.checkpoints.glob("step-*.ckpt")}
    files = [run.last, run.best, *(older[step] for step in sorted(older, reverse=True))]
    damage: list[ZooError] = []
    for path in (path for path in files if path.is_file()):
        try:
            checkpoint = read_checkpoint(path)
            if not isinstance(checkpoint.get("zoo"), dict):
                raise ZooError(f"{str(path)!r} is not a checkpoint of a zoo run")
        except ZooError as error:
            damage.append(error)
            continue
        if damage:
            notes.append(f"{damage[0]}; going on from {path.name}, step {checkpoint['global_step']}")
        return path, checkpoint
    if damage:
        raise ZooError(
            f"{damage[0]}. No older checkpoint of the run can be read either; "
            f"to begin the run again, delete {str(run.checkpoints / '*.ckpt')!r}"
        )
    return None


def check_longer(before: LoadedRecipe, after: LoadedRecipe) -> bool:
    """Whether the second recipe is the first one for longer (or as long).

    Raises:
        ZooError: it differs in something else.
    """
    old, new = before.recipe.trainer, after.recipe.trainer
    as_long = replace(new, max_epochs=old.max_epochs, max_steps=old.max_steps)
    if replace(after.recipe, trainer=as_long) != before.recipe or after.callbacks != before.callbacks:
        raise ZooError(
            "a resumed run takes trainer.max_epochs and trainer.max_steps as overrides, nothing else; "
            "start a new run for anything else"
        )
    return new != old


def check_unchanged(run: Run, loaded: LoadedRecipe) -> None:
    """Refuse where resolved.yaml no longer says what the run was begun with.

    Raises:
        ZooError: what was changed.
    """
    begun, now = (dict(_leaves(values)) for values in (run.info.get("settings", {}), resolved(loaded)))
    changes = [
        f"{key} was {begun[key]!r}, is {now.get(key)!r}" for key in begun if begun[key] != now.get(key)
    ]
    if changes:
        more = f" and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
        raise ZooError(
            f"{str(run.resolved)!r} was changed since the run began: "
            f"{'; '.join(changes[:MOST_CHANGES])}{more}. "
            f"Change it back, or start a new run from it: zoo train {run.resolved}"
        )


def check_versions(run: Run, loaded: LoadedRecipe, now: Mapping[str, Any], notes: list[str]) -> None:
    """Refuse components that compute something else than when the run began; note other versions.

    Args:
        now: the circumstances of this part of the run, see `zoo.training.record`.

    Raises:
        ZooError: which component, and what to do.
    """
    check_revisions(run.path, run.info.get("revisions", {}), loaded.catalogue)
    changed = []
    for kind in ("versions", "plugins"):
        before, after = run.info.get(kind, {}), now[kind]
        for name in sorted(before):
            if before[name] != after.get(name):
                was, is_now = before[name] or "absent", after.get(name) or "absent"
                changed.append(f"{name} {was.rpartition(' ')[2]} -> {is_now.rpartition(' ')[2]}")
    if changed:
        notes.append(
            f"since the run began, versions changed: {', '.join(changed)}. It goes on, "
            "but may end a little differently than it would have"
        )


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, join(path, key))
    else:
        yield path, values


def _steps(path: Path) -> int:
    return int(path.stem.partition("-")[2])
