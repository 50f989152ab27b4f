"""Dataset x model -> one plan, or one reason (torch-free).

    data kind --stem--> what the model accepts --model--> features --head--> target kind <-- task

Each arrow is one declared component. Where the recipe does not pin a stem, head or task, the cheapest
that fits is taken. What cannot work is refused here, before torch is imported, in a sentence that
names what would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import PurePath
from typing import Any, TypeVar, cast, get_args

from zoo.catalogue import Catalogue, Part, blaming, filter_specs
from zoo.config import ConfigError, Problem, path_fields
from zoo.errors import ContractError, ZooError, either
from zoo.kinds import DataKind, Image, Labels, Maps, TargetKind, kind_from_dict, kind_to_dict
from zoo.specs import DatasetSpec, HeadSpec, ModelSpec, Spec, StemSpec, TaskSpec

S = TypeVar("S", bound=Spec)

#: A flattened input wider than this is worth a remark: the first layer holds most of the parameters.
WIDE_FLATTEN = 4096


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
        steps += [_call(self.model) + direction, _call(self.head), str(self.targets)]
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
    _check_width(catalogue, model, width)
    task_spec = choose_task(catalogue, task, targets, required=dataset is not None)
    if task is None and task_spec is not None:
        task = catalogue.part("task", task_spec.id)
    causal = _direction(catalogue, claims, causal, task_spec)
    notes = list(catalogue.ask(dataset, "notes", default=())) if dataset is not None else []
    stem, tokens = _choose_stem(catalogue, stem, inputs, claims, notes)
    if tokens is not None:
        _check_tokens(claims, tokens, inputs)
        _check_labelled(stem, tokens, inputs, targets)
    _check_mapped(stem, tokens, inputs, targets)
    head = _choose_head(catalogue, head, claims, targets)
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


def _direction(catalogue: Catalogue, claims: ModelSpec, wanted: bool | None, task: TaskSpec | None) -> bool:
    """Whether the model is built causal: what the task needs, else what was asked, else what it is."""
    needed = task is not None and task.needs_causal
    if needed and task is not None and wanted is False and claims.causal != "never":
        raise ContractError(
            f"model {claims.id!r} cannot do task {task.id!r} when causal=False is asked for: it then sees "
            "both directions, so the answer would leak. Leave causal out, or set it to true"
        )
    if needed and task is not None and claims.causal == "never":
        others = [s.id for s in _specs(catalogue, "model", ModelSpec) if _can_be_causal(catalogue, s)]
        tasks = [t.id for t in _specs(catalogue, "task", TaskSpec) if not t.needs_causal]
        raise ContractError(
            f"model {claims.id!r} cannot do task {task.id!r}: it sees both directions "
            f"(causal: {claims.causal}), so the answer would leak. It can do: {', '.join(tasks)}. "
            f"Models that can be causal: {_some(others)}."
        )
    if wanted is True and claims.causal == "never":
        raise ContractError(f"model {claims.id!r} cannot be built causal: it sees both directions")
    if wanted is False and claims.causal == "always":
        raise ContractError(f"model {claims.id!r} is always causal and cannot be built with causal=False")
    if claims.causal == "always" or needed:
        return True
    return bool(wanted)


def choose_task(
    catalogue: Catalogue, pinned: Part | None, targets: TargetKind, *, required: bool
) -> TaskSpec | None:
    """The task for these targets: the pinned one, else the cheapest that answers them.

    Raises:
        ContractError: the pinned one does not fit, or none does and one is `required`.
    """

    def fits(spec: TaskSpec) -> bool:
        return spec.answers == targets.kind

    tasks = _specs(catalogue, "task", TaskSpec)
    if pinned is None:
        fitting = [spec for spec in tasks if fits(spec)]
        if not fitting and not required:
            return None
        if not fitting:
            raise ContractError(f"no installed task answers {targets.kind!r} ({targets})", path="task")
        return _cheapest(fitting)
    spec = cast(TaskSpec, catalogue.get("task", pinned.id))
    if not fits(spec):
        raise ContractError(
            f"task {spec.id!r} answers {spec.answers!r}, but the dataset asks for {targets.kind!r} "
            f"({targets}).{_would_work(tasks, fits)}",
            path="task",
        )
    return spec


def _choose_stem(
    catalogue: Catalogue, pinned: Part | None, inputs: DataKind, claims: ModelSpec, notes: list[str]
) -> tuple[Part | None, int | None]:
    """The stem between this data and this model, and the most tokens it yields."""

    def fits(spec: StemSpec) -> bool:
        return spec.accepts == inputs.kind and spec.returns == claims.accepts

    if claims.accepts == "image":
        if pinned is not None:
            raise ContractError(
                f"model {claims.id!r} takes images itself; remove the stem {pinned.id!r}", path="stem"
            )
        if inputs.kind != "image":
            takers = {s.returns for s in _specs(catalogue, "stem", StemSpec) if s.accepts == inputs.kind}
            models = [s.id for s in _specs(catalogue, "model", ModelSpec) if s.accepts in takers]
            raise ContractError(
                f"model {claims.id!r} takes images, but the dataset gives {inputs.kind} ({inputs}). "
                f"Models that take {inputs.kind}: {_some(models)}."
            )
        return None, None
    stems = _specs(catalogue, "stem", StemSpec)
    if pinned is None:
        fitting = [spec for spec in stems if fits(spec)]
        if not fitting:
            installed = ", ".join(f"{s.id} ({s.accepts} -> {s.returns})" for s in stems)
            raise ContractError(
                f"no installed stem turns {inputs.kind} ({inputs}) into the {claims.accepts} that model "
                f"{claims.id!r} takes. Stems: {installed}"
            )
        pinned = catalogue.part("stem", _cheapest(fitting).id)
    else:
        spec = cast(StemSpec, catalogue.get("stem", pinned.id))
        if not fits(spec):
            raise ContractError(
                f"stem {spec.id!r} turns {spec.accepts} into {spec.returns}, but here {inputs.kind} "
                f"({inputs}) must become {claims.accepts}.{_would_work(stems, fits)}",
                path="stem",
            )
    try:
        tokens = catalogue.ask(pinned, "tokens", inputs)
    except ContractError as error:
        raise ContractError(str(error), path="stem") from None
    count = catalogue.ask(pinned, "flattened", inputs, default=0)
    if count > WIDE_FLATTEN:
        notes.append(f"{pinned.id} flattens {count} values: the first layer holds most of the parameters")
    return pinned, tokens


def _check_tokens(claims: ModelSpec, tokens: int, inputs: DataKind) -> None:
    if tokens < claims.min_tokens:
        raise ContractError(
            f"model {claims.id!r} needs at least {claims.min_tokens} tokens, but {inputs} gives {tokens}"
        )
    if claims.max_tokens is not None and tokens > claims.max_tokens:
        raise ContractError(
            f"model {claims.id!r} takes at most {claims.max_tokens} tokens, but {inputs} gives {tokens}"
        )


def _check_labelled(stem: Part | None, tokens: int, inputs: DataKind, targets: TargetKind) -> None:
    steps = getattr(inputs, "length", tokens)
    if isinstance(targets, Labels) and stem is not None and tokens != steps:
        raise ContractError(
            f"the dataset asks for {targets}, but stem {stem.id!r} makes {tokens} tokens of {steps} steps; "
            "choose a stem that makes each step a token",
            path="stem",
        )


def _check_mapped(stem: Part | None, tokens: int | None, inputs: DataKind, targets: TargetKind) -> None:
    """Maps are of images of their size; tokens must lie on a grid, so that each has its pixels."""
    if not isinstance(targets, Maps):
        return
    size = (getattr(inputs, "height", 0), getattr(inputs, "width", 0))
    if not isinstance(inputs, Image) or size != (targets.height, targets.width):
        raise ContractError(
            f"the dataset asks for {targets}, but gives {inputs}: maps are of images of their own size",
            path="dataset",
        )
    if stem is not None and tokens is not None and not hasattr(stem.config, "grid"):
        raise ContractError(
            f"the dataset asks for {targets}, but the tokens of stem {stem.id!r} lie on no grid (its "
            "parameters have no grid()); choose a stem that makes patches",
            path="stem",
        )


def _choose_head(catalogue: Catalogue, pinned: Part | None, claims: ModelSpec, targets: TargetKind) -> Part:
    def fits(spec: HeadSpec) -> bool:
        return spec.accepts == claims.accepts and spec.answers == targets.kind

    heads = _specs(catalogue, "head", HeadSpec)
    if pinned is not None:
        spec = cast(HeadSpec, catalogue.get("head", pinned.id))
        if fits(spec):
            return pinned
        raise ContractError(
            f"head {spec.id!r} turns {spec.accepts} into {spec.answers}, but here {claims.accepts} must "
            f"become {targets.kind} ({targets}).{_would_work(heads, fits)}",
            path="head",
        )
    fitting = [spec for spec in heads if fits(spec)]
    if fitting:
        return catalogue.part("head", _cheapest(fitting).id)
    answers = sorted({spec.answers for spec in heads if spec.accepts == claims.accepts})
    takers = sorted({spec.accepts for spec in heads if spec.answers == targets.kind})
    models = [s.id for s in _specs(catalogue, "model", ModelSpec) if s.accepts in takers]
    would = f" Models that can answer it: {_some(models)}." if models else ""
    raise ContractError(
        f"model {claims.id!r} works on {claims.accepts}, from which no installed head answers {targets.kind} "
        f"({targets}). It can answer: {', '.join(answers) or 'nothing'}.{would}"
    )


def _check_width(catalogue: Catalogue, model: Part, width: int) -> None:
    """Let the model's parameters refuse a width that they cannot divide."""
    if width < 1:
        raise ConfigError([Problem("width", f"must be at least 1, got {width}")])
    catalogue.ask(model, "check_width", width)


def _can_be_causal(catalogue: Catalogue, spec: ModelSpec) -> bool:
    return spec.accepts == "tokens" and catalogue.default_claims(spec).causal != "never"


def _specs(catalogue: Catalogue, kind: str, cls: type[S]) -> list[S]:
    return [spec for spec in catalogue.specs(kind) if isinstance(spec, cls)]


def _cheapest(specs: list[Any]) -> Any:
    return min(specs, key=lambda spec: (spec.cost, spec.id))


def _would_work(specs: list[S], fits: Callable[[S], bool]) -> str:
    names = [spec.id for spec in specs if fits(spec)]
    return f" What works here: {either(names)}." if names else ""


def _some(names: list[str], most: int = 3) -> str:
    if not names:
        return "none"
    more = f" (+{len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _call(part: Part) -> str:
    """`core/patches(patch=2)`: the name with the parameters that differ from their defaults."""
    if part.config is None:
        return part.id
    changed = []
    for field in fields(part.config):
        value = getattr(part.config, field.name)
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != made:
            changed.append(f"{field.name}={value!r}")
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
