"""Names, presets, hooks and registration on catalogues made for the test."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

import zoo.plugin as zp
from zoo.catalogue import Catalogue, Part, filter_specs
from zoo.specs import BadSpec

Make = Callable[..., types.ModuleType]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(zp.Config):
    """Parameters of the toy model."""

    depth: int = zp.param(2, "layers", at_least=1)
    kind: str = zp.param("plain", "what it claims")

    def claims(self, spec: zp.ModelSpec, catalogue: Catalogue) -> zp.ModelSpec:
        if self.kind == "broken":
            raise AttributeError("a bug of the plugin")
        if self.kind == "refused":
            raise zp.ContractError("these parameters contradict each other")
        return replace(spec, causal="always") if self.kind == "causal" else spec


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An importable package `toy` that holds the config."""
    module = types.ModuleType("toy")
    module.ToyConfig = ToyConfig  # type: ignore[attr-defined]
    module.Net = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy", module)


def model(name: str = "net", **given: Any) -> zp.ModelSpec:
    return zp.ModelSpec(name=name, **{"target": "toy:Net", "config": "toy:ToyConfig", **given})


@pytest.fixture
def two(fresh_catalogue: Catalogue, plugin_module: Make) -> Catalogue:
    """Two plugins that both have a `net`; `kan` alone has `swish`."""
    fresh_catalogue.add(
        plugin_module("toy", specs=[model(), model("swish_net", aliases=("old_net",))]), id="kan"
    )
    fresh_catalogue.add(
        plugin_module("toy", specs=[model(), zp.TaskSpec(name="guess", target="toy:Net", answers="x")]),
        id="foo",
    )
    return fresh_catalogue


def unknown(catalogue: Catalogue, kind: str, name: str) -> str:
    with pytest.raises(zp.ZooError) as caught:
        catalogue.get(kind, name)
    return str(caught.value)


def test_full_and_short_names(two: Catalogue) -> None:
    assert two.get("model", "kan/net").id == "kan/net"
    assert two.get("model", "swish_net").id == "kan/swish_net"
    assert two.get("model", "kan/swish-net").id == "kan/swish_net"
    assert [spec.id for spec in two.specs("model")] == ["foo/net", "kan/net", "kan/swish_net"]
    assert two.has("model", "kan/net") and not two.has("model", "net")


def test_an_ambiguous_short_name_lists_its_owners(two: Catalogue) -> None:
    assert unknown(two, "model", "net") == "model 'net' is ambiguous: write 'foo/net' or 'kan/net'."


def test_an_alias_works_and_warns_once(two: Catalogue) -> None:
    with pytest.warns(FutureWarning, match="'old_net' is now called 'kan/swish_net'"):
        assert two.get("model", "old_net").id == "kan/swish_net"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        two.get("model", "old_net")


def test_unknown_names_suggest(two: Catalogue) -> None:
    assert "Did you mean 'kan/swish_net'" in unknown(two, "model", "kan/swihs_net")
    assert "Did you mean 'swish_net'" in unknown(two, "model", "swishnet")
    assert "There is: foo/net, kan/net, kan/swish_net." in unknown(two, "model", "zzzz")
    assert "There is a model 'kan/swish_net', which is no task." in unknown(two, "task", "swish_net")
    assert "Did you mean 'mixer'" in unknown(two, "mixr", "x")


def test_an_unknown_name_of_a_lost_plugin_says_so(two: Catalogue, plugin_module: Make) -> None:
    two.add(plugin_module("toy", api=99), id="gone")
    message = unknown(two, "model", "gone/net")
    assert message.startswith(
        "unknown model 'gone/net'. Plugin 'gone' is not usable (it speaks plugin API 99"
    )
    assert "Plugin 'gone'" not in unknown(two, "model", "kan/neet")
    assert "Plugin 'gone'" in unknown(two, "model", "anything")


def test_filters_match_full_and_short_names(two: Catalogue) -> None:
    models = two.specs("model")
    assert [s.id for s in filter_specs(models, "kan/*")] == ["kan/net", "kan/swish_net"]
    assert [s.id for s in filter_specs(models, "swish*")] == ["kan/swish_net"]


# -- parts and presets -----------------------------------------------------------------------


