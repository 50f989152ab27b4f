"""`zoo push`: a trained model to the Hugging Face hub, with a card.

README.md           the card          model.safetensors   weights that zoo.load_model reads
model.json          what goes in and comes out, preprocessing, versions
recipe.yaml         what it was trained by, without folders of this machine
curves.png          where the run drew them
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.catalogue import catalogue as default_catalogue
from zoo.contract import Plan
from zoo.data.split import Splits
from zoo.errors import ZooError, one_line
from zoo.layers.weights import load_weights, save_weights
from zoo.recipe.render import dump
from zoo.runs import Run, find_run, weights_path
from zoo.sharing.card import describe_model, render_hub_card
from zoo.sharing.folder import check_target, replacing_folder, write_description
from zoo.sharing.hub import FILE, check_repo, client
from zoo.training.evaluation import recipe_of
from zoo.training.setup import load_splits


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was uploaded, or would be. files: name -> bytes. where: an address, or a dry run's folder."""

    repo: str
    files: dict[str, int]
    where: str
    notes: tuple[str, ...] = ()


def push_run(
    run: Run | str | Path,
    repo: str,
    *,
    dry_run: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    update: bool = False,
    private: bool = False,
    licence: str | None = None,
    message: str | None = None,
    overrides: Sequence[str] = (),
) -> Pushed:
    """Upload the best model of a run.

    Args:
        repo: "owner/name".
        dry_run: write what would be uploaded into a folder instead; needs no network.
        output, overwrite: that folder, by default `exports/hub` in the run's, and whether it is replaced.
        update: add a commit to a model that is on the hub already.
        private: a new model is only its owner's.
        licence: of the weights, e.g. "mit"; on the card.
        message: of the commit.
        overrides: `data.params....=value` each, where the training data lies elsewhere now.

    Raises:
        ZooError: no such run, no weights; the model is on the hub already; or the hub refuses.
    """
    check_repo(repo)
    run = run if isinstance(run, Run) else find_run(run)
    weights_path(run.path)  # that there are some
    if dry_run:
        target = Path(output) if output is not None else run.path / "exports" / "hub"
        check_target(target, overwrite=overwrite)
        with replacing_folder(target) as folder:
            notes = _prepare(run, repo, folder, licence=licence, overrides=overrides)
        return Pushed(repo=repo, files=_sizes(target), where=str(target), notes=notes)
    if output is not None or overwrite:
        raise ZooError("--output and --overwrite are of a dry run: --dry-run")
    api = client().HfApi()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        notes = _prepare(run, repo, folder, licence=licence, overrides=overrides)
        where = _upload(api, repo, folder, update=update, private=private, message=message)
        return Pushed(repo=repo, files=_sizes(folder), where=where, notes=notes)


def _upload(api: Any, repo: str, folder: Path, *, update: bool, private: bool, message: str | None) -> str:
    try:
        there = api.repo_exists(repo)
        if there and not update:
            raise ZooError(f"{repo!r} is on the hub already: --update adds a commit to it")
        if not there:
            api.create_repo(repo, private=private)
        done = api.upload_folder(
            repo_id=repo, folder_path=str(folder), commit_message=message or "Model trained with archzoo"
        )
    except ZooError:
        raise
    except Exception as error:  # a foreign library over a network: anything may be raised
        raise ZooError(
            f"{repo!r} cannot be pushed: {one_line(error)}. Are you logged in (hf auth login, or HF_TOKEN), "
            "may you write there, and is there a network? --dry-run writes what would be uploaded"
        ) from error
    return str(done)


def _prepare(
    run: Run, repo: str, folder: Path, *, licence: str | None, overrides: Sequence[str]
) -> tuple[str, ...]:
    """Put everything that is uploaded into a folder; what its user should know."""
    catalogue = default_catalogue()
    model = load_weights(run.weights, catalogue=catalogue)
    save_weights(model, folder / FILE, catalogue=catalogue)
    splits, notes = _splits(run, overrides)
    write_description(folder, {"recipe": run.info["recipe"], **describe_model(model.plan, splits, run.info)})
    card = render_hub_card(repo=repo, plan=model.plan, info=run.info, catalogue=catalogue, licence=licence)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "recipe.yaml").write_text(_recipe(run, model.plan), encoding="utf-8")
    if run.curves.is_file():
        shutil.copyfile(run.curves, folder / run.curves.name)
    return notes


def _splits(run: Run, overrides: Sequence[str]) -> tuple[Splits | None, tuple[str, ...]]:
    """The data of a run; without them a model can be passed on, but not how its inputs were prepared."""
    try:
        return load_splits(recipe_of(run, overrides)), ()
    except ZooError as error:
        return None, (f"{run.path}: preprocessing is not described, the data are not here ({error})",)


def _recipe(run: Run, plan: Plan) -> str:
    """The settings of a run; a plan tells names of files, not folders, and output is this machine's."""
    settings = {key: value for key, value in run.info.get("settings", {}).items() if key != "output"}
    shown = plan.to_dict()
    if "dataset" in shown and "data" in settings:
        settings["data"] = {**settings["data"], "params": shown["dataset"]["params"]}
    return f"# {run.info['recipe']}\n{dump(settings)}"


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
