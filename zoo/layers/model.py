"""A whole model: stem -> backbone -> head, built from a plan. B batch, N tokens, D width, K outputs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.catalogue import Catalogue, Part, blaming
from zoo.catalogue import catalogue as default_catalogue
from zoo.contract import Plan, resolve
from zoo.errors import ZooError
from zoo.kinds import Classes, DataKind, TargetKind
from zoo.layers.streams import step_rows
from zoo.specs import Transformed


class Model(nn.Module):
    """Stem, backbone and head, with timm's habits.

    Attributes:
        stem: `None` where the backbone takes images itself.
        num_features: width of what the backbone gives and the head takes.
        plan: what it was built from.
        notes: what its transforms say that a user may not expect.
    """

    def __init__(self, stem: nn.Module | None, backbone: nn.Module, head: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.stem = stem
        self.backbone: Any = backbone
        self.head: Any = head
        self.plan = plan
        self.notes: tuple[str, ...] = ()

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return _num_features(self.backbone, self.plan)

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained; shared ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: a batch of `plan.inputs`, mask: bool (B, N), True = keep -> (B, K), or (B, N, K) by token."""
        features, kept = self.forward_features(x, mask=mask)
        outputs = self.forward_head(features, mask=kept)
        direct = self.head.direct(x, mask=mask) if hasattr(self.head, "direct") else None
        return outputs if direct is None else outputs + direct

    def forward_features(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the backbone gives, (B, N, D), (B, D) or (B, D, H, W), and the mask of its tokens."""
        x, mask = self._enter(x, mask)
        return self.backbone(x, **self._masked(mask)), mask

    def forward_head(
        self, features: Tensor, *, mask: Tensor | None = None, pre_logits: bool = False
    ) -> Tensor:
        """Features -> outputs; with `pre_logits` what the last linear map takes."""
        return self.head(features, mask=mask, pre_logits=pre_logits)

    def forward_intermediates(
        self, x: Tensor, *, mask: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> list[Tensor]:
        """What each layer of the backbone passes on; `indices` choose layers (an int n: the last n).

        Raises:
            ValueError: this backbone does not show its layers.
        """
        if not hasattr(self.backbone, "forward_intermediates"):
            raise ValueError(
                f"model {self.plan.model.id!r} does not show its layers (no forward_intermediates)"
            )
        x, mask = self._enter(x, mask)
        return self.backbone.forward_intermediates(x, indices=indices, **self._masked(mask))

    def penalty(self) -> Tensor | None:
        """What its layers add to the loss of the last forward pass in training; `None`: nothing.

        Any module may have a method `penalty() -> Tensor | None`, a scalar for its last inputs in training
        mode: weights that should be few, experts that should share the work.
        """
        asked: list[Any] = [m for m in self.modules() if m is not self and hasattr(m, "penalty")]
        found = [module.penalty() for module in asked]
        given = [penalty for penalty in found if penalty is not None]
        return torch.stack(given).sum() if given else None

    def reset_head(self, targets: TargetKind | int, *, catalogue: Catalogue | None = None) -> None:
        """Replace the head by a fresh one for other targets; the same kind of head where the kind stays.

        The model's transforms are applied to it too.

        targets: a target kind; a number is so many classes, as in timm.

        Raises:
            ContractError: this model cannot answer such targets.
            ConfigError: a number of classes below 1.
        """
        if isinstance(targets, int):
            targets = Classes(count=targets)
        catalogue = catalogue or default_catalogue()
        old = self.plan
        same = targets.kind == old.targets.kind
        plan = resolve(
            catalogue,
            model=old.model,
            width=old.width,
            inputs=old.inputs,
            targets=targets,
            stem=old.stem,
            head=old.head if same else None,
            task=old.task if same else None,
            transforms=old.transforms,
            causal=old.causal,
        )
        like = next(self.backbone.parameters())
        head = _build_head(catalogue, plan, stem=self.stem, backbone=self.backbone, width=self.num_features)
        self.head = head.to(device=like.device, dtype=like.dtype).train(self.training)
        self.plan = plan
        for part in plan.transforms:
            transform(self, part, catalogue=catalogue)

    def initial_state(self, batch_size: int) -> Any:
        """The state of a stream before its first token.

        Raises:
            ValueError: stem, backbone or head cannot work token by token; says which.
        """
        plan = self.plan
        if not (plan.claims.streaming and plan.causal):
            hint = (
                "it is built to see both directions"
                if plan.claims.streaming
                else "it needs all tokens at once"
            )
            raise ValueError(f"model {plan.model.id!r} does not stream: {hint}")
        for module, part in ((self.stem, plan.stem), (self.head, plan.head)):
            if part is not None and not getattr(module, "per_token", False):
                raise ValueError(f"{part.kind} {part.id!r} does not stream: it needs all tokens at once")
        return self.backbone.initial_state(batch_size)

    def step(self, x: Tensor, state: Any, *, active: Tensor | None = None) -> tuple[Tensor, Any]:
        """The next C >= 1 inputs, (B, C) or (B, C, channels) -> (B, C, K) and the new state.

        active: bool (B,), the streams that have inputs now; the others keep their state and give zeros.
            Streams that start and end at other times: `zoo.layers.put_rows` and `select_rows`.

        Raises:
            ValueError: the state is of another number of streams or of another type, or streams of such a
                state cannot stand side by side at different ages.
        """
        if active is not None:
            return step_rows(self.step, x, state, active)
        x, _ = self._enter(x, None)
        features, state = self.backbone.step(x, state)
        return self.head(features), state

    def _enter(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
            got = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise ValueError(f"expected a mask of bool {tuple(x.shape[:2])}, True = keep, got {got}")
        return (x, mask) if self.stem is None else self.stem(x, mask=mask)

    def _masked(self, mask: Tensor | None) -> dict[str, Tensor | None]:
        """Only backbones that take tokens know masks."""
        return {"mask": mask} if self.plan.claims.accepts == "tokens" else {}


def build_model(plan: Plan, *, catalogue: Catalogue | None = None, fresh: bool = True) -> Model:
    """The model that a plan describes, with fresh weights, transforms applied.

    catalogue: where components are looked up. A backbone that looks up others takes it as `catalogue=`.
    fresh: False where the weights are about to be loaded. A backbone that would fetch pretrained ones takes
        it as `fresh=` and does without.
    """
    catalogue = catalogue or default_catalogue()
    stem = None
    if plan.stem is not None:
        stem = _load(catalogue, plan.stem)(plan.stem.config, inputs=plan.inputs, width=plan.width)
    build = _load(catalogue, plan.model)
    options: dict[str, Any] = {"width": plan.width, "causal": plan.causal}
    if plan.claims.accepts == "image":
        options["inputs"] = plan.inputs
    else:
        options["max_tokens"] = plan.tokens
    takes = inspect.signature(build).parameters
    options |= {k: v for k, v in (("catalogue", catalogue), ("fresh", fresh)) if k in takes}
    backbone = build(plan.model.config, **options)
    width = _num_features(backbone, plan)
    head = _build_head(catalogue, plan, stem=stem, backbone=backbone, width=width)
    model = Model(stem, backbone, head, plan)
    for part in plan.transforms:
        _, notes = transform(model, part, catalogue=catalogue)
        model.notes += notes
    return model


def transform(
    model: nn.Module, part: Part, *, catalogue: Catalogue | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Apply a transform to any module: the changed one, and what its user may not expect.

    Raises:
        ZooError: the transform refuses the model, fails, or gives back something else than it should.
    """
    with blaming(f"transform {part.id!r} cannot be applied"):
        given = _load(catalogue or default_catalogue(), part)(model, part.config)
    done = given.model if isinstance(given, Transformed) else given
    if not isinstance(done, nn.Module) or (isinstance(model, Model) and done is not model):
        wanted = "the zoo's model itself, changed in place" if isinstance(model, Model) else "an nn.Module"
        raise ZooError(f"transform {part.id!r} gave back {type(done).__name__}, expected {wanted}")
    notes = given.notes if isinstance(given, Transformed) else ()
    return done, tuple(f"{part.id}: {note}" for note in notes)


def _build_head(
    catalogue: Catalogue, plan: Plan, *, stem: nn.Module | None, backbone: nn.Module, width: int
) -> nn.Module:
    make = _load(catalogue, plan.head)
    head = make_head(make, plan.head.config, inputs=plan.inputs, targets=plan.targets, width=width)
    connect = getattr(head, "connect", None)
    if connect is not None:
        more = {"backbone": backbone} if "backbone" in inspect.signature(connect).parameters else {}
        connect(stem, **more)
    return head


def make_head(make: Any, config: Any, *, inputs: DataKind, targets: TargetKind, width: int) -> nn.Module:
    """A head from its spec's target; only a head that has an argument `inputs` is told them."""
    options = {"inputs": inputs} if "inputs" in inspect.signature(make).parameters else {}
    head: nn.Module = make(config, targets=targets, width=width, **options)
    return head


def _load(catalogue: Catalogue, part: Part) -> Any:
    return catalogue.get(part.kind, part.id).load()


def _num_features(backbone: nn.Module, plan: Plan) -> int:
    return int(getattr(backbone, "num_features", plan.width))
