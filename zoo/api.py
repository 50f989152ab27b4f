"""The Python API: what `import zoo` offers. Torch is imported by the calls that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from zoo.catalogue import Part, catalogue, filter_specs
from zoo.config import build
from zoo.contract import Plan, resolve
from zoo.errors import ZooError, suggest
from zoo.kinds import DataKind, TargetKind
from zoo.specs import DatasetSpec, ModelFamilySpec, ModelSpec, Spec

if TYPE_CHECKING:
    from zoo.data import Splits
    from zoo.layers import Model
    from zoo.recipe import LoadedRecipe
    from zoo.runs import Run
    from zoo.training import EvalResult, RunResult, StopRequest


def list_models(
    pattern: str = "*",
    *,
    accepts: str | None = None,
    causal: str | None = None,
    streaming: bool | None = None,
    tag: str | None = None,
    dataset: str | None = None,
) -> list[str]:
    """Full names of the installed models that match.

    Args:
        pattern: a shell pattern over full and short names, e.g. `"aaren/*"`.
        accepts: "tokens", "vector" or "image".
        causal: "never", "optional" or "always".
        streaming: only those that can (or cannot) be run token by token.
        tag: only those with this tag.
        dataset: only those that the contract accepts for this dataset.

    Raises:
        UnknownName: `dataset` is not installed.
        ZooError: a filter asks for what no model can be, e.g. `accepts="token"`.
    """
    _check_choice("accepts", accepts, ("tokens", "vector", "image"))
    _check_choice("causal", causal, ("never", "optional", "always"))
    found = catalogue()
    data = found.part("dataset", dataset) if dataset is not None else None
    names = []
    for spec in found.listed("model", pattern):
        if isinstance(spec, ModelFamilySpec):
            continue
        claims = found.default_claims(cast(ModelSpec, spec))
        if (
            accepts in (None, claims.accepts)
            and causal in (None, claims.causal)
            and streaming in (None, claims.streaming)
            and (tag is None or tag in spec.tags)
            and (data is None or _fits(spec, data))
        ):
            names.append(spec.id)
    return names


def list_datasets(pattern: str = "*", *, inputs: str | None = None, targets: str | None = None) -> list[str]:
    """Full names of the installed datasets that match.

    Args:
        pattern: a shell pattern over full and short names.
        inputs: "image", "ids", "series", "events", "episodes" or "vector".
        targets: "classes", "values", "next_id", "labels", "next_event", "actions", "forecast", "multi" or
            "maps".
    """
    _check_choice("inputs", inputs, [kind.kind for kind in get_args(DataKind)])
    _check_choice("targets", targets, [kind.kind for kind in get_args(TargetKind)])
    return [
        spec.id
        for spec in filter_specs(catalogue().specs("dataset"), pattern)
        if isinstance(spec, DatasetSpec)
        and inputs in (None, spec.inputs.kind)
        and targets in (None, spec.targets.kind)
    ]


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that can be trained by name."""
    from zoo.recipe import list_recipes as find

    return [recipe.name for recipe in find(pattern)]


