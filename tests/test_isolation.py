"""Hostile and broken plugins, installed for real: each costs itself and nobody else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FakeSite

GOOD = """
import zoo.plugin as zp
__zoo_api__ = 1
@zp.hookimpl
def zoo_components():
    return (zp.FeedForwardSpec(name="{name}", target="{package}.layers:Layer"),)
"""

HEAD = "import zoo.plugin as zp\n__zoo_api__ = 1\n@zp.hookimpl\n"

# ruff: noqa: E501 (tables of messages)

#: plugin id -> (its module, status, what the reason says)
HOSTILE = {
    "imports": ("import triton_of_mars\n", "failed", "ModuleNotFoundError: No module named 'triton_of_mars'"),
    "syntax": ("def broken(:\n", "failed", "SyntaxError: "),
    "leaves": ("raise SystemExit(3)\n", "failed", "SystemExit: 3"),
    "signature": (HEAD + "def zoo_components(a, b): return ()\n", "failed", "PluginValidationError: "),
    "mistyped": (HEAD + "def zoo_component(): return ()\n", "failed", "unknown hook 'zoo_component'"),
    "number": (HEAD + "def zoo_components(): return 5\n", "failed", "must return an iterable of specs, got 5"),
    "late": (HEAD + "def zoo_components(): raise RuntimeError('in\\nthe hook')\n", "failed", "RuntimeError: in the hook"),
    "leaving": (HEAD + "def zoo_components(): raise SystemExit('bye')\n", "failed", "SystemExit: bye"),
    "bad_spec": (HEAD + "def zoo_components(): return [zp.TaskSpec(name='X', target='a:b', answers='x')]\n", "failed", "TaskSpec(name="),
    "future": ("__zoo_api__ = 99\n", "incompatible", "it speaks plugin API 99, this zoo speaks 1; upgrade archzoo"),
    "silent": ("", "incompatible", "its module states no __zoo_api__"),
    "core": (GOOD.format(name="x", package="zoo_core"), "conflict", "the id 'core' is taken by archzoo"),
    "Capital": (GOOD.format(name="x", package="zoo_Capital"), "failed", "must be lower case"),
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> FakeSite:
    """Every hostile plugin beside three sound ones."""
    site = FakeSite(tmp_path_factory.mktemp("site"))
    for id, (code, _, _) in HOSTILE.items():
        site.plugin(id, code)
    layers = {"layers.py": "Layer = object\n"}
    for id in ("good", "other"):
        site.plugin(id, GOOD.format(name="swirl", package=f"zoo_{id}"), files=layers)
    site.plugin(
        "mixed",
        HEAD
        + """
def zoo_components():
    yield zp.FeedForwardSpec(name="swirl", target="zoo_mixed.layers:Layer")
    yield zp.FeedForwardSpec(name="swirl", target="zoo_mixed.layers:Other")
    yield zp.FeedForwardSpec(name="shell", target="os:system")
    yield zp.FeedForwardSpec(name="theirs", target="zoo_mixed.layers:Layer", config="zoo_good.config:C")
    yield zp.FeedForwardSpec(name="nowhere", target="zoo_mixed.nowhere:Layer")
    yield "swirl"
