"""The honest toys, and for each conformance check at least one saboteur that it must catch (torch-free).

`python -m tests.saboteurs.plugin` prints the table for the docs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import zoo.plugin as zp

__zoo_api__ = 1

_HERE = "tests.saboteurs"

_MEAN = zp.MixerSpec(
    name="mean",
    target=f"{_HERE}.mixers:Mean",
    config=f"{_HERE}.config:MeanConfig",
    summary="The mean of the tokens so far.",
    causal="optional",
    streaming=True,
    state="constant",
    cost="linear",
    reference=f"{_HERE}.mixers:mean_reference",
)
_STACK = zp.ModelSpec(
    name="stack",
    target=f"{_HERE}.parts:Stack",
    config=f"{_HERE}.config:StackConfig",
    summary="Residual layers of means.",
    causal="optional",
    cost="linear",
    presets={"deep": {"depth": 3}},
)
_SIGHT = zp.ModelSpec(
    name="sight",
    target=f"{_HERE}.parts:Sight",
    summary="One convolution over an image.",
    accepts="image",
    causal="never",
)
_GATE = zp.FeedForwardSpec(name="gate", target=f"{_HERE}.parts:Gate", summary="x * sigmoid(linear(x)).")
_MARK = zp.StemSpec(
    name="mark",
    target=f"{_HERE}.parts:Mark",
    config=f"{_HERE}.config:StemConfig",
    summary="One vector per symbol.",
    accepts="ids",
    returns="tokens",
    cost=90,
)
_STRIDES = replace(
    _MARK,
    name="strides",
    target=f"{_HERE}.parts:Strides",
    config=f"{_HERE}.config:StridesConfig",
    summary="Several steps of a series a token.",
    accepts="series",
)
_TALLY = zp.HeadSpec(
    name="tally",
    target=f"{_HERE}.parts:Tally",
    summary="The mean of the tokens, then classes.",
    accepts="tokens",
    answers="classes",
    cost=90,
)
_ROWS = zp.DatasetSpec(
    name="rows",
    target=f"{_HERE}.data:rows",
    summary="Rows of four numbers: which of the first three is largest?",
    inputs=zp.Vector(features=4),
    targets=zp.Classes(count=3),
    licence="none needed",
    source="generated",
    examples="40 / 40 / 40 rows",
    baseline="accuracy 1/3 by chance",
    known_good="accuracy 1",
)
_SCORE = zp.TaskSpec(
    name="score",
    target=f"{_HERE}.data:Classification",
    config=f"{_HERE}.config:ScoreConfig",
    summary="The core's classification under another name.",
    answers="classes",
    monitor="val/accuracy",
    mode="max",
    cost=90,
)
_SCALE = zp.TransformSpec(
    name="scale",
    target=f"{_HERE}.data:scale",
    fold=f"{_HERE}.data:unscale",
    summary="The last weight times a learned factor.",
)
_COUNT = zp.CallbackSpec(
    name="count", target=f"{_HERE}.callbacks:Count", summary="Counts the examples that a run has seen."
)
_DRAW = zp.DecoderSpec(
    name="draw", target=f"{_HERE}.decoders:Draw", summary="By chance, now and then more boldly."
)
HONEST = (_MEAN, _STACK, _SIGHT, _GATE, _MARK, _TALLY, _ROWS, _SCORE, _SCALE, _COUNT, _DRAW)


@dataclass(frozen=True, kw_only=True)
class Saboteur:
    """A component that breaks the promise behind one check.

    check: the check meant for it. also: others that its lie cannot but trip, and why that is no accident.
    """

    check: str
    spec: zp.Spec
    lie: str
    also: tuple[str, ...] = ()


def _saboteur(check: str, honest: zp.Spec, name: str, lie: str, also: str = "", **changes: Any) -> Saboteur:
    """A variant of an honest spec; `target` may be just the name of a class beside the honest one."""
    target = changes.pop("target", honest.target)
    if ":" not in target:
        target = f"{honest.target.partition(':')[0]}:{target}"
    spec = replace(honest, **{"name": name, "target": target, "summary": lie, **changes})
    return Saboteur(check=check, spec=spec, lie=lie, also=tuple(also.split()))


def _mixer(check: str, target: str, lie: str, also: str = "", **changes: Any) -> Saboteur:
    """A saboteur of `Mean` called after its class, held to all that `Mean` claims."""
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in target).strip("_")
    return _saboteur(check, _MEAN, name, lie, also, target=target, **changes)


def _guest(target: str, lie: str) -> Saboteur:
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in target).strip("_")
    return _saboteur("guest", _MEAN, name, lie, target=f"{_HERE}.guests:{target}")


#: Not streaming, and without the honest reference, which would tell on it.
_ALONE: dict[str, Any] = {"streaming": False, "state": "none", "reference": None}

SABOTEURS: tuple[Saboteur, ...] = (
    # what the spec says
    _saboteur(
        "described", _MEAN, "silent", "a parameter without a help text", config=f"{_HERE}.config:SilentConfig"
    ),
    _saboteur(
        "variants", _MEAN, "same_again", "its variant is the same as its defaults", variants=({"bias": True},)
    ),
    _saboteur(
        "variants", _MEAN, "varies_nothing", "a variant of a parameter that it lacks", variants=({"bia": 1},)
    ),
    _saboteur(
        "known_limits",
        _MEAN,
        "excuses",
        "excuses itself from a check that does not exist",
        known_limits={"no_past": "it is hard"},
    ),
    _saboteur(
        "claims_agree",
        _STACK,
        "muddled",
        "does not stream, but says that its state is constant",
        state="constant",
    ),
    _saboteur(
        "config_round_trip",
        _MEAN,
        "growing",
        "its parameters change each time they are read",
        config=f"{_HERE}.config:GrowingConfig",
    ),
    _saboteur(
        "config_frozen",
        _MEAN,
        "thawed",
        "its parameters can be changed after they are checked",
        config=f"{_HERE}.config:ThawedConfig",
    ),
    _saboteur(
        "config_frozen",
        _MEAN,
        "plain_config",
        "its parameters are a dataclass that checks nothing",
        config=f"{_HERE}.config:PlainConfig",
    ),
    # building
    _saboteur(
        "builds",
        _ROWS,
        "missing",
        "its data are not there",
        "data_kinds data_repeats splits_apart",
        target="missing",
    ),
    _saboteur(
        "presets", _STACK, "bad_preset", "one of its presets is not possible", presets={"flat": {"depth": 0}}
    ),
    _saboteur(
        "directions", _MEAN, "two_faced", "always causal, it says, and builds otherwise too", causal="always"
    ),
    _mixer("by_layer", "SameAnywhere", "takes its place in the stack and ignores it", by_layer=True),
    _mixer("same_seed", "DrawsElsewhere", "draws weights from another source of chance than torch's"),
    _mixer("same_seed", "CountsItsCalls", "changes a buffer even when it is only evaluated"),
    _mixer("meta_device", "StaysOnCpu", "makes a buffer on the CPU, wherever it is built"),
    _guest("Reseeds", "sets the seed of everybody's random numbers when it is built"),
    _guest("ReseedsInTraining", "the same when it trains"),
    _guest("SetsThreads", "changes how many threads torch has"),
    _guest("Chatters", "prints"),
    # numbers
    _saboteur(
        "shapes",
        _TALLY,
        "forgets_pre_logits",
        "answers where only the features were asked for",
        target="ForgetsPreLogits",
    ),
    _mixer("longer", "Overlong", "dies of an index error past its last position", **_ALONE),
    _mixer("dtype", "Widens", "gives float32 where it was given bfloat16"),
    _mixer("finite", "Overflows", "exponentials without their maximum taken off", **_ALONE),
    _mixer("autocast", "Cancels", "adds a large number and takes it off again"),
    _mixer("reference", "Fudges", "divides by a little more than its reference does"),
    _mixer("attention_probs", "SeesAllItSays", "says that it looks at later tokens, too"),
    _mixer(
        "exact",
        "NearlySoftmax",
        "softmax attention, scaled by 1/d instead of 1/sqrt(d)",
        exact_when={},
        cost="quadratic",
        **_ALONE,
    ),
    # who sees what
    _mixer("no_future", "PeeksAhead", "adds a little of the next token", **_ALONE),
    _mixer(
        "no_future", "PeeksFar", "calls the whole next token approximate", causality="approximate", **_ALONE
    ),
    _mixer("no_future", "Sorts", "weighs tokens by their rank among all, which no gradient shows", **_ALONE),
    _mixer("no_future", "PeeksInTraining", "normalises over all tokens, in training only"),
    _mixer("no_future", "KnowsTheLength", "divides by the number of all tokens, later ones too", **_ALONE),
    _mixer(
        "no_future",
        "LongPrefix",
        "calls three quarters of the sequence a prefix",
        causality="prefix",
        **_ALONE,
    ),
    _saboteur(
        "no_future", _MARK, "mark_ahead", "a stem that adds a little of the next symbol", target="MarkAhead"
    ),
    _saboteur(
        "no_future",
        _STRIDES,
        "strides_ahead",
        "a stem that makes several steps a token and adds a little of the next",
        target="StridesAhead",
    ),
    _mixer("both_ways", "NeverLooksAhead", "causal whatever it is asked for"),
    _mixer(
        "rows_apart",
        "MixesRows",
        "takes off some of the batch's mean",
        "padding_right padding_left mask_edges",
        **_ALONE,
    ),
    _mixer("rows_apart", "MixesRowsInTraining", "the same, in training only"),
    _saboteur(
        "positions_apart", _GATE, "looks_aside", "adds a little of the position before", target="LooksAside"
    ),
    _saboteur(
        "positions_apart",
        _MARK,
        "mark_behind",
        "says per_token, but adds the symbol before",
        target="MarkBehind",
    ),
    # masks
    _mixer(
        "padding_right", "TrustsTheRight", "forgets the mask where padding is on the right", reference=None
    ),
    _mixer("padding_left", "CountsPadding", "positions count from the first place, padding or not", **_ALONE),
    _mixer("mask_edges", "SpeaksOfNothing", "gives its bias where it has seen no token", reference=None),
    # streams
    _mixer("streams", "Fades", "forgets a little with every step", "streams_on"),
    _mixer("streams_on", "SkimsPrefills", "remembers only the end of a long first step"),
    _mixer("state_pure", "WritesIntoItsState", "changes the state that it was given", "state_rows"),
    _mixer(
        "state_pure",
        "KeepsItToItself",
        "remembers in the module, not in the state",
        "state_rows state_foreign",
    ),
    _mixer("state_rows", "TurnsItsState", "the streams of its state stand last", "state_foreign"),
    _mixer("state_foreign", "TakesAnything", "looks at no state that it is given"),
    _mixer("state_foreign", "LetsOneStandForAll", "one stream's state goes for all of them"),
    _mixer("state_foreign", "SaysNoToItsState", "refuses a state without saying what is wrong"),
    _mixer("state_size", "Hoards", "keeps every token in a state that it calls constant"),
    _mixer("state_size", "KeepsViews", "its state is a view into all that it came from"),
    _mixer(
        "state_size",
        "HidesInABox",
        "its state is an object that no check can look into",
        "state_pure state_rows state_foreign",
    ),
    _mixer(
        "state_pure",
        "HidesInNumpy",
        "changes an array in its state",
        "state_size state_rows state_foreign",
    ),
    # training
    _mixer("gradients", "Idle", "has a parameter that nothing uses"),
    _mixer("gradient_values", "HalfDetached", "half of the values pass no gradient on", reference=None),
    _mixer("loss_falls", "Forgets", "goes back to its first weights whenever it is trained"),
    # storing
    _mixer("state_dict", "HidesNumbers", "random features that no state dict holds", reference=None),
    _mixer("copies", "Unpicklable", "holds a function that pickle cannot name"),
    _saboteur(
        "weights_file",
        _STACK,
        "keeps_extras",
        "its state dict holds something that is no tensor",
        target="KeepsExtras",
    ),
    _saboteur(
        "maps", _SIGHT, "looks_at_the_middle", "leaves out the border of an image", target="LooksAtTheMiddle"
    ),
    # compilers and cost
    _mixer("exports", "AsksItsInputs", "branches on the values of its inputs"),
    _saboteur(
        "exports_whole",
        _STACK,
        "counts_rows",
        "len() fixes the batch size of its graph",
        "exports_onnx",
        target="CountsRows",
    ),
    _saboteur(
        "exports_onnx", _STACK, "beyond_onnx", "an operation that ONNX has no word for", target="BeyondOnnx"
    ),
    _mixer("compiles", "AnotherWhenCompiled", "does something else under torch.compile"),
    _mixer("cost", "SecretlyQuadratic", "an (N, N) product, claimed linear"),
    _mixer("cost", "SecretlyPairwise", "compares all pairs without a product, claimed linear"),
    _mixer("cost", "PairsUpMasks", "compares all pairs of a mask, claimed linear"),
    # data
    _saboteur("data_card", _ROWS, "unlicensed", "states no licence", licence=""),
    _saboteur(
        "data_kinds", _ROWS, "more_classes", "has a class more than it declares", target="more_classes"
    ),
    _saboteur("data_repeats", _ROWS, "never_the_same", "other examples each time", target="never_the_same"),
    _saboteur(
        "splits_apart", _ROWS, "tests_on_train", "its test split is its train split", target="tests_on_train"
    ),
    # tasks
    _saboteur(
        "task_loss",
        _SCORE,
        "nothing_is_nan",
        "0 / 0 where a batch asks nothing",
        target="NothingIsNaN",
        config=f"{_HERE}.config:ScoreConfig",
        answers="next_id",
    ),
    _saboteur(
        "task_no_wait", _SCORE, "waits", "reads how many answers there are in its loss", target="Waits"
    ),
    _saboteur("task_best", _SCORE, "upside_down", "says that the lowest accuracy is best", mode="min"),
    _saboteur(
        "task_sums", _SCORE, "unweighted", "averages over batches, whatever their size", target="Unweighted"
    ),
    _saboteur(
        "task_predicts",
        _SCORE,
        "speaks_in_tensors",
        "predictions that no JSON can hold",
        target="SpeaksInTensors",
    ),
    _saboteur(
        "task_baseline",
        _SCORE,
        "own_baseline",
        "scores the naive answer with a metric of its own",
        target="OwnBaseline",
    ),
    # callbacks
    _saboteur("callback_looks_on", _COUNT, "touches", "changes a weight", target="Touches"),
    _saboteur("callback_logs", _COUNT, "chatters", "logs what is no column of its", target="Chatters"),
    _saboteur("callback_resumes", _COUNT, "starts_over", "has no state to go on from", target="StartsOver"),
    # decoders
    _saboteur("decoder_chooses", _DRAW, "wishful", "chooses what cannot be", target="Wishful"),
    _saboteur("decoder_rows_apart", _DRAW, "gregarious", "draws by the batch's mean", target="Gregarious"),
    _saboteur("decoder_repeats", _DRAW, "forgetful", "changes the state it is given", target="Forgetful"),
    # transforms
    _saboteur("transform_applies", _SCALE, "freezes", "leaves a weight without a gradient", target="freezes"),
    _saboteur(
        "transform_repeats",
        _SCALE,
        "piles_up",
        "applied again, puts a second factor upon the first",
        target="piles_up",
    ),
    _saboteur("transform_saves", _SCALE, "forgets", "draws a factor that is not saved", target="forgets"),
    _saboteur("transform_evaluates", _SCALE, "counts", "evaluation changes a buffer", target="counts"),
    _saboteur("transform_trains", _SCALE, "climbs", "turns gradients uphill", target="climbs"),
    _saboteur(
        "transform_folds",
        _SCALE,
        "folds_away",
        "folding forgets the factor",
        fold=f"{_HERE}.data:forget_factor",
    ),
)


@zp.hookimpl
def zoo_components() -> tuple[zp.Spec, ...]:
    return (*HONEST, *(saboteur.spec for saboteur in SABOTEURS))


def table() -> str:
    """Markdown: what each check has caught, and what else caught it."""
    lines = ["| check | saboteur | what it does | also caught by |", "|---|---|---|---|"]
    lines += [
        f"| `{s.check}` | {s.spec.kind} `{s.spec.name}` | {s.lie} | {', '.join(f'`{c}`' for c in s.also)} |"
        for s in SABOTEURS
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(table(), end="")
