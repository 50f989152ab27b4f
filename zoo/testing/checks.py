"""Every check, and the claims that it follows from (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from zoo.catalogue import Catalogue
from zoo.kinds import PER_TOKEN, STEPWISE, Maps
from zoo.specs import HeadSpec, ModelSpec, Spec, StemSpec
from zoo.testing.check import Check, always, claims_of, sees_tokens

ALL = (
    "model",
    "mixer",
    "feed_forward",
    "stem",
    "head",
    "dataset",
    "task",
    "transform",
    "callback",
    "decoder",
    "command",
)
MODULES = ("model", "mixer", "feed_forward", "stem", "head")
SEQUENCES = ("model", "mixer", "stem", "head")
TOKENS = ("model", "mixer")


def checks_for(spec: Spec, catalogue: Catalogue, params: Mapping[str, Any] | None = None) -> list[Check]:
    """The checks that a component must pass, generated from what it claims with these parameters."""
    try:
        claims = claims_of(spec, catalogue, params)
    except Exception:  # whatever a stranger's config does: the check "builds" reports it
        claims = spec
    return [check for check in CHECKS if check.applies(claims)]


def _in_plugin(claims: Spec) -> bool:
    """Not one of the core's own, whose cards are their specs."""
    return claims.plugin != "core"


def _has_config(claims: Spec) -> bool:
    return claims.config is not None


def _looks_on(claims: Spec) -> bool:
    """Not a callback that says it changes the model."""
    return not getattr(claims, "changes_model", False)


def _has_variants(claims: Spec) -> bool:
    return bool(claims.variants)


def _has_presets(claims: Spec) -> bool:
    return isinstance(claims, ModelSpec) and bool(claims.presets)


def _takes_mask(claims: Spec) -> bool:
    if isinstance(claims, StemSpec):
        return claims.accepts in STEPWISE
    if isinstance(claims, HeadSpec):
        return claims.accepts == "tokens" and claims.answers != Maps.kind  # a grid of patches is whole
    return sees_tokens(claims)


def _ordered(claims: Spec) -> bool:
    """Whether a model that must not see the future can contain it."""
    if isinstance(claims, StemSpec):
        return claims.accepts in STEPWISE and claims.returns == "tokens"
    if isinstance(claims, HeadSpec):
        return claims.answers in PER_TOKEN
    return sees_tokens(claims) and getattr(claims, "causal", "never") != "never"


def _sees_both_ways(claims: Spec) -> bool:
    return sees_tokens(claims) and getattr(claims, "causal", "always") != "always"


def _by_position(claims: Spec) -> bool:
    if isinstance(claims, StemSpec):
        return claims.accepts in STEPWISE and claims.returns == "tokens"
    return True


def _streams(claims: Spec) -> bool:
    return bool(getattr(claims, "streaming", False))


def _has_reference(claims: Spec) -> bool:
    return getattr(claims, "reference", None) is not None


def _by_layer(claims: Spec) -> bool:
    return bool(getattr(claims, "by_layer", False))


def _claims_exact(claims: Spec) -> bool:
    return getattr(claims, "exact_when", None) is not None


def _checks(
    theme: str,
    kinds: tuple[str, ...],
    summaries: dict[str, str],
    *,
    where: Callable[[Spec], bool] = always,
    cost: Literal["quick", "slow"] = "quick",
) -> tuple[Check, ...]:
    return tuple(
        Check(name=name, theme=theme, kinds=kinds, summary=summary, where=where, cost=cost)
        for name, summary in summaries.items()
    )