def test_parameters_are_laid_over_preset_over_defaults(
    fresh_catalogue: Catalogue, plugin_module: Make
) -> None:
    specs = [
        model(presets={"deep": {"depth": 9, "kind": "causal"}}, revision=3),
        model("short", target="", config=None, base="toy/net", params={"depth": 1}),
    ]
    plugin = fresh_catalogue.add(plugin_module("toy", specs=specs), id="toy")
    assert plugin.problems == []
    part = fresh_catalogue.part
    assert part("model", "net") == Part("model", "toy/net", ToyConfig(), 3)
    assert part("model", "net", preset="deep").config == ToyConfig(depth=9, kind="causal")
    assert part("model", "net", {"depth": 5}, preset="deep").config.depth == 5
    assert part("model", "short").config.depth == 1
    assert fresh_catalogue.get("model", "short").load() is object
    with pytest.raises(zp.ZooError, match=r"no preset 'dep'\. Did you mean 'deep'\?"):
        part("model", "net", preset="dep")
    with pytest.raises(zp.ZooError, match=r"no preset 'deep'\. It has none\."):
        part("model", "short", preset="deep")
    with pytest.raises(zp.ConfigError) as caught:
        part("model", "net", {"depth": 0, "dept": 1})
    assert {problem.path for problem in caught.value.problems} == {"depth", "dept"}


def test_a_component_without_parameters_takes_none(two: Catalogue) -> None:
    assert two.part("task", "guess").config is None
    with pytest.raises(zp.ConfigError, match="x: task 'foo/guess' takes no parameters"):
        two.part("task", "guess", {"x": 1})


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("toy/nett", "unknown model 'toy/nett'. Did you mean 'toy/net'"),
        ("toy/first", "that is a preset itself"),
    ],
)
def test_a_preset_of_nothing_is_left_out(
    fresh_catalogue: Catalogue, plugin_module: Make, base: str, reason: str
) -> None:
    preset = {"target": "", "config": None}
    specs = [
        model(),
        model("second", base=base, **preset),
        model("first", base="toy/net", **preset),
    ]
    plugin = fresh_catalogue.add(plugin_module("toy", specs=specs), id="toy")
    assert [spec.name for spec in plugin.specs] == ["net", "first"]
    assert "model 'second' is left out" in plugin.problems[0] and reason in plugin.problems[0]
    assert "is left out" in unknown(fresh_catalogue, "model", "toy/second")


def test_a_preset_states_no_target(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    plugin = fresh_catalogue.add(plugin_module("toy", specs=[model(base="toy/other")]), id="toy")
    assert "states none" in plugin.problems[0] and not plugin.specs


def test_claims_follow_parameters_and_bugs_are_blamed(two: Catalogue) -> None:
    def claims(kind: str) -> zp.ModelSpec:
        return two.claims(two.part("model", "kan/net", {"kind": kind}))

    assert claims("plain").causal == "optional"
    assert claims("causal").causal == "always"
    with pytest.raises(zp.ContractError, match="contradict"):
        claims("refused")
    with pytest.raises(
        zp.ZooError, match=r"model 'kan/net': claims\(\) of its config failed: AttributeError: a bug"
    ):
        claims("broken")


def test_bad_defaults_do_not_break_the_listing(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    specs = [
        model("bug", target="", config=None, base="toy/net", params={"kind": "broken"}),
        model("typo", target="", config=None, base="toy/net", params={"dept": 1}),
        model("lost", config="toy.nowhere:Config"),
        model(),
    ]
    fresh_catalogue.add(plugin_module("toy", specs=specs), id="toy")
    for spec in fresh_catalogue.specs("model"):
        assert isinstance(spec, zp.ModelSpec)
        assert fresh_catalogue.default_claims(spec).causal == "optional"


# -- registration ----------------------------------------------------------------------------


def test_generators_of_specs_are_exhausted_inside_the_guard(
    fresh_catalogue: Catalogue, plugin_module: Make
) -> None:
    def specs() -> Iterator[zp.Spec]:
        yield model()
        raise RuntimeError("half way")

    plugin = fresh_catalogue.add(plugin_module("toy", zoo_components=specs), id="toy")
    assert (plugin.status, plugin.reason) == ("failed", "RuntimeError: half way")
    assert fresh_catalogue.specs("model") == () and plugin.specs == []
    assert "half way" in plugin.traceback


def test_a_duplicate_and_a_non_spec_leave_their_siblings(
    fresh_catalogue: Catalogue, plugin_module: Make
) -> None:
    specs = [model(), model(target="toy:Other"), "not a spec", model("last")]
    plugin = fresh_catalogue.add(plugin_module("toy", specs=specs), id="toy")
    assert plugin.status == "ok" and [spec.name for spec in plugin.specs] == ["net", "last"]
    assert plugin.problems == [
        "zoo_components returned 'not a spec', which is not a spec",
        "model 'net' is given twice: 'toy:Net' is kept, 'toy:Other' left out",
    ]


def test_a_second_plugin_of_the_same_id_is_a_conflict(two: Catalogue, plugin_module: Make) -> None:
    plugin = two.add(plugin_module("toy", specs=[model("other")]), id="kan", distribution="zoo-kan2")
    assert plugin.status == "conflict" and "taken by kan 0" in plugin.reason
    assert not two.has("model", "kan/other")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "Net"}, "must be lower case"),
        ({"aliases": ("a b",)}, "must be lower case"),
        ({"aliases": "old"}, "expected a list of texts"),
        ({"target": "toy.Net"}, "must read 'package.module:attribute'"),
        ({"target": ""}, "target: is missing"),
        ({"causal": "optionl"}, "Did you mean 'optional'?"),
        ({"revision": 0}, "must be at least 1"),
        ({"min_tokens": "2"}, "expected a whole number"),
    ],
)
def test_a_spec_checks_itself(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec, match=r"ModelSpec\(name='") as caught:
        model(**{"name": "net", **given})
    assert says in str(caught.value)