""",
        files=layers,
    )
    return site


def rows(site: FakeSite, *arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    done = site.run("plugins", "--json", *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    return {
        f"{row['distribution']}": row for row in json.loads(done.stdout) if row["distribution"] != "archzoo"
    }


def test_each_broken_plugin_is_a_row_with_its_reason(site: FakeSite) -> None:
    found = rows(site, "-v")
    for id, (_, status, reason) in HOSTILE.items():
        row = found[f"zoo-{id}"]
        assert (row["id"], row["status"]) == (id, status)
        assert reason in row["reason"] and "\n" not in row["reason"]
        assert row["specs"] == []
        assert ("Traceback" in row["traceback"]) == (status == "failed")


def test_the_others_work_and_stderr_has_one_line_each(site: FakeSite) -> None:
    done = site.run("list", "feed-forwards", "--json")
    assert done.returncode == 0
    ids = [spec["id"] for spec in json.loads(done.stdout)]
    assert {"core/mlp", "good/swirl", "other/swirl", "mixed/swirl", "mixed/nowhere"} <= set(ids)
    assert not {"mixed/shell", "mixed/theirs"} & set(ids)
    lines = done.stderr.splitlines()
    for id in HOSTILE:
        assert (
            sum(line.startswith(f"zoo: plugin {id!r} (zoo-{id} 1.0) did not load: ") for line in lines) == 1
        )
    problems = [line for line in lines if "did not load" not in line]
    assert len(lines) == len(HOSTILE) + len(problems)
    assert problems == [
        "zoo: plugin 'mixed': feed_forward 'shell' is left out: 'os:system' lies outside 'zoo-mixed'",
        "zoo: plugin 'mixed': feed_forward 'theirs' is left out: 'zoo_good.config:C' lies outside 'zoo-mixed'",
        "zoo: plugin 'mixed': zoo_components returned 'swirl', which is not a spec",
        "zoo: plugin 'mixed': feed_forward 'swirl' is given twice: 'zoo_mixed.layers:Layer' is kept, "
        "'zoo_mixed.layers:Other' left out",
    ]


def test_one_plugin_is_shown_whole(site: FakeSite) -> None:
    done = site.run("plugins", "syntax")
    assert done.returncode == 0 and "Traceback" in done.stdout and "def broken(:" in done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("imports/swirl", "Plugin 'imports' failed to load (ModuleNotFoundError: No module named 'triton_of_mars')."),
        ("future/swirl", "Plugin 'future' is not usable (it speaks plugin API 99"),
        ("mixed/shell", "Plugin 'mixed': feed_forward 'shell' is left out"),
        ("swirl", "is ambiguous: write 'good/swirl', 'mixed/swirl' or 'other/swirl'"),
    ],
)  # fmt: skip
def test_an_unknown_name_tells_of_the_plugin_that_was_lost(site: FakeSite, name: str, says: str) -> None:
    done = site.run("show", name, "--kind", "feed_forward")
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and "Traceback" not in done.stderr


def test_without_them_stderr_is_quiet(site: FakeSite) -> None:
    everyone = [id for id in HOSTILE if id != "core"]
    done = site.run("list", environment={"ZOO_NO_PLUGINS": ",".join([*everyone, "zoo-core", "mixed"])})
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(site, ZOO_NO_PLUGINS="*")
    assert {row["status"] for row in found.values()} == {"blocked"}
    assert found["zoo-good"]["reason"] == "blocked by ZOO_NO_PLUGINS=*"


def test_switches_choose_plugins_by_id_or_distribution(site: FakeSite) -> None:
    found = rows(site, "--plugins", "good,zoo-other")
    assert {name for name, row in found.items() if row["status"] == "ok"} == {"zoo-good", "zoo-other"}
    found = rows(site, "--plugins=good", "--no-plugin", "zoo_good")
    assert found["zoo-good"]["status"] == "blocked"
    done = site.run("show", "good/swirl", "--no-plugin=good", "--no-plugin", "mixed")
    assert done.returncode == 2
    assert "Plugin 'good' is blocked by --no-plugin or ZOO_NO_PLUGINS." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (("--plugins", "god"), {}, "--plugins or ZOO_PLUGINS names 'god', which is no installed plugin. Did you mean 'good'?"),
        ((), {"ZOO_NO_PLUGINS": "othr"}, "--no-plugin or ZOO_NO_PLUGINS names 'othr', which is no installed plugin. Did you mean 'other'"),
        (("--no-plugin", "archzoo"), {}, "names 'archzoo', which is no installed plugin"),
        ((), {"ZOO_PLUGINS_STRICT": "1", "ZOO_PLUGINS": "imports"}, "plugin 'imports' (zoo-imports) failed: ModuleNotFoundError"),
        ((), {"ZOO_PLUGINS_STRICT": "1", "ZOO_PLUGINS": "future"}, "plugin 'future' (zoo-future): it speaks plugin API 99"),
        ((), {"ZOO_PLUGINS_STRICT": "1", "ZOO_PLUGINS": "mixed"}, "plugin 'mixed' (zoo-mixed): feed_forward 'shell' is left out"),
    ],
)  # fmt: skip
def test_wrong_switches_and_strictness_are_errors(
    site: FakeSite, arguments: tuple[str, ...], environment: dict[str, str], says: str
) -> None:
    done = site.run("list", *arguments, environment=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and "Traceback" not in done.stderr


def test_the_core_cannot_be_blocked(fake_site: FakeSite) -> None:
    done = fake_site.run("list", "--no-plugin", "core")
    assert done.returncode == 2 and "cannot be blocked" in done.stderr


def test_torch_at_top_level_is_told_on(fake_site: FakeSite) -> None:
    fake_site.plugin("heavy", "import torch\n" + GOOD.format(name="x", package="zoo_heavy"))
    done = fake_site.run("plugins", "--time", "--plugins", "heavy")
    assert done.returncode == 0, done.stderr
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("heavy")]
    assert row[3] == "ok" and float(row[5]) > 10 and row[6] == "torch"


def test_two_distributions_that_claim_one_id(fake_site: FakeSite) -> None:
    for distribution in ("zoo-a", "zoo-b"):
        package = distribution.replace("-", "_")
        code = GOOD.format(name=f"of_{package}", package=package)
        fake_site.plugin("twin", code, distribution=distribution)
    found = rows(fake_site)
    assert (found["zoo-a"]["status"], found["zoo-b"]["status"]) == ("ok", "conflict")
    assert "taken by zoo-a 1.0; uninstall one of the two" in found["zoo-b"]["reason"]
    found = rows(fake_site, "--no-plugin", "zoo-a")
    assert (found["zoo-a"]["status"], found["zoo-b"]["status"]) == ("blocked", "ok")


def test_a_component_whose_parts_break_does_not_break_the_listing(fake_site: FakeSite) -> None:
    fake_site.plugin(
        "odd",
        HEAD
        + """
