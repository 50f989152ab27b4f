"""Dataset x model -> one plan, or one reason (torch-free).

    data kind --stem--> what the model accepts --model--> features --head--> target kind <-- task

Each arrow is one declared component. Where the recipe does not pin a stem, head or task, the cheapest
that fits is taken (`zoo.choice`). What cannot work is refused here, before torch is imported, in a
sentence that names what would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, cast, get_args

from zoo.catalogue import Catalogue, Part, blaming, filter_specs
from zoo.choice import check_shapes, check_width, choose_direction, choose_head, choose_stem, choose_task
from zoo.config import path_fields, spelt
from zoo.errors import ContractError, ZooError
from zoo.kinds import DataKind, TargetKind, kind_from_dict, kind_to_dict
from zoo.specs import DatasetSpec, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything needed to build a model, and all that was decided on the way.

    width: D, shared by stem, backbone and head. tokens: the most tokens the stem yields (`None`: a vector).
    causal: whether the backbone is built so that it cannot see the future.
    transforms: what changes the model once it is built, in this order.
    claims: the model's spec, refined for these parameters.
    """

    inputs: DataKind
    targets: TargetKind
    model: Part
    head: Part
    claims: ModelSpec
    width: int
    causal: bool
    stem: Part | None = None
    task: Part | None = None
    dataset: Part | None = None
    transforms: tuple[Part, ...] = ()
    tokens: int | None = None
    monitor: str | None = None
    mode: str | None = None
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line: `digits image(1, 8, 8) -> core/patches -> 16 tokens x 64 -> ... -> 10 classes (task)`."""
        source = f"{self.dataset.id} " if self.dataset else ""
        shape = f"{self.tokens} tokens x {self.width}" if self.tokens else f"vector x {self.width}"
        direction = " (causal)" if self.causal else ""
        steps = [f"{source}{self.inputs}"]
        if self.stem:
            steps += [_call(self.stem), shape]
        steps += [_call(self.model, self.claims.params) + direction, _call(self.head), str(self.targets)]
        task = f" ({self.task.id})" if self.task else ""
        changes = f", transformed by {', '.join(map(_call, self.transforms))}" if self.transforms else ""
        return " -> ".join(steps) + task + changes

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `from_dict` is the inverse."""
        parts = {name: getattr(self, name) for name in _PARTS}
        return {
            "inputs": kind_to_dict(self.inputs),
            "targets": kind_to_dict(self.targets),
            **{name: _part_to_dict(part) for name, part in parts.items() if part},
            "transforms": [_part_to_dict(part) for part in self.transforms],
            "width": self.width,
            "causal": self.causal,
            "tokens": self.tokens,
            "monitor": self.monitor,
            "mode": self.mode,
        }

    @classmethod
    def from_dict(cls, catalogue: Catalogue, data: dict[str, Any]) -> Plan:
        """The plan that `to_dict` wrote, checked again against the installed components.

        The dataset is left out where it is not installed: what it gives and asks is in the plan.

        Raises:
            UnknownName, ConfigError, ContractError: it does not fit what is installed.
            KeyError, TypeError: it is not what `to_dict` wrote.
        """
        parts: dict[str, Part] = {}
        for name, kind in _PARTS.items():
            if name in data:
                if name == "dataset" and not catalogue.has(kind, data[name]["id"]):
                    continue
                parts[name] = _part_from_dict(catalogue, kind, data[name])
        plan = resolve(
            catalogue,
            model=parts["model"],
            width=data["width"],
            inputs=kind_from_dict(data["inputs"]),
            targets=kind_from_dict(data["targets"]),
            stem=parts.get("stem"),
            head=parts.get("head"),
            task=parts.get("task"),
            transforms=[_part_from_dict(catalogue, "transform", each) for each in data.get("transforms", [])],
            causal=data["causal"],
        )
        return replace(plan, dataset=parts.get("dataset"), monitor=data["monitor"], mode=data["mode"])


_PARTS = {"dataset": "dataset", "stem": "stem", "model": "model", "head": "head", "task": "task"}


def resolve(
    catalogue: Catalogue,
    *,
    model: Part,
    width: int = 128,
    dataset: Part | None = None,
    inputs: DataKind | None = None,
    targets: TargetKind | None = None,
    stem: Part | None = None,
    head: Part | None = None,
    task: Part | None = None,
    transforms: Sequence[Part] = (),
    causal: bool | None = None,
) -> Plan:
    """The one plan for this model on this dataset (or on these kinds).

    Args:
        dataset: gives `inputs` and `targets`; without one, both must be given.
        stem, head, task: pinned parts; `None` lets the contract choose the cheapest that fits. Without
            a dataset, a plan may have no task: a model can answer what no installed task asks.
        transforms: what changes the model once it is built, in this order.
        causal: what the caller wants; `None` follows the task and the model.

    Raises:
        ContractError: they cannot work together; `.path` names the part at fault.
        ConfigError: parameters of the model contradict each other.
    """
    inputs, targets = _kinds(catalogue, dataset, inputs, targets)
    claims = catalogue.claims(model)
    check_width(catalogue, model, width)
    task_spec = choose_task(catalogue, task, targets, required=dataset is not None)
    if task is None and task_spec is not None:
        task = catalogue.part("task", task_spec.id)
    causal = choose_direction(catalogue, claims, causal, task_spec)
    notes = list(catalogue.ask(dataset, "notes", default=())) if dataset is not None else []
    stem, tokens = choose_stem(catalogue, stem, inputs, claims, notes)
    check_shapes(claims, stem, tokens, inputs, targets)
    head = choose_head(catalogue, head, claims, targets)
    monitor = None
    if task_spec is not None:
        with blaming(f"task {task_spec.id!r}: its monitor {task_spec.monitor!r} does not fit {targets}"):
            monitor = task_spec.monitor.format(**asdict(targets))
    return Plan(
        inputs=inputs,
        targets=targets,
        stem=stem,
        model=model,
        head=head,
        task=task,
        dataset=dataset,
        transforms=tuple(transforms),
        claims=claims,
        width=width,
        tokens=tokens,
        causal=causal,
        monitor=monitor,
        mode=task_spec.mode if task_spec else None,
        notes=tuple(notes),
    )


