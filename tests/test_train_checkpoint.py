"""Checkpoints: nothing in one is executed, damage is told in a sentence, writing is whole or not at all."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.runs import Run, open_run
from zoo.training import checkpoint, evaluate, predict, resume, train
from zoo.training.callbacks import Interrupted
from zoo.training.checkpoint import PlainCheckpointIO, read_checkpoint
from zoo.training.lightning import pl


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = {
        "schema": 1,
        "model": {"name": "core/mlp_net", "width": 8, "params": {"depth": 1}},
        "data": {"name": "core/wine"},
        "trainer": {"max_epochs": 2},
        "output": {"dir": str(tmp_path_factory.mktemp("runs"))},
    }
    return train(load_recipe(recipe), quiet=True).run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of a finished run that says it was interrupted."""
    import shutil

    shutil.copytree(finished.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    copy.update(status="interrupted")
    return copy


class Malice:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", ["torch", "plain pickle"])
def test_a_malicious_checkpoint_is_refused_and_nothing_is_executed(run, tmp_path, save):
    trace = tmp_path / "executed"
    poison = read_checkpoint(run.last) | {"malice": Malice(trace)}
    for path in (run.last, run.best):
        if save == "torch":
            torch.save(poison, path)
        else:
            path.write_bytes(pickle.dumps(poison))
    rows = tmp_path / "rows.csv"
    rows.write_text(",".join(["1"] * 13), encoding="utf-8")
    for use in (lambda: resume(run, quiet=True), lambda: evaluate(run), lambda: predict(run, rows)):
        with pytest.raises(ZooError, match=r"refused.*nothing was executed"):
            use()
    assert not trace.exists()
    if save == "plain pickle":  # loaded carelessly, it would have been
        pickle.loads(run.last.read_bytes())
        assert trace.is_dir()


def test_lightning_itself_reads_through_the_same_gate(run, tmp_path):
    """Even where our own reading before it is left out."""
    trace = tmp_path / "executed"
    torch.save(read_checkpoint(run.last) | {"malice": Malice(trace)}, run.last)
    trainer = pl.Trainer(plugins=[PlainCheckpointIO()], logger=False, barebones=True, accelerator="cpu")
    with pytest.raises(ZooError, match="nothing was executed"):
        trainer.strategy.load_checkpoint(run.last, weights_only=False)
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_told_in_a_sentence(run, share):
    whole = run.last.read_bytes()
    for path in (run.last, run.best):
        path.write_bytes(whole[: int(share * len(whole))])
    for use in (lambda: resume(run, quiet=True), lambda: evaluate(run)):
        with pytest.raises(ZooError, match=r"checkpoint '.*\.ckpt' is (damaged or incomplete|refused)"):
            use()


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, {"state_dict": 3}], ids=str)
def test_other_plain_files_are_no_checkpoints(run, content):
    for path in (run.last, run.best):
        torch.save(content, path)
    with pytest.raises(ZooError, match=r"is not a checkpoint of a training run.*to begin .* again, delete"):
        resume(run, quiet=True)


def test_a_checkpoint_of_another_model_is_refused(run):
    checkpoint = read_checkpoint(run.last)
    checkpoint["state_dict"].popitem()
    for path in (run.last, run.best):
        torch.save(checkpoint, path)
    with pytest.raises(ZooError, match="does not fit the model of its run"):
        evaluate(run)
    with pytest.raises(ZooError, match="does not fit the model of its run"):
        resume(run, quiet=True)


def test_a_checkpoint_without_our_notes_is_refused(run):
    checkpoint = read_checkpoint(run.last)
    del checkpoint["zoo"]
    for path in (run.last, run.best):
        torch.save(checkpoint, path)
    with pytest.raises(ZooError, match="not a checkpoint of a zoo run"):
        resume(run, quiet=True)


def test_a_missing_checkpoint_is_named(run):
    run.best.unlink()
    run.last.unlink()
    with pytest.raises(ZooError, match="has no checkpoint"):
        evaluate(run)


def test_writing_that_fails_half_way_leaves_the_old_file(run, monkeypatch):
    before = run.last.read_bytes()

    def half(checkpoint, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        PlainCheckpointIO().save_checkpoint({"a": 1}, run.last)
    assert run.last.read_bytes() == before


@pytest.mark.parametrize("refusal", [Interrupted, OSError])
def test_what_stops_a_save_in_the_middle_is_told_and_not_what_torch_makes_of_it(run, monkeypatch, refusal):
    class Stopped(io.BytesIO):
        writes = 0

        def write(self, data):
            self.writes += 1
            if self.writes == 2:
                raise refusal
            return super().write(data)

    @contextmanager
    def stopped(path):
        yield Stopped()

    monkeypatch.setattr(checkpoint, "replacing", stopped)
    with pytest.raises(ZooError if refusal is OSError else refusal):
        PlainCheckpointIO().save_checkpoint({"a": torch.zeros(100)}, run.last)


def test_checkpoints_hold_plain_data_only(finished):
    def kinds(value):
        yield type(value)
        children = (
            value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        )
        for child in children:
            yield from kinds(child)

    plain = {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    found = set(kinds(read_checkpoint(finished.best)))
    assert {k for k in found if not any(issubclass(k, p) for p in plain)} == set()