def zoo_components():
    return (
        zp.ModelSpec(name="no_config", target="zoo_odd.net:Net", config="zoo_odd.nowhere:C"),
        zp.ModelSpec(name="bad_config", target="zoo_odd.net:Net", config="zoo_odd.config:Bad"),
        zp.ModelSpec(name="typo", base="core/transformer", params={"dept": 3}),
        zp.ModelSpec(name="orphan", base="nobody/net"),
    )
""",
        files={"config.py": "raise OSError('disk on fire')\n"},
    )
    done = fake_site.run("list", "models", "odd/*", "--json")
    assert done.returncode == 0
    assert [spec["name"] for spec in json.loads(done.stdout)] == ["bad_config", "no_config", "typo"]
    assert "its base is 'nobody/net': unknown model 'nobody/net'" in done.stderr
    done = fake_site.run("matrix", "--models", "odd/*", "--datasets", "digits", "--json")
    reasons = {cell["model"]: cell["reason"] for cell in json.loads(done.stdout)}
    assert "OSError: disk on fire" in reasons["odd/bad_config"]
    assert "module 'zoo_odd.nowhere' does not exist" in reasons["odd/no_config"]
    assert "Did you mean 'depth'?" in reasons["odd/typo"]
    assert site_is_clean(fake_site.path)


def site_is_clean(path: Path) -> bool:
    """Nothing but what the fixture wrote (and bytecode): these verbs leave no files behind."""
    return {entry.name for entry in path.iterdir()} == {"zoo_odd", "zoo_odd-1.0.dist-info"}


def test_damaged_metadata_costs_that_distribution_alone(fake_site: FakeSite) -> None:
    fake_site.plugin("good", GOOD.format(name="swirl", package="zoo_good"))
    for name, text in {"one": b"[zoo.plugins]\nno value\n", "two": b"\xff\xfe"}.items():
        folder = fake_site.path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_bytes(text)
    done = fake_site.run("list", "feed-forwards")
    assert done.returncode == 0 and "good/swirl" in done.stdout and "core/mlp" in done.stdout
    assert [line.partition(" did not load")[0] for line in done.stderr.splitlines()] == [
        "zoo: plugin 'one' (one 1.0)",
        "zoo: plugin 'two' (two 1.0)",
    ]
    assert "its entry points cannot be read: UnicodeDecodeError" in done.stderr


def test_what_hangs_is_given_up(fake_site: FakeSite) -> None:
    """A slow import, and a hook that never returns and swallows every exception it can."""
    fake_site.plugin("slow", "import time\ntime.sleep(60)\n")
    stubborn = """
def zoo_components():
    while True:
        try:
            while True: pass
        except Exception:
            pass
"""
    fake_site.plugin("stubborn", HEAD + stubborn)
    fake_site.plugin("good", GOOD.format(name="swirl", package="zoo_good"))
    found = rows(fake_site, ZOO_PLUGIN_TIMEOUT="4")
    for id in ("slow", "stubborn"):
        assert found[f"zoo-{id}"]["status"] == "failed"
        assert found[f"zoo-{id}"]["reason"] == "it took longer than 4 s (ZOO_PLUGIN_TIMEOUT)"
    assert found["zoo-good"]["status"] == "ok"
    done = fake_site.run("list", "feed-forwards", environment={"ZOO_PLUGIN_TIMEOUT": "soon"})
    assert done.returncode == 2 and "must be a number of seconds" in done.stderr


def test_what_prints_or_stops_hard_or_is_slow_is_told(fake_site: FakeSite) -> None:
    """A print must not break JSON; some frameworks stop with what is no `Exception`; slowness has its line."""
    fake_site.plugin("chatty", "print('noise')\n" + GOOD.format(name="swirl", package="zoo_chatty"))
    fake_site.plugin(
        "hard", HEAD + "def zoo_components():\n    class Stop(BaseException): pass\n    raise Stop('out')\n"
    )
    fake_site.plugin("slow", "import time\ntime.sleep(0.7)\n" + GOOD.format(name="x", package="zoo_slow"))
    found = rows(fake_site)
    assert found["zoo-chatty"]["status"] == "ok"
    assert (found["zoo-hard"]["status"], found["zoo-hard"]["reason"]) == ("failed", "Stop: out")
    table = fake_site.run("plugins")
    assert re.search(r"slow: takes \d", table.stdout)
    assert "noise" in table.stderr and "noise" not in table.stdout
