"""What a recipe may say: a closed tree of frozen dataclasses, one per section.

Only `schema`, `model` and `data` must be given. Components are named, `{name: plugin/x, params: {...}}`,
and `params` are typed by the component's own config class (see `zoo.recipe.check`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from zoo.config import Config, field_types, param

#: Raised on a breaking change of this file.
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Component(Config):
    """A component and its parameters."""

    name: str = param(help="full or short name, e.g. core/patches")
    params: dict[str, Any] = param(factory=dict, help="its parameters; 'zoo show NAME' lists them")


@dataclass(frozen=True, kw_only=True)
class ModelSection(Config):
    """The architecture, and what stands before and after it."""

    name: str = param(help="full or short name, e.g. aaren/encoder")
    width: int = param(128, "D, the token width shared by stem, backbone and head", at_least=1)
    preset: str | None = param(None, "a named set of parameters of this model; params are laid upon it")
    params: dict[str, Any] = param(factory=dict, help="its parameters; 'zoo show NAME' lists them")
    causal: bool | None = param(
        None,
        "true: it must not see later tokens; false: it must see all; null follows the task and the model",
    )
    stem: Component | None = param(None, "data -> tokens or vector; null lets the contract choose")
    head: Component | None = param(None, "features -> answers; null lets the contract choose")


@dataclass(frozen=True, kw_only=True)
class DataSection(Config):
    """The dataset and how it is batched."""

    name: str = param(help="full or short name, e.g. core/digits")
    params: dict[str, Any] = param(factory=dict, help="its parameters; 'zoo show NAME' lists them")
    batch_size: int | Literal["auto"] = param(
        64, "examples per batch, of all devices together; auto: as many as fit in memory", at_least=1
    )
    eval_batch_size: int | None = param(
        None, "examples per batch of evaluation; null: batch_size", at_least=1
    )
    workers: int = param(0, "processes that load data", at_least=0)


@dataclass(frozen=True, kw_only=True)
class TaskSection(Config):
    """Loss, metrics and what decides which checkpoint is best."""

    name: str | None = param(None, "full or short name; null lets the contract choose")
    params: dict[str, Any] = param(factory=dict, help="its parameters, e.g. label_smoothing")
    monitor: str | None = param(None, "metric that says which checkpoint is best; null: the task's own")
    mode: Literal["min", "max"] | None = param(None, "whether less or more of it is better")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.monitor is not None and self.mode is None:
            yield "mode", "is required with monitor: min (less is better) or max"
        if self.mode is not None and self.monitor is None:
            yield "monitor", "is required with mode: a metric, e.g. val/loss"
        yield from _metric("monitor", self.monitor)


@dataclass(frozen=True, kw_only=True)
class OptimSection(Config):
    """The optimiser; any that timm can make."""

    name: str = param("adamw", "name of timm's factory, e.g. adamw, sgd, lion, muon")
    lr: float = param(1e-3, "peak learning rate", above=0)
    weight_decay: float = param(0.05, "not applied to norms and biases", at_least=0)
    params: dict[str, Any] = param(factory=dict, help="further keywords of the optimiser, e.g. betas")


@dataclass(frozen=True, kw_only=True)
class ScheduleSection(Config):
    """The learning rate over the run; timm's schedules, stepped per update."""

    name: Literal["cosine", "tanh", "step", "multistep", "plateau", "poly", "wsd", "rsqrt", "constant"] = (
        param("cosine", "shape after the warm-up")
    )
    warmup_steps: int = param(0, "updates of linear warm-up", at_least=0)
    final_lr_ratio: float = param(0.0, "last learning rate / peak", at_least=0, at_most=1)
    params: dict[str, Any] = param(factory=dict, help="further keywords of timm's schedule")