CHECKS: tuple[Check, ...] = (
    *_checks(
        "build",
        ALL,
        {
            "described": "the spec has a summary, every parameter a help text",
            "known_limits": "each known limit names a check that applies and why, and excuses no causality",
            "torch_free": "importing the plugin and calling its hook loads no torch, timm, omegaconf, ...",
            "imports_in_silence": "importing the plugin and calling its hook prints nothing",
            "builds": "it builds (or loads) from its defaults",
        },
    ),
    *_checks(
        "build",
        ALL,
        {"card": "the plugin's package has a README.md that names the component"},
        where=_in_plugin,
    ),
    *_checks(
        "build",
        ALL,
        {
            "config_frozen": "its parameters are a zoo.plugin.Config, frozen once it is checked",
            "config_round_trip": "the default parameters survive YAML",
        },
        where=_has_config,
    ),
    *_checks(
        "build",
        ALL,
        {"variants": "each of its variants builds, survives YAML, and is another than the defaults"},
        where=_has_variants,
    ),
    *_checks(
        "build",
        ("model",),
        {"presets": "it builds from every preset, and each survives YAML"},
        where=_has_presets,
    ),
    *_checks(
        "build",
        TOKENS,
        {
            "claims_agree": "the claims do not contradict each other",
            "directions": "it builds causal or not as claimed, and refuses the other with a ValueError",
        },
    ),
    *_checks(
        "build",
        ("mixer",),
        {"by_layer": "it takes its place, layer= of depth=, in stacks of any depth, and differs by it"},
        where=_by_layer,
    ),
    *_checks(
        "build",
        MODULES,
        {
            "same_seed": "the same seed gives the same weights and outputs; evaluation repeats itself",
            "meta_device": "it builds on the meta device, with the same parameters and buffers",
        },
    ),
    *_checks(
        "guest",
        MODULES,
        {"guest": "it prints nothing, and leaves torch's settings and the seed of its random numbers alone"},
    ),
    *_checks(
        "numerics",
        MODULES,
        {
            "shapes": "shapes are right for batches and lengths of 1, 2, 7 and a prime above the block size",
            "dtype": "float32, float64 and bfloat16 weights give outputs of their own type",
            "finite": "outputs and gradients are finite in float32, for zeros and for large inputs too",
            "autocast": "under bfloat16 autocast outputs and gradients are finite and close to float32",
        },
    ),
    *_checks(
        "numerics",
        TOKENS,
        {"longer": "more tokens than it was built for: it works, or refuses naming max_tokens"},
        where=sees_tokens,
    ),
    *_checks(
        "numerics",
        TOKENS,
        {"reference": "the fast form equals the reference in values and gradients"},
        where=_has_reference,
    ),
    *_checks(
        "numerics",
        ("mixer",),
        {"attention_probs": "what it says of its attention sums to one and sees neither future nor padding"},
    ),
    *_checks(
        "numerics",
        TOKENS,
        {"exact": "with the parameters of `exact_when` it equals softmax attention"},
        where=_claims_exact,
    ),
    *_checks(
        "causality",
        SEQUENCES,
        {"no_future": "changing or cutting off later tokens leaves earlier outputs as they were"},
        where=_ordered,
    ),
    *_checks(
        "causality",
        TOKENS,
        {"both_ways": "built with causal=False it does see later tokens"},
        where=_sees_both_ways,
    ),
    *_checks(
        "causality",
        MODULES,
        {"rows_apart": "no example sees another of its batch; batched equals single"},
    ),
    *_checks(
        "causality",
        ("feed_forward", "stem"),
        {"positions_apart": "each position is treated by itself (feed-forwards, stems with per_token)"},
        where=_by_position,
    ),
    *_checks(
        "masks",
        SEQUENCES,
        {
            "padding_right": "padding on the right changes no value and no gradient",
            "padding_left": "padding on the left changes no value and no gradient",
            "mask_edges": "a mask that keeps all changes nothing; a row that keeps none is finite "
            "(zeros from a mixer)",
        },
        where=_takes_mask,
    ),
    *_checks(
        "streaming",
        TOKENS,
        {
            "streams": "in steps of 1, 3 and 7 tokens it gives what it gives in parallel",
            "streams_on": "a stream goes on after a prefix of any length, in steps of any size",
            "state_pure": "all that a stream remembers is its state: steps repeat, streams interleave",
            "state_rows": "streams of a state can be selected and saved; one starts anew beside the others, "
            "or the state says that it cannot",
            "state_foreign": "a state of another component, width, type or number of streams is refused with "
            "a ValueError that says what was given",
            "state_size": "the state's bytes grow with the tokens seen at most as claimed",
        },
        where=_streams,
    ),
    *_checks(
        "gradients",
        MODULES,
        {
            "gradients": "every parameter gets a finite gradient that is not all zeros",
            "gradient_values": "gradients equal finite differences, parameter by parameter",
        },
    ),
    *_checks(
        "gradients",
        ("model", "mixer", "feed_forward"),
        {"loss_falls": "the loss on one batch can be halved"},
    ),
    *_checks(
        "serialise",
        MODULES,
        {
            "state_dict": "weights written and read with weights_only=True give the same outputs",
            "copies": "deepcopy and pickle give the same outputs and share nothing",
        },
    ),
    *_checks(
        "maps",
        ("model",),
        {"maps": "where it can take images, it answers each pixel of one, and every pixel has a part in it"},
    ),
    *_checks("serialise", ("model",), {"weights_file": "the whole model survives its safetensors file"}),
    *_checks(
        "compile",
        ("model", "mixer", "feed_forward"),
        {
            "exports": "torch.export gives what eager gives",
            "compiles": "torch.compile gives the values and gradients that eager gives",
        },
        cost="slow",
    ),
    *_checks(
        "compile",
        ("model",),
        {
            "exports_whole": "the whole model, exported for any batch size, gives what eager gives",
            "exports_onnx": "the same as ONNX, run by onnxruntime (skipped without the extra onnx)",
        },
        cost="slow",
    ),
    *_checks(
        "cost",
        TOKENS,
        {"cost": "the operations counted, with and without a mask, grow with the tokens at most as claimed"},
        where=sees_tokens,
    ),
    *_checks(
        "data",
        ("dataset",),
        {
            "data_card": "licence, source, naive baseline and known good score are stated",
            "data_kinds": "examples of every split are what the declared kinds say",
            "data_repeats": "loading twice, and reading an example twice, gives the same",
            "splits_apart": "at most one test or validation example in a hundred is also in train",
        },
    ),
    *_checks(
        "task",
        ("task",),
        {
            "task_loss": "the loss is a finite scalar with a gradient; what is not asked does not count",
            "task_no_wait": "the loss is computed without a look at any number, for which a GPU would wait",
            "task_best": "the perfect answer has the lowest loss and the best monitored metric",
            "task_sums": "metrics of two batches equal those of the two joined",
            "task_predicts": "predictions are plain data, one item per example",
            "task_baseline": "the naive answer is scored with the task's own metrics, the monitored one too",
        },
    ),
    *_checks(
        "callback",
        ("callback",),
        {"callback_looks_on": "a run with it changes no weight, mode or hook of the model"},
        where=_looks_on,
    ),
    *_checks(
        "callback",
        ("callback",),
        {
            "callback_logs": "it logs what its columns say",
            "callback_resumes": "a run that is interrupted and resumed logs and leaves what another does",
        },
    ),
    *_checks(
        "decoder",
        ("decoder",),
        {
            "decoder_chooses": "it chooses one symbol a row, and never an impossible one",
            "decoder_rows_apart": "a row of a batch is decoded as it would be alone, state included",
            "decoder_repeats": "the same state and chance give the same symbols; the old state stays",
        },
    ),
    *_checks(
        "transform",
        ("transform",),
        {
            "transform_applies": "transformed models of torch, timm and the zoo give finite outputs of the "
            "same shape, and every parameter a gradient",
            "transform_repeats": "applied a second time, it changes nothing",
            "transform_saves": "a transformed model comes back from its file, with another head too",
            "transform_evaluates": "evaluation repeats itself and changes no weight and no buffer",
            "transform_trains": "the loss on one batch falls",
            "transform_folds": "folded back to plain weights, it gives the same outputs, and saves and loads",
        },
    ),
)