def test_a_stem_needs_a_config() -> None:
    with pytest.raises(BadSpec, match="a stem needs one"):
        zp.StemSpec(name="s", target="toy:Net", accepts="ids", returns="tokens")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("toy_nowhere:X", "module 'toy_nowhere' does not exist; tell the author"),
        ("toy:Missing", "module 'toy' has no 'Missing'"),
        ("toy_raises:X", "module 'toy_raises' raises ValueError: at import"),
        ("toy_needs:X", "'triton_of_mars' is not installed; the extra 'mars' brings it"),
    ],
)
def test_a_target_that_cannot_be_loaded(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, target: str, says: str
) -> None:
    (tmp_path / "toy_raises.py").write_text("raise ValueError('at import')")
    (tmp_path / "toy_needs.py").write_text("import triton_of_mars")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(zp.ZooError) as caught:
        model(target=target, extras=("mars",)).load()
    assert says in str(caught.value)


# -- hooks -----------------------------------------------------------------------------------


def test_hooks_are_called_plugin_by_plugin(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    fresh_catalogue.add(plugin_module("a", zoo_trainer_options=lambda recipe: {"recipe": recipe}), id="a")
    fresh_catalogue.add(plugin_module("b", zoo_trainer_options=lambda: {}), id="b")
    fresh_catalogue.add(plugin_module("c"), id="c")
    assert fresh_catalogue.call("zoo_trainer_options", recipe=7) == [("a", {"recipe": 7}), ("b", {})]


def test_a_hook_may_refuse_and_may_fail(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    def veto(recipe: Any) -> None:
        raise zp.ZooError("not on my watch")

    def fail(run: Any) -> None:
        raise KeyError("late")

    def leave(recipe: Any) -> None:
        raise SystemExit(3)

    fresh_catalogue.add(
        plugin_module("a", zoo_recipe_ready=veto, zoo_run_finished=fail, zoo_trainer_options=leave), id="a"
    )
    with pytest.raises(zp.ZooError, match=r"^not on my watch$"):
        fresh_catalogue.call("zoo_recipe_ready", recipe=None)
    with pytest.raises(zp.ZooError, match="plugin 'a': its hook zoo_run_finished failed: KeyError: 'late'"):
        fresh_catalogue.call("zoo_run_finished", run=None)
    with pytest.raises(zp.ZooError, match="its hook zoo_trainer_options failed: SystemExit: 3"):
        fresh_catalogue.call("zoo_trainer_options", recipe=None)


def family(**given: Any) -> zp.ModelFamilySpec:
    """A family `lib/*` whose target tells which member was built."""
    shown = {"net18": {"exports": "why"}, "net34": {}}
    same: dict[str, Any] = {
        "target": "toy:build",
        "members": "toy:names",
        "summary": "of lib",
        "shown": shown,
    }
    return zp.ModelFamilySpec(**{**same, **given})


@pytest.fixture
def lib(fresh_catalogue: Catalogue, plugin_module: Make) -> Catalogue:
    module: Any = sys.modules["toy"]
    module.build = lambda config, *, member, width: (member, width)
    module.names = lambda: ("net18", "net34", "net18.small", "net18.large", "tiny")
    fresh_catalogue.add(plugin_module("toy", specs=[family(), model("own")]), id="lib")
    fresh_catalogue.add(plugin_module("toy", specs=[model("net")]), id="foo")
    return fresh_catalogue


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("lib/tiny", "lib/tiny"),
        ("lib/net18", "lib/net18"),
        ("tiny", "lib/tiny"),
        ("net18.small", "lib/net18.small"),
        ("lib/net18.small", "lib/net18.small"),
        ("lib/own", "lib/own"),
    ],
)
def test_a_member_of_a_family_is_found_by_name(lib: Catalogue, name: str, id: str) -> None:
    spec = lib.get("model", name)
    assert (spec.id, lib.part("model", name).id) == (id, id)
    if id != "lib/own":
        assert spec.load()(None, width=8) == (id.partition("/")[2], 8)