@dataclass(frozen=True, kw_only=True)
class TrainerSection(Config):
    """How long and on what. Give max_epochs or max_steps; neither means 10 epochs."""

    max_epochs: int | None = param(None, "passes over the train split", at_least=1)
    max_steps: int | None = param(None, "updates of the optimiser", at_least=1)
    eval_every_steps: int | None = param(None, "validate this often; null: after each epoch", at_least=1)
    precision: Literal[
        "32-true",
        "64-true",
        "16-true",
        "16-mixed",
        "bf16-true",
        "bf16-mixed",
        "transformer-engine",
        "transformer-engine-float16",
    ] = param("32-true", "number format of weights and arithmetic")
    gradient_clip_norm: float | None = param(None, "clip the gradient to this 2-norm; null: never", above=0)
    accumulate_batches: int = param(1, "batches per update", at_least=1)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = param("auto", "kind of device")
    devices: int | Literal["auto"] = param(1, "how many devices of each node; auto: all GPUs", at_least=1)
    nodes: int = param(1, "how many machines", at_least=1)
    strategy: Literal["auto", "ddp", "fsdp"] = param(
        "auto", "several devices: ddp (auto) gives each the whole model, fsdp a share of it"
    )
    compile: bool = param(False, "compile the model with torch.compile")
    gradient_checkpointing: bool = param(
        False, "compute each layer again going backwards, and keep its input alone: less memory, slower"
    )
    log_every_steps: int = param(50, "updates between logged rows", at_least=1)
    extra: dict[str, Any] = param(
        factory=dict, help="further keywords of Lightning's Trainer; not portable, noted in the run"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_epochs is None and self.max_steps is None:
            object.__setattr__(self, "max_epochs", 10)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.max_epochs is not None and self.max_steps is not None:
            yield "max_steps", "excludes max_epochs: give one of them (null takes an inherited one away)"


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Config):
    """Which checkpoints are kept beside the last one, which is written at each evaluation and in between."""

    keep: int = param(1, "the best so many, by the monitored metric", at_least=1)
    every_minutes: float | None = param(
        10.0, "also write the last one when so long has passed; null: not by time", above=0
    )
    every_steps: int | None = param(None, "also write the last one after so many updates", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Ema(Config):
    """Exponential moving average of the weights; what is evaluated and saved as the model."""

    decay: float = param(0.999, "share of the old average kept at each update", above=0, below=1)
    start_step: int = param(0, "updates before averaging begins", at_least=0)
    every_steps: int = param(1, "updates between two steps of the average", at_least=1)


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Config):
    """Stop when the monitored metric no longer improves."""

    patience: int = param(10, "evaluations without improvement before stopping", at_least=1)
    min_delta: float = param(0.0, "less than this is no improvement", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Progress(Config):
    """The progress bar: rich on a terminal, plain lines elsewhere."""


@dataclass(frozen=True, kw_only=True)
class CallbackSection(Config):
    """Optional behaviour of a run; null switches one off. Those of plugins stand beside these, by name."""

    checkpoint: Checkpoint = param(factory=Checkpoint, help="which checkpoints are kept")
    ema: Ema | None = param(None, "average the weights")
    early_stopping: EarlyStopping | None = param(None, "stop early")
    progress: Progress | None = param(factory=Progress, help="show progress")


@dataclass(frozen=True, kw_only=True)
class Csv(Config):
    """metrics.csv in the run folder."""


@dataclass(frozen=True, kw_only=True)
class Tensorboard(Config):
    """Event files for TensorBoard in the run folder."""


@dataclass(frozen=True, kw_only=True)
class LoggerSection(Config):
    """Where metrics are written; null switches one off."""

    csv: Csv | None = param(factory=Csv, help="metrics.csv")
    tensorboard: Tensorboard | None = param(None, "TensorBoard event files")


@dataclass(frozen=True, kw_only=True)
class OutputSection(Config):
    """Where the run goes."""

    dir: str = param("runs", "folder of all runs; each makes its own folder below it")
    tags: tuple[str, ...] = param((), "words to find the run by")
    loggers: LoggerSection = param(factory=LoggerSection, help="where metrics are written")


@dataclass(frozen=True, kw_only=True)
class Expect(Config):
    """What the recipe claims, as measured."""

    metric: str = param(help="e.g. test/accuracy")
    at_least: float | None = param(None, "lower bound")
    at_most: float | None = param(None, "upper bound")
    seeds: int = param(1, "how many seeds it was measured over", at_least=1)
    measured_on: str = param(help="date and machine, e.g. 2026-01-31, 2 CPU cores")

    def check(self) -> Iterator[tuple[str, str]]:
        if (self.at_least is None) == (self.at_most is None):
            yield "at_least", "give exactly one of at_least and at_most"
        yield from _metric("metric", self.metric)


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """A whole recipe, checked."""

    schema: int = param(help=f"version of the recipe's form; this zoo reads {SCHEMA}")
    title: str = param("", "one line")
    paper: str = param("", "URL of the paper")
    plugins: dict[str, str] = param(factory=dict, help="versions it needs: {zoo: '>=0.1,<1', aaren: '>=0.1'}")
    seed: int = param(0, "of everything random", at_least=0, at_most=2**32 - 1)
    model: ModelSection = param(help="the architecture")
    data: DataSection = param(help="the dataset")
    transforms: dict[str, Any] = param(
        factory=dict,
        help="changes to the built model, name: parameters, in this order; null takes an inherited one away",
    )
    task: TaskSection = param(factory=TaskSection, help="loss and metrics")
    optim: OptimSection = param(factory=OptimSection, help="the optimiser")
    schedule: ScheduleSection = param(factory=ScheduleSection, help="the learning rate over the run")
    trainer: TrainerSection = param(factory=TrainerSection, help="how long and on what")
    callbacks: CallbackSection = param(factory=CallbackSection, help="optional behaviour")
    output: OutputSection = param(factory=OutputSection, help="where the run goes")
    expect: Expect | None = param(None, "what it claims, as measured")

    def check(self) -> Iterator[tuple[str, str]]:
        yield from check_schema(self.schema)


def check_schema(version: int) -> Iterator[tuple[str, str]]:
    """What is wrong with a file of this version, as `Config.check` yields it."""
    if version != SCHEMA:
        newer = "; upgrade archzoo" if version > SCHEMA else ""
        yield "schema", f"is {version}, but this zoo reads schema {SCHEMA}{newer}"


def defaults(section: type = Recipe) -> dict[str, Any]:
    """The defaults of a section and of those below it, as plain data; what is required is left out."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        annotation = field_types(section)[field.name]
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            values[field.name] = defaults(annotation)
        elif field.default_factory is not dataclasses.MISSING:
            made = field.default_factory()
            values[field.name] = dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made  # type: ignore[arg-type]
        elif field.default is not dataclasses.MISSING:
            values[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
    return values


def _metric(field: str, name: str | None) -> Iterator[tuple[str, str]]:
    if name is not None and not all(name.partition("/")):
        yield field, f"a metric is named split/metric, e.g. val/loss; got {name!r}"
