"""Loops in C: compiled once, rows shared by threads, and never the only way to an answer."""

from __future__ import annotations

import multiprocessing
import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from zoo.layers import native as module
from zoo.layers.native import kernels, loops, obstacle
from zoo.sources import cache_folder

pytestmark = [
    pytest.mark.skipif(module._compiler() is None, reason="no C compiler"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

SOURCE = """
    #include <stdint.h>
    void scale(int64_t first, int64_t last, int64_t width, const REAL *x, const REAL *factors, REAL *out) {
        for (int64_t r = first; r < last; r++)
            for (int64_t i = r * width; i < (r + 1) * width; i++) out[i] = x[i] * (factors ? factors[r] : 2);
    }
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "loops.c"
    path.write_text(textwrap.dedent(SOURCE))
    return path


def scaled(source: Path, dtype: torch.dtype, *, rows: int = 7, with_factors: bool = True) -> bool:
    """Whether rows come out multiplied."""
    found = kernels(source, dtype)
    assert found is not None
    x, factors = torch.randn(rows, 5, dtype=dtype), torch.randn(rows, dtype=dtype)
    out = torch.empty_like(x)
    found.run("scale", rows, 5, x, factors if with_factors else None, out)
    return torch.equal(out, x * factors.unsqueeze(1) if with_factors else 2 * x)


@pytest.mark.parametrize("dtype", module.REALS)
@pytest.mark.parametrize("threads", [1, 2, 9])
def test_all_rows_are_computed_on_any_number_of_threads(source, dtype, threads, monkeypatch):
    monkeypatch.setattr(module, "PER_THREAD", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for rows in (0, 1, 2, 7, 100):
            assert scaled(source, dtype, rows=rows)
        assert scaled(source, dtype, with_factors=False)
    finally:
        torch.set_num_threads(before)


def test_it_is_compiled_once_and_anew_when_it_changes(source):
    assert scaled(source, torch.float32)
    (library,) = (cache_folder() / "kernels").iterdir()
    made = library.stat().st_mtime_ns
    module._compiled.cache_clear()  # as in another process
    assert scaled(source, torch.float32) and library.stat().st_mtime_ns == made
    source.write_text(source.read_text().replace("* (factors", "+ (factors"))
    module._compiled.cache_clear()
    assert not scaled(source, torch.float32)
    assert len(list((cache_folder() / "kernels").iterdir())) == 2


def test_it_includes_headers_beside_it_and_is_compiled_anew_when_they_change(source):
    header = source.with_suffix(".h")
    header.write_text('#include "native.h"\n#define BY *\n')
    source.write_text('#include "loops.h"\n' + source.read_text().replace("* (factors", "BY (factors"))
    assert scaled(source, torch.float64)
    header.write_text("#include <stdint.h>\n#define BY +\n")
    module._compiled.cache_clear()  # as in another process
    assert not scaled(source, torch.float64)


def test_a_source_that_does_not_compile_is_told_and_not_needed(source):
    source.write_text("void scale(REAL {")
    with pytest.warns(UserWarning, match="loops.c cannot be compiled with .*ZOO_KERNELS=0.*error"):
        assert kernels(source, torch.float32) is None
    assert kernels(source, torch.float32) is None  # told once
    assert list((cache_folder() / "kernels").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="loops.c cannot be compiled"):
        assert kernels(source, torch.float32) is None


def test_none_where_there_is_no_compiler_or_none_is_wanted(source, monkeypatch):
    assert kernels(source, torch.float16) is None
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert kernels(source, torch.float32) is None
    monkeypatch.delenv("ZOO_KERNELS")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert kernels(source, torch.float32) is None
    module._compiled.cache_clear()


def test_what_stands_against_them_is_said(source, monkeypatch):
    x = torch.zeros(1)
    assert obstacle(source, x) == "" and loops(source, x.dtype) is kernels(source, x.dtype)
    assert obstacle(source, x.to("meta")) == "needs tensors on CPU, these are on meta"
    assert obstacle(source, x.half()) == module.NEEDED and obstacle(source, x.half(), torch.float32) == ""
    monkeypatch.setenv("ZOO_KERNELS", "0")
    assert obstacle(source, x) == module.NEEDED
    with pytest.raises(RuntimeError, match=r"loops.c needs a C compiler .*not torch.float32"):
        loops(source, x.dtype)


@pytest.mark.parametrize("graphs", [True, False])
def test_graphs_are_an_obstacle_unless_what_calls_them_can_be_captured(source, graphs):
    def ask(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if obstacle(source, x, graphs=graphs) else x + 2

    x = torch.zeros(1)
    assert torch.compile(ask, backend="eager", fullgraph=True)(x) == (2 if graphs else 1)

    class Asking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ask(x)

    assert torch.export.export(Asking(), (x,)).module()(x) == 1 and ask(x) == 2


def test_tensors_that_c_would_read_wrongly_are_refused(source):
    found = kernels(source, torch.float32)
    assert found is not None
    x = torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r"contiguous tensors on CPU, got \(4, 4\) with strides \(1, 4\)"):
        found.run("scale", 4, 4, x.mT, None, x)
    with pytest.raises(ValueError, match="on meta"):
        found.run("scale", 4, 4, x.to("meta"), None, x)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_has_threads_of_its_own(source, monkeypatch):
    monkeypatch.setattr(module, "PER_THREAD", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert scaled(source, torch.float32)
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(source,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def _in_child(source: Path) -> None:
    os._exit(0 if scaled(source, torch.float32) else 1)
