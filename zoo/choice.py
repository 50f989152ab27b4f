"""What a plan takes where the recipe leaves it open, and why what it pins cannot be (torch-free).

The cheapest that fits is taken; every refusal names what would work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from zoo.catalogue import Catalogue, Part
from zoo.config import ConfigError, Problem
from zoo.errors import ContractError, either
from zoo.kinds import DataKind, Image, Labels, Maps, TargetKind
from zoo.specs import HeadSpec, ModelSpec, Spec, StemSpec, TaskSpec

S = TypeVar("S", bound=Spec)

#: A flattened input wider than this is worth a remark: the first layer holds most of the parameters.
WIDE_FLATTEN = 4096


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


def choose_direction(
    catalogue: Catalogue, claims: ModelSpec, wanted: bool | None, task: TaskSpec | None
) -> bool:
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


def choose_stem(
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


def choose_head(catalogue: Catalogue, pinned: Part | None, claims: ModelSpec, targets: TargetKind) -> Part:
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


def check_width(catalogue: Catalogue, model: Part, width: int) -> None:
    """Let the model's parameters refuse a width that they cannot divide."""
    if width < 1:
        raise ConfigError([Problem("width", f"must be at least 1, got {width}")])
    catalogue.ask(model, "check_width", width)


def check_shapes(
    claims: ModelSpec, stem: Part | None, tokens: int | None, inputs: DataKind, targets: TargetKind
) -> None:
    """Refuse more or fewer tokens than the model takes, and answers that tokens have no places for."""
    if tokens is not None:
        _check_tokens(claims, tokens, inputs)
        _check_labelled(stem, tokens, inputs, targets)
    _check_mapped(stem, tokens, inputs, targets)


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