def kinds_of(catalogue: Catalogue, dataset: Part) -> tuple[DataKind, TargetKind]:
    """What a dataset gives and asks with its parameters."""
    spec = cast(DatasetSpec, catalogue.get("dataset", dataset.id))
    inputs, targets = catalogue.ask(dataset, "kinds", default=(spec.inputs, spec.targets))
    return inputs, targets


def _kinds(
    catalogue: Catalogue, dataset: Part | None, inputs: DataKind | None, targets: TargetKind | None
) -> tuple[DataKind, TargetKind]:
    """What goes in and what is asked, from the dataset or from the caller, but not from both."""
    if dataset is not None and inputs is None and targets is None:
        return kinds_of(catalogue, dataset)
    if dataset is not None or inputs is None or targets is None:
        raise ContractError(
            "give either a dataset, or both inputs= and targets= (what goes in, what is asked)",
            path="dataset",
        )
    for name, given, kinds in (("inputs", inputs, DataKind), ("targets", targets, TargetKind)):
        if not isinstance(given, kinds):
            names = ", ".join(kind.__name__ for kind in get_args(kinds))
            raise ContractError(
                f"{name} must be one of {names} (of zoo.plugin), got {given!r}", path="dataset"
            )
    return inputs, targets


def matrix(
    catalogue: Catalogue, *, models: str = "*", datasets: str = "*", width: int = 128
) -> Iterator[tuple[str, str, Plan | str]]:
    """(model, dataset, plan or reason) for every pair at default parameters; of the user's own data, for that
    of the dataset's example.

    models, datasets: shell patterns that keep some of them.
    """
    columns = cast("list[DatasetSpec]", list(filter_specs(catalogue.specs("dataset"), datasets)))
    for model in catalogue.matching("model", models):
        for dataset in columns:
            try:
                outcome: Plan | str = resolve(
                    catalogue,
                    model=catalogue.part("model", model.id),
                    dataset=None if dataset.own else catalogue.part("dataset", dataset.id),
                    inputs=dataset.inputs if dataset.own else None,
                    targets=dataset.targets if dataset.own else None,
                    width=width,
                )
            except ZooError as error:
                outcome = str(error)
            yield model.id, dataset.id, outcome


def _call(part: Part, own: Mapping[str, Any] = MappingProxyType({})) -> str:
    """`core/patches(patch=2)`: the name with parameters that differ from its `own`, or their defaults."""
    if part.config is None:
        return part.id
    changed = []
    for field in fields(part.config):
        value = getattr(part.config, field.name)
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        # As they are spelt: a spec may write a list where the type is a tuple.
        if spelt(value) != spelt(own.get(field.name, made)):
            changed.append(f"{field.name}={spelt(value)}")
    return f"{part.id}({', '.join(changed)})" if changed else part.id


def _part_to_dict(part: Part) -> dict[str, Any]:
    params = asdict(part.config) if part.config is not None else {}
    for name in path_fields(type(part.config)):
        if isinstance(params[name], str):  # weights are passed on: they tell the name, not the folder
            params[name] = PurePath(params[name]).name
    return {"id": part.id, "params": params, "revision": part.revision}


def _part_from_dict(catalogue: Catalogue, kind: str, data: dict[str, Any]) -> Part:
    return replace(catalogue.part(kind, data["id"], data["params"]), revision=data["revision"])


def revisions_of(plan: Plan, catalogue: Catalogue) -> dict[str, int]:
    """The revision of each component that decides what the weights compute: "kind id" -> revision."""
    return {f"{part.kind} {part.id}": part.revision for part in _weighty_parts(plan, catalogue)}


def plugins_of(plan: Plan, catalogue: Catalogue) -> dict[str, str]:
    """The plugins that a model needs to be built again, by id: "distribution version"."""
    ids = {part.id.partition("/")[0] for part in _weighty_parts(plan, catalogue)}
    return {p.id: f"{p.distribution} {p.version}" for p in catalogue.plugins if p.id in ids}


def _weighty_parts(plan: Plan, catalogue: Catalogue) -> Iterator[Part]:
    """The components that decide what the weights compute, with those that the backbone is made of."""
    yield from (part for part in (plan.stem, plan.model, plan.head, *plan.transforms) if part is not None)
    inner = getattr(plan.model.config, "parts", None)
    if inner is not None:
        yield from inner(catalogue)