def test_members_that_stand_for_the_family_are_gone_through(lib: Catalogue) -> None:
    assert [spec.id for spec in lib.specs("model")] == ["foo/net", "lib/net18", "lib/net34", "lib/own"]
    assert [spec.id for spec in lib.plugins[0].specs] == ["lib/net18", "lib/net34", "lib/own"]
    limits = {name: dict(lib.get("model", name).known_limits) for name in ("net18", "net34", "tiny")}
    assert limits == {"net18": {"exports": "why"}, "net34": {}, "tiny": {}}


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*", ["foo/net", "lib/*", "lib/own"]),
        ("lib/*", ["lib/net18", "lib/net34", "lib/own", "lib/tiny"]),
        ("lib/net*", ["lib/net18", "lib/net34"]),
        ("lib/*.*", ["lib/net18.large", "lib/net18.small"]),
        ("foo/*", ["foo/net"]),
    ],
)
def test_a_family_is_one_row_until_it_is_asked_for(lib: Catalogue, pattern: str, ids: list[str]) -> None:
    assert [spec.id for spec in lib.listed("model", pattern)] == ids
    assert [spec.id for spec in lib.listed("mixer", pattern)] == []


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("lib/*", ["lib/net18", "lib/net34", "lib/own"]),
        ("lib/tiny", ["lib/tiny"]),
        ("lib/t*", ["lib/tiny"]),
        ("lib/*.large", ["lib/net18.large"]),
        ("nothing*", []),
    ],
)
def test_members_that_are_not_shown_match_where_nothing_else_does(
    lib: Catalogue, pattern: str, ids: list[str]
) -> None:
    assert [spec.id for spec in lib.matching("model", pattern)] == ids


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lib/net81", "unknown model 'lib/net81'. Did you mean 'lib/net18'"),
        ("lib/net18.smal", "unknown model 'lib/net18.smal'. Did you mean 'lib/net18.small'"),
        ("tinny", "unknown model 'tinny'. Did you mean 'tiny'?"),
        ("lib/zzzzz", "unknown model 'lib/zzzzz'. To see all of them: zoo list 'lib/*'"),
        (
            "lib/*",
            "'lib/*' is a family of models: write the name of one. To see all of them: zoo list 'lib/*'",
        ),
    ],
)
def test_an_unknown_member_is_answered_with_close_ones(lib: Catalogue, name: str, message: str) -> None:
    with pytest.raises(zp.ZooError) as caught:
        lib.get("model", name)
    assert str(caught.value).startswith(message)


def test_a_family_that_cannot_tell_its_names_costs_nobody_else(lib: Catalogue) -> None:
    module: Any = sys.modules["toy"]

    def broken() -> None:
        raise RuntimeError("not laid out as expected")

    module.names = broken
    assert lib.get("model", "own").id == "lib/own"
    with pytest.raises(zp.ZooError, match=r"unknown model 'nett'\. Did you mean 'net'"):
        lib.get("model", "nett")
    with pytest.raises(
        zp.ZooError, match=r"the names of 'lib/\*' cannot be listed: RuntimeError: not laid out"
    ):
        lib.get("model", "lib/tiny")
    with pytest.raises(zp.ZooError, match="cannot be listed"):
        lib.listed("model", "lib/*")


def test_a_second_family_of_a_plugin_is_left_out(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    both = [family(), family(target="toy:other")]
    plugin = fresh_catalogue.add(plugin_module("toy", specs=both), id="lib")
    assert plugin.problems == ["model '*' is given twice: 'toy:build' is kept, 'toy:other' left out"]
    assert [spec.name for spec in plugin.specs] == ["net18", "net34"]


def test_a_family_is_checked_as_any_spec(fresh_catalogue: Catalogue, plugin_module: Make) -> None:
    with pytest.raises(BadSpec, match="name"):
        family(name="lib")
    with pytest.raises(BadSpec, match="members: must read"):
        family(members="names")
    plugin = fresh_catalogue.add(plugin_module("toy", specs=[family(members="os:listdir")]), id="lib")
    assert plugin.specs == [] and "'os:listdir' lies outside" in plugin.problems[0]
