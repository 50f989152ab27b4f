"""What a spec says about itself, and whether the component builds."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from zoo.catalogue import HEAVY, Plugin
from zoo.config import Config, build
from zoo.errors import ZooError
from zoo.specs import FamilyMemberSpec
from zoo.testing.check import NotApplicable, spelled
from zoo.testing.checks import CHECKS, checks_for
from zoo.testing.measure import CLOSE, difference, require, require_close
from zoo.testing.subject import MAX_TOKENS, Subject, fitting_width, seeded, subject_of


def check_described(subject: Subject) -> None:
    spec = subject.spec
    require(bool(spec.summary.strip()), "the spec has no summary")
    require("\n" not in spec.summary, "the summary must be one line")
    config = spec.config_class()
    fields = dataclasses.fields(config) if config else ()
    silent = [field.name for field in fields if not field.metadata.get("help")]
    require(not silent, f"parameters without a help text: {', '.join(silent)}")


def check_card(subject: Subject) -> None:
    plugin = _plugin_of(subject)
    package = plugin.value.rpartition(".")[0]
    if not package:
        raise NotApplicable("the plugin is one module, not a package with a card")
    found = importlib.util.find_spec(package)
    require(found is not None and found.origin is not None, f"package {package!r} cannot be found")
    card = Path(str(found.origin if found else "")).parent / "README.md"
    require(card.is_file(), f"{package} has no README.md beside its modules: the card of its components")
    text = card.read_text(encoding="utf-8")
    # A family has one card: nobody writes one for each of a thousand members.
    name = "/*" if isinstance(subject.spec, FamilyMemberSpec) else subject.spec.name
    require(name in text, f"the card README.md of {package} does not name {name!r}")


def check_known_limits(subject: Subject) -> None:
    names = {check.name for check in CHECKS}
    applying = {check.name for check in checks_for(subject.spec, subject.catalogue)}
    for name, reason in subject.spec.known_limits.items():
        require(name in names, f"known limit {name!r} is no check; there is: {', '.join(sorted(names))}")
        require(name in applying, f"known limit {name!r} is a check that this component is not held to")
        require(bool(reason.strip()), f"known limit {name!r} gives no reason")
    kind = getattr(subject.claims, "causality", "strict")
    require(
        "no_future" not in subject.spec.known_limits
        or getattr(subject.claims, "causal", "never") == "never"
        or kind != "strict",
        'no known limit excuses no_future in what claims to be causal: claim causal="never" or '
        'causality="approximate"',
    )


def check_claims_agree(subject: Subject) -> None:
    claims = subject.claims
    require(
        claims.streaming == (claims.state != "none"),
        f"streaming={claims.streaming} and state={claims.state!r} contradict each other",
    )
    require(
        not claims.streaming or claims.causal != "never",
        "streaming=True and causal='never' contradict each other: a stream does not see the future",
    )
    require(
        claims.causal != "never" or claims.causality == "strict",
        f"causality={claims.causality!r} means nothing with causal='never'",
    )
    most = claims.max_tokens
    require(most is None or most >= claims.min_tokens, f"min_tokens={claims.min_tokens} > max_tokens={most}")
    if claims.exact_when is not None:
        subject_of(subject.spec, subject.catalogue, params=claims.exact_when)


def check_torch_free(subject: Subject) -> None:
    plugin = _plugin_of(subject)
    modules = _modules_of(plugin)
    heavy, _, error = _fresh_import(plugin.value, modules)
    require(not error, f"importing {plugin.value} in a fresh Python fails: {error}")
    require(not heavy, f"importing {', '.join(modules)} and calling its hooks loads {', '.join(heavy)}")


def check_imports_in_silence(subject: Subject) -> None:
    plugin = _plugin_of(subject)
    _, said, error = _fresh_import(plugin.value, _modules_of(plugin))
    require(not error, f"importing {plugin.value} in a fresh Python fails: {error}")
    require(not said, f"importing {plugin.value} prints {said[:80]!r}, before every answer of the zoo")


def check_config_frozen(subject: Subject) -> None:
    config = subject.spec.config_class()
    name = subject.spec.config
    require(
        config is not None and issubclass(config, Config),
        f"{name} is no zoo.plugin.Config: its bounds are checked in recipes alone, not in Python",
    )
    frozen = config is not None and config.__dataclass_params__.frozen
    require(
        frozen, f"{name} can be changed after it was checked: write @dataclass(frozen=True, kw_only=True)"
    )


def check_config_round_trip(subject: Subject) -> None:
    _require_round_trip(subject.part.config, "the default parameters")


def check_variants(subject: Subject) -> None:
    seen = [subject.catalogue.part(subject.spec.kind, subject.spec.id).config]
    for params in subject.spec.variants:
        what = f"the variant {spelled(params)}"
        variant = subject_of(subject.spec, subject.catalogue, params=params)
        require(
            variant.config not in seen, f"{what} is the same as {'one' if len(seen) > 1 else 'the defaults'}"
        )
        seen.append(variant.config)
        _require_round_trip(variant.config, what)
        check_builds(variant)


def check_builds(subject: Subject) -> None:
    kind = subject.spec.kind
    if kind == "dataset":
        from zoo.testing.data import load

        load(subject)
    elif kind == "task":
        from zoo.testing.task import task_of

        task_of(subject)
    elif kind == "callback":
        from zoo.testing.callback import callback_of

        callback_of(subject)
    elif kind == "decoder":
        from zoo.testing.decoder import decoder_of

        decoder_of(subject)
    elif kind == "command":
        require(callable(subject.spec.load()), "the target is not callable: command(run, config) -> Answer")
    elif kind == "transform":
        require(callable(subject.spec.load()), "the target is not callable: apply(model, config) -> model")
    else:
        subject.config = subject.part.config  # all layers
        for causal in subject.directions:
            _require_module(subject.build(causal=causal), f"causal={causal}")


def check_presets(subject: Subject) -> None:
    for name in subject.claims.presets:
        part = subject.catalogue.part("model", subject.spec.id, preset=name)
        _require_round_trip(part.config, f"preset {name!r}")
        params = {**subject.spec.params, **subject.claims.presets[name]}  # type: ignore[attr-defined]
        preset = subject_of(subject.spec, subject.catalogue, params=params)
        preset.width = fitting_width(part.config)
        with torch.device("meta"):  # a preset may be large
            _require_module(preset.make(causal=preset.directions[-1], max_tokens=64), f"preset {name!r}")


def check_directions(subject: Subject) -> None:
    for causal in (False, True):
        if causal in subject.directions:
            subject.build(causal=causal)
            continue
        try:
            subject.build(causal=causal)
        except (ValueError, ZooError):
            continue
        require(False, f"claims causal={subject.claims.causal!r}, but builds with causal={causal}")


def check_by_layer(subject: Subject) -> None:
    def layer(index: int, depth: int) -> nn.Module:
        with seeded(0):
            return subject.make(
                causal=subject.directions[-1], max_tokens=MAX_TOKENS, layer=index, depth=depth
            )

    x = subject.sample(2, subject.lengths(11)[-1])
    for index, depth in ((0, 1), (0, 2), (1, 2), (6, 7)):
        y = subject.run(layer(index, depth), x)
        require(y.shape == x.shape, f"layer {index} of {depth} gives shape {tuple(y.shape)}")
        require(bool(y.isfinite().all()), f"layer {index} of {depth} gives numbers that are not finite")
    first, last = subject.run(layer(0, 4), x), subject.run(layer(3, 4), x)
    require(difference(last, first) > CLOSE, "claims by_layer, but the last layer does what the first does")


def check_same_seed(subject: Subject) -> None:
    first, second = (subject.build(seed=3, dtype=torch.float32, noise=0.0) for _ in range(2))
    kept = {name: tensor.clone() for name, tensor in _tensors(first).items()}
    for name, tensor in _tensors(second).items():
        require(torch.equal(tensor, kept[name]), f"two modules built with one seed differ in {name}")
    x = subject.sample(2, subject.lengths(7)[-1])
    with seeded(1):
        evaluated = subject.run(first, x)
    with seeded(2):  # whatever evaluation draws is now something else
        require_close(subject.run(first, x), evaluated, 0.0, "evaluating the same inputs again")
        require_close(subject.run(second, x), evaluated, 0.0, "two modules built with one seed")
    for name, tensor in _tensors(first).items():
        require(torch.equal(tensor, kept[name]), f"evaluation changed {name}")
    first.train(), second.train()
    with seeded(5):
        trained = subject.run(first, x)
    with seeded(5):
        require_close(subject.run(second, x), trained, 0.0, "training mode with the same seed")


def check_meta_device(subject: Subject) -> None:
    real = _shapes(subject.build(dtype=torch.float32))
    with torch.device("meta"):
        module = subject.make(causal=subject.directions[-1], max_tokens=160)
    meta = _shapes(module)
    require(
        meta == real,
        f"parameters and buffers differ on the meta device: {sorted(meta.items() ^ real.items())}",
    )
    loaded = [name for name, t in _tensors(module).items() if t.device.type != "meta"]
    require(not loaded, f"built on the meta device, but these are elsewhere: {', '.join(loaded)}")


def _plugin_of(subject: Subject) -> Plugin:
    return next(p for p in subject.catalogue.plugins if p.id == subject.spec.plugin and p.status == "ok")


def _modules_of(plugin: Plugin) -> tuple[str, ...]:
    """What is imported of a plugin before anything is built: its hooks, its components' parameters."""
    return tuple(
        sorted({plugin.value, *(spec.config.partition(":")[0] for spec in plugin.specs if spec.config)})
    )


@functools.cache
def _fresh_import(plugin: str, modules: tuple[str, ...]) -> tuple[tuple[str, ...], str, str]:
    """What a fresh Python has loaded after importing these and calling the hook, what it printed, errors."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"hook = getattr(importlib.import_module({plugin!r}), 'zoo_components', None)\n"
        "_ = hook and list(hook())\n"
        f"print('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode:
        return (), "", (done.stderr.strip().splitlines() or ["no message"])[-1]
    said, _, heavy = done.stdout.rstrip().rpartition("\n")
    return tuple(json.loads(heavy)), said.strip(), ""


def _require_round_trip(config: Any, what: str) -> None:
    if config is None:
        return
    try:
        text = yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config))))
    except TypeError as error:
        require(False, f"{what} are not plain data: {error}")
    again = build(type(config), yaml.safe_load(text))
    names = [field.name for field in dataclasses.fields(config)]
    changed = [name for name in names if getattr(again, name) != getattr(config, name)]
    require(not changed, f"{what}: after YAML these differ: {', '.join(changed)}")


def _require_module(module: Any, what: str) -> None:
    require(isinstance(module, nn.Module), f"{what}: built {type(module).__name__}, expected an nn.Module")


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _tensors(module).items()}