def plan_model(
    name: str,
    *,
    inputs: DataKind | None = None,
    targets: TargetKind | None = None,
    dataset: str | Mapping[str, Any] | None = None,
    width: int = 128,
    stem: str | Mapping[str, Any] | None = None,
    head: str | Mapping[str, Any] | None = None,
    causal: bool | None = None,
    transforms: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> Plan:
    """What `create_model` would build, without importing torch; same arguments, same errors."""
    found = catalogue()
    return resolve(
        found,
        model=found.part("model", name, params, preset=preset),
        width=width,
        dataset=_part("dataset", dataset),
        inputs=inputs,
        targets=targets,
        stem=_part("stem", stem),
        head=_part("head", head),
        transforms=[found.part("transform", each, given) for each, given in (transforms or {}).items()],
        causal=causal,
    )


def create_model(
    name: str,
    *,
    inputs: DataKind | None = None,
    targets: TargetKind | None = None,
    dataset: str | Mapping[str, Any] | None = None,
    width: int = 128,
    stem: str | Mapping[str, Any] | None = None,
    head: str | Mapping[str, Any] | None = None,
    causal: bool | None = None,
    transforms: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str | None = None,
    **overrides: Any,
) -> Model:
    """Build a model for a dataset, or for given kinds of inputs and targets.

        zoo.create_model("core/transformer", dataset="digits", depth=2)
        zoo.create_model("aaren/encoder", inputs=Series(channels=3, length=100), targets=Classes(count=4))

    Args:
        name: full or short name of a model.
        inputs, targets: what goes in and what is asked (`zoo.plugin`); or
        dataset: a dataset's name (or `{"name": ..., "params": {...}}`), which says both.
        width: D, the width shared by stem, backbone and head.
        stem, head: pin one, by name or `{"name": ..., "params": {...}}`; else the contract chooses.
        causal: build it so that it cannot see the future; `None` follows the task and the model.
        transforms: changes to the built model, name -> parameters, in this order.
        preset: one of the model's named settings.
        overrides: the model's own parameters (`zoo show NAME` lists them).

    Raises:
        UnknownName, ConfigError, ContractError: all of them `ZooError`s, before torch is imported.
    """
    plan = plan_model(
        name,
        inputs=inputs,
        targets=targets,
        dataset=dataset,
        width=width,
        stem=stem,
        head=head,
        causal=causal,
        transforms=transforms,
        preset=preset,
        params=overrides,
    )
    from zoo.layers import build_model

    return build_model(plan)


def create_dataset(name: str, **params: Any) -> Splits:
    """Load a dataset: `.train`, `.val` and `.test` are map-style torch datasets.

    Raises:
        UnknownName, ConfigError: no such dataset, or parameters that it does not take.
    """
    found = catalogue()
    part = found.part("dataset", name, params)
    return cast("Splits", found.get("dataset", part.id).load()(part.config))


def load_recipe(
    recipe: str | PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> LoadedRecipe:
    """Read and check a recipe (by name, path, or as a mapping) with `key=value` overrides.

    Raises:
        RecipeError: every mistake in it, each with its place.
    """
    from zoo.recipe import load_recipe as load

    return load(recipe, overrides)


def train(
    recipe: str | PathLike[str] | Mapping[str, Any] | LoadedRecipe,
    overrides: Sequence[str] = (),
    *,
    quiet: bool = False,
    stop: StopRequest | None = None,
) -> RunResult:
    """Train a recipe; the result holds the run folder and its metrics.

    Args:
        stop: a `zoo.training.StopRequest`; `stop.made = True`, in another thread, ends the run like Ctrl-C.

    Raises:
        RecipeError: mistakes in the recipe. ZooError: what goes wrong on the way, in a sentence.
    """
    from zoo.recipe import LoadedRecipe, load_recipe
    from zoo.training import train as fit

    if isinstance(recipe, LoadedRecipe):
        if overrides:
            raise ZooError("overrides go to load_recipe(); this recipe is loaded already")
        return fit(recipe, quiet=quiet, stop=stop)
    return fit(load_recipe(recipe, overrides), quiet=quiet, stop=stop)


def resume(
    run: str | PathLike[str] | Run,
    overrides: Sequence[str] = (),
    *,
    quiet: bool = False,
    stop: StopRequest | None = None,
) -> RunResult:
    """Go on with a run (its folder, its recipe's name or "latest"), as if it had not been interrupted.

    Args:
        overrides: `trainer.max_epochs=...` or `trainer.max_steps=...` alone, to go on for longer.
        stop: as of `train`.

    Raises:
        ZooError: it is finished, or another process has it, or it is no longer what it was.
    """
    from zoo.training import resume as go_on

    return go_on(find_run(run), overrides, quiet=quiet, stop=stop)


def evaluate(
    run: str | PathLike[str] | Run,
    *,
    split: Literal["train", "val", "test"] = "test",
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> EvalResult:
    """Score the best checkpoint of a run; on the test split, beside the baselines.

    Args:
        overrides: `key=value` of `data`, `model` or `task`: the same weights on other data.

    Raises:
        ZooError: no such run or split, no checkpoint, or one that does not fit the overrides.
    """
    from zoo.training import evaluate as score

    return score(find_run(run), split=split, overrides=overrides, quiet=quiet)


def predict(
    run: str | PathLike[str] | Run, file: str | PathLike[str], *, overrides: Sequence[str] = ()
) -> list[Any]:
    """Predictions of a run's best checkpoint for the examples in a file, one item of plain data each.

    Args:
        overrides: `data.params....=value`, e.g. where the training data lies now.

    Raises:
        ZooError: the file does not hold what the model was trained on, or no such run.
    """
    from zoo.training import predict as answer

    return answer(find_run(run), Path(file), overrides=overrides)


def find_run(run: str | PathLike[str] | Run = "latest", *, root: str | PathLike[str] = "runs") -> Run:
    """A run to read back: `.info` is its record, `.metrics` a CSV of what was logged, `.curves` a picture.

    Args:
        run: its folder, the name of its recipe (the latest of it), or "latest" below `root`.

    Raises:
        ZooError: nothing is called that; the message says what there is.
    """
    from zoo.runs import Run
    from zoo.runs import find_run as find

    return run if isinstance(run, Run) else find(run if isinstance(run, str) else Path(run), root=Path(root))


def load_model(run: str | PathLike[str]) -> Model:
    """The trained model of a run folder, of a `model.safetensors` file, or of the hub, in evaluation mode.

        zoo.load_model("hf://owner/name@revision")  # what `zoo push` has uploaded; the revision is optional

    Raises:
        ZooError: no such run or model, a damaged file, or components that are not installed as they were.
    """
    from zoo.runs import weights_path

    if str(run).startswith("hf:"):
        from zoo.sharing import fetch_weights

        path = fetch_weights(str(run))
    else:
        path = weights_path(Path(run))
    from zoo.layers import load_weights

    return load_weights(path)


def _part(kind: str, given: str | Mapping[str, Any] | None) -> Part | None:
    """`"core/patches"` or `{"name": "core/patches", "params": {"patch": 4}}` as a part."""
    if given is None:
        return None
    if isinstance(given, str):
        return catalogue().part(kind, given)
    from zoo.recipe.schema import Component

    component = build(Component, given)
    return catalogue().part(kind, component.name, component.params)


def _fits(model: Spec, data: Part) -> bool:
    found = catalogue()
    try:
        resolve(found, model=found.part("model", model.id), dataset=data)
    except ZooError:
        return False
    return True


def _check_choice(name: str, given: str | None, choices: Sequence[str]) -> None:
    if given is not None and given not in choices:
        hint = suggest(given, choices, list_up_to=0)
        raise ZooError(f"{name} must be one of {', '.join(choices)}, got {given!r}.{hint}")
