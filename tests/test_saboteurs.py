"""The conformance kit catches dishonest components by the checks meant for them; honest ones pass."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo.core
import zoo.plugin as zp
from tests.saboteurs import plugin as saboteurs
from tests.saboteurs.bare import plugin as bare
from tests.saboteurs.heavy import plugin as heavy
from tests.saboteurs.heavy_hook import plugin as heavy_hook
from tests.saboteurs.loud import plugin as loud
from tests.saboteurs.plugin import HONEST, SABOTEURS, Saboteur
from zoo.catalogue import Catalogue
from zoo.cli.main import main
from zoo.errors import UnknownName
from zoo.specs import Spec
from zoo.testing import CHECKS, check_component, checks_for, conformance_cases, run_check

#: Caught by a plugin of its own, not by a component in `SABOTEURS`.
ELSEWHERE = {"card", "imports_in_silence", "torch_free"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    found = Catalogue()
    plugins = {
        "core": zoo.core,
        "sab": saboteurs,
        "heavy": heavy,
        "heavy_hook": heavy_hook,
        "loud": loud,
        "bare": bare,
    }
    for id, module in plugins.items():
        plugin = found.add(module, id=id)
        assert plugin.status == "ok" and not plugin.problems, plugin
    return found


def registered(catalogue: Catalogue, spec: Spec) -> Spec:
    return catalogue.get(spec.kind, f"sab/{spec.name}")


def label(saboteur: Saboteur) -> str:
    return f"{saboteur.check}-{saboteur.spec.name}"


def test_every_check_has_a_saboteur() -> None:
    assert {check.name for check in CHECKS} == {s.check for s in SABOTEURS} | ELSEWHERE


@pytest.mark.parametrize("saboteur", SABOTEURS, ids=label)
def test_saboteur_is_caught_by_the_check_meant_for_it(catalogue: Catalogue, saboteur: Saboteur) -> None:
    spec = registered(catalogue, saboteur.spec)
    check = next(c for c in checks_for(spec, catalogue) if c.name == saboteur.check)
    result = run_check(check, spec, catalogue)
    assert result.outcome == "failed" and result.detail


@pytest.mark.slow
@pytest.mark.parametrize("saboteur", SABOTEURS, ids=label)
def test_saboteur_is_caught_by_nothing_else(catalogue: Catalogue, saboteur: Saboteur) -> None:
    spec = registered(catalogue, saboteur.spec)
    results = [run_check(check, spec, catalogue) for check in checks_for(spec, catalogue)]
    caught = {result.check for result in results if not result.ok}
    assert caught == {saboteur.check, *saboteur.also}, {r.check: r.detail for r in results if not r.ok}


@pytest.mark.parametrize("spec", HONEST, ids=lambda spec: spec.name)
def test_honest_toys_pass_everything(catalogue: Catalogue, spec: Spec) -> None:
    results = check_component(f"sab/{spec.name}", catalogue=catalogue)
    assert len(results) >= 7
    assert {r.check: (r.outcome, r.detail) for r in results if r.outcome != "passed"} == {}


def test_plugin_that_imports_torch_is_caught(catalogue: Catalogue) -> None:
    (result,) = check_component("heavy", catalogue=catalogue, only=["torch_free"])
    assert result.outcome == "failed" and "tests.saboteurs.heavy.plugin and calling" in result.detail


def test_plugin_whose_hook_imports_torch_is_caught(catalogue: Catalogue) -> None:
    (result,) = check_component("heavy_hook", catalogue=catalogue, only=["torch_free"])
    assert result.outcome == "failed" and "calling its hooks loads torch" in result.detail


def test_plugin_that_prints_when_it_is_imported_is_caught(catalogue: Catalogue) -> None:
    (result,) = check_component("loud", catalogue=catalogue, only=["imports_in_silence"])
    assert result.outcome == "failed" and "prints 'Welcome to loud!'" in result.detail
    (result,) = check_component("heavy", catalogue=catalogue, only=["imports_in_silence"])
    assert result.outcome == "passed"


def test_plugin_without_a_card_is_caught(catalogue: Catalogue) -> None:
    (result,) = check_component("bare", catalogue=catalogue, only=["card"])
    assert result.outcome == "failed" and "tests.saboteurs.bare has no README.md" in result.detail


def test_card_must_name_the_component() -> None:
    (result,) = check_component("lim/limited", catalogue=limited("Mean"), only=["card"])
    assert result.outcome == "failed" and "does not name 'limited'" in result.detail


def test_card_of_the_saboteurs_holds_their_table() -> None:
    card = Path(saboteurs.__file__).parent / "README.md"
    assert saboteurs.table() in card.read_text(encoding="utf-8"), "run python -m tests.saboteurs.plugin"


def limited(name: str, limits: dict[str, str] | None = None, **changes: Any) -> Catalogue:
    """A catalogue of one mixer that states known limits."""
    module = types.ModuleType("tests.saboteurs.plugin")
    spec = zp.MixerSpec(
        name="limited",
        target=f"tests.saboteurs.mixers:{name}",
        summary="A mean with limits.",
        known_limits=limits or {},
    )
    spec = replace(spec, **changes)
    module.__zoo_api__ = 1  # type: ignore[attr-defined]
    module.zoo_components = zp.hookimpl(lambda: (spec,), specname="zoo_components")  # type: ignore[attr-defined]
    found = Catalogue()
    assert found.add(module, id="lim").status == "ok"
    return found


def test_a_known_limit_is_an_expected_failure() -> None:
    found = limited("PeeksAhead", {"no_future": "it looks at the next token"})
    (result,) = check_component("lim/limited", catalogue=found, only=["no_future"])
    assert result.outcome == "expected_failure" and result.ok
    assert "changed earlier outputs" in result.detail and "it looks at the next token" in result.detail


def test_a_known_limit_that_passes_is_a_failure() -> None:
    found = limited("Mean", {"no_future": "it looks at the next token"})
    (result,) = check_component("lim/limited", catalogue=found, only=["no_future"])
    assert result.outcome == "unexpected_pass" and not result.ok
    assert "remove the known limit" in result.detail


def test_a_variant_is_held_to_what_its_component_claims() -> None:
    peeks = {"config": "tests.saboteurs.config:MeanConfig", "variants": ({"bias": False},)}
    found = limited("PeeksUnbiased", **peeks)
    own, variant = check_component("lim/limited", catalogue=found, only=["no_future"])
    assert own.ok and own.subject == "lim/limited"
    assert not variant.ok and variant.subject == "lim/limited(bias=False)"
    ids = [param.id for param in conformance_cases("lim", catalogue=found)]
    assert "mixer:lim/limited(bias=False):no_future" in ids
    assert "mixer:lim/limited(bias=False):described" not in ids
    assert len(check_component("lim/limited", catalogue=found, only=["no_future"], params={})) == 1
    stated = limited("PeeksUnbiased", {"no_future": "so be it"}, **peeks)
    (only,) = check_component(
        "lim/limited", catalogue=stated, only=["no_future"]
    )  # a limit is of the defaults
    assert only.outcome == "unexpected_pass"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"no_past": "hard"}, "is no check"),
        ({"streams": "it cannot"}, "not held to"),
        ({"no_future": " "}, "gives no reason"),
        ({"no_future": "it looks at the next token"}, "no known limit excuses no_future"),
    ],
)
def test_known_limits_must_make_sense(limits: dict[str, str], words: str) -> None:
    (result,) = check_component("lim/limited", catalogue=limited("Mean", limits), only=["known_limits"])
    assert result.outcome == "failed" and words in result.detail


@pytest.mark.parametrize(
    ("name", "claims", "outcome"),
    [
        ("PeeksALittle", {"causality": "approximate"}, "passed"),
        ("PeeksALittle", {"causality": "strict"}, "failed"),
        ("PeeksAhead", {"causality": "prefix"}, "failed"),
        ("ShortPrefix", {"causality": "prefix"}, "passed"),
        ("ShortPrefix", {"causality": "strict"}, "failed"),
    ],
)
def test_no_future_follows_the_kind_of_causality(name: str, claims: dict[str, Any], outcome: str) -> None:
    (result,) = check_component("lim/limited", catalogue=limited(name, **claims), only=["no_future"])
    assert result.outcome == outcome, result


@pytest.mark.parametrize("cost", ["linear", "linearithmic", "subquadratic", "quadratic"])
def test_cost_is_an_upper_bound(cost: str) -> None:
    def outcome(name: str) -> str:
        (result,) = check_component("lim/limited", catalogue=limited(name, cost=cost), only=["cost"])
        return result.outcome

    assert outcome("Mean") == "passed"
    assert outcome("SecretlyQuadratic") == ("passed" if cost == "quadratic" else "failed")


@pytest.mark.parametrize("state", ["constant", "window", "logarithmic", "linear"])
def test_state_size_is_an_upper_bound(state: str) -> None:
    def outcome(name: str) -> str:
        found = limited(name, streaming=True, state=state)
        (result,) = check_component("lim/limited", catalogue=found, only=["state_size"])
        return result.outcome

    assert outcome("Mean") == "passed"
    assert outcome("Hoards") == ("passed" if state == "linear" else "failed")


def test_pytest_cases_pass_fail_and_xfail() -> None:
    honest = conformance_cases("lim", catalogue=limited("Mean"), slow=False)
    assert all(param.id.startswith("mixer:lim/limited:") for param in honest)
    by_name = {param.values[0].check.name: param.values[0] for param in honest}
    by_name["no_future"]()
    dishonest = conformance_cases("lim", catalogue=limited("PeeksAhead"), slow=False)
    case = next(param.values[0] for param in dishonest if param.values[0].check.name == "no_future")
    with pytest.raises(pytest.fail.Exception, match="changed earlier outputs"):
        case()
    stated = conformance_cases("lim", catalogue=limited("PeeksAhead", {"no_future": "so be it"}), slow=False)
    case = next(param.values[0] for param in stated if param.values[0].check.name == "no_future")
    with pytest.raises(pytest.xfail.Exception, match="so be it"):
        case()


def test_unknown_names_are_errors(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'mean'"):
        check_component("meen", catalogue=catalogue)
    with pytest.raises(UnknownName, match=r"Did you mean 'no_future'"):
        check_component("sab/mean", catalogue=catalogue, only=["no_futur"])
    with pytest.raises(UnknownName, match="no component and no plugin"):
        conformance_cases("never_installed", catalogue=catalogue)


def test_command_line(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zoo.cli.check.catalogue", lambda: catalogue)
    assert main(["check", "sab/mean", "--only", "no_future", "--only", "builds"]) == 0
    assert "sab/mean" in capsys.readouterr().out
    assert main(["check", "sab/peeks_ahead", "--only", "no_future"]) == 1
    assert "failed: mixer sab/peeks_ahead, no_future: changing" in capsys.readouterr().err
    assert main(["check", "sab/peeks_ahead", "--only", "no_future", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row.pop("seconds") >= 0 and "changed earlier outputs" in row.pop("detail")
    assert row == {
        "check": "no_future",
        "kind": "mixer",
        "component": "sab/peeks_ahead",
        "variant": "",
        "outcome": "failed",
    }
    assert main(["check", "sab/gate"]) == 0
    assert "2 slow checks not run (--slow)" in capsys.readouterr().out
    assert main(["check", "sab/rows", "--list", "--json"]) == 0
    assert "data_kinds" in {row["name"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a name"),
        (["meen"], "Did you mean 'mean'"),
        (["sab/mean", "--only", "no_futur"], "Did you mean 'no_future'"),
        (["sab/mean", "--only", "task_loss"], "is not held to task_loss"),
    ],
)
def test_command_line_mistakes(
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("zoo.cli.check.catalogue", lambda: catalogue)
    assert main(["check", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_component_whose_extra_is_missing_is_skipped() -> None:
    found = limited("Mean", extras=("never",), target="tests.saboteurs.needs_extra:Mean")
    results = check_component("lim/limited", catalogue=found)
    assert {result.outcome for result in results} == {"skipped"}
    assert "the extra 'never' brings it" in results[0].detail


def test_component_whose_module_is_missing_fails_whatever_its_extras() -> None:
    found = limited("Mean", extras=("never",), target="tests.saboteurs.absent:Mean")
    (result,) = check_component("lim/limited", catalogue=found, only=["builds"])
    assert result.outcome == "failed" and "does not exist" in result.detail
