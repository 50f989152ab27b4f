"""The recall tasks: answerable from the past alone, and from nothing less."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zoo.config import ConfigError
from zoo.data.config import AssociativeRecallConfig, CopyConfig, PasskeyConfig
from zoo.data.recall import ANNOUNCE, ASK, BLANK, DELIMITER, load_associative_recall, load_copy, load_passkey
from zoo.errors import ZooError
from zoo.kinds import IGNORE

TASKS = [
    (load_associative_recall, AssociativeRecallConfig, {}),
    (load_associative_recall, AssociativeRecallConfig, {"length": 4, "pairs": 1, "vocab": 4}),
    (load_associative_recall, AssociativeRecallConfig, {"length": 32, "pairs": 8, "vocab": 17}),
    (load_associative_recall, AssociativeRecallConfig, {"length": 1001, "pairs": 5, "vocab": 200}),
    (load_passkey, PasskeyConfig, {}),
    (load_passkey, PasskeyConfig, {"length": 12, "digits": 5}),
    (load_passkey, PasskeyConfig, {"length": 4, "digits": 1, "vocab": 13}),
    (load_copy, CopyConfig, {}),
    (load_copy, CopyConfig, {"mode": "selective"}),
    (load_copy, CopyConfig, {"mode": "selective", "length": 33}),
    (load_copy, CopyConfig, {"length": 5, "items": 2, "vocab": 4}),
]
each_task = pytest.mark.parametrize(
    ("load", "config_class", "params"),
    TASKS,
    ids=[
        f"{load.__name__[5:]}-{'-'.join(map(str, params.values())) or 'default'}" for load, _, params in TASKS
    ],
)


def answer(load, config, seen):
    """What follows, told from the symbols seen so far (a list), by the rules of the task."""
    if load is load_associative_recall:
        where = [i for i, symbol in enumerate(seen[:-1]) if symbol == seen[-1]]
        return seen[where[0] + 1]
    if load is load_passkey:
        return seen[seen.index(ANNOUNCE) + len(seen) - seen.index(ASK)]
    delimiter = seen.index(DELIMITER)
    return [symbol for symbol in seen[:delimiter] if symbol != BLANK][len(seen) - 1 - delimiter]


def test_evaluation_may_be_longer_than_training():
    config = AssociativeRecallConfig(length=32, eval_length=128, pairs=4, examples=5, eval_examples=3)
    splits = load_associative_recall(config)
    assert [split[0]["input"].shape[0] for split in (splits.train, splits.val, splits.test)] == [32, 128, 128]
    assert config.kinds()[0].length == 128
    (asked,) = {(example["target"] != IGNORE).sum().item() for example in (*splits.train, *splits.test)}
    assert asked == 4


def test_training_may_be_on_sequences_of_many_lengths():
    config = AssociativeRecallConfig(length=32, shortest=16, pairs=4, vocab=20, examples=400, eval_examples=9)
    splits = load_associative_recall(config)
    x, y = splits.train.inputs, splits.train.targets
    assert x.shape == (400, 32) and ((y != IGNORE).sum(1) == 4).all()
    lengths = (torch.arange(1, 33) * (x != BLANK)).amax(1)  # of what is not blank: a little less than all
    assert lengths.min() == 16 and lengths.max() == 32
    assert 22 < lengths.float().mean() < 26
    for example in splits.train:
        symbols, target = example["input"].tolist(), example["target"].tolist()
        for t in (t for t, y in enumerate(target) if y != IGNORE):
            assert target[t] == symbols[t + 1] == answer(load_associative_recall, config, symbols[: t + 1])
    plain = load_associative_recall(replace(config, shortest=None))
    assert torch.equal(splits.test.inputs, plain.test.inputs)


@each_task
def test_the_past_tells_every_answer(load, config_class, params):
    config = config_class(**params, examples=50, eval_examples=5)
    for example in load(config).train:
        symbols, target = example["input"].tolist(), example["target"].tolist()
        for t, y in enumerate(target):
            if y != IGNORE:
                assert y == symbols[t + 1] == answer(load, config, symbols[: t + 1])


@each_task
def test_sequences_fit_their_kinds_and_ask_for_all(load, config_class, params):
    config = config_class(**params, examples=20, eval_examples=5)
    ids, _ = config.kinds()
    splits = load(config)
    assert splits.sizes == {"train": 20, "val": 5, "test": 5}
    x, y = splits.train.inputs, splits.train.targets
    assert x.shape == y.shape == (20, ids.length) and x.min() >= 0 and x.max() < ids.vocab
    wanted = {"pairs": getattr(config, "pairs", 0), "digits": getattr(config, "digits", 0)}
    expected = wanted["pairs"] or wanted["digits"] or config.items
    assert ((y != IGNORE).sum(dim=1) == expected).all()


@pytest.mark.parametrize(
    ("load", "config", "chance"),
    [
        (load_associative_recall, AssociativeRecallConfig(vocab=21, pairs=4, length=32), 1 / 10),
        (load_associative_recall, AssociativeRecallConfig(vocab=21, pairs=4, length=16), 1 / 10),
        (load_passkey, PasskeyConfig(length=24), 1 / 10),
        (load_copy, CopyConfig(length=24, items=6, vocab=12), 1 / 10),
        (load_copy, CopyConfig(length=24, items=6, vocab=12, mode="selective"), 1 / 10),
    ],
)
def test_neither_position_nor_the_symbol_before_gives_the_answer(load, config, chance):
    splits = load(config)
    x, y = splits.train.inputs, splits.train.targets
    xt, yt = splits.test.inputs, splits.test.targets
    for known, known_t in [
        (torch.arange(config.length).expand_as(x), torch.arange(config.length).expand_as(xt)),
        (x, xt),
    ]:
        asked, asked_t = y != IGNORE, yt != IGNORE
        counts = torch.zeros(max(config.length, config.vocab), config.vocab)
        counts.index_put_((known[asked], y[asked]), torch.tensor(1.0), accumulate=True)
        right = counts[known_t[asked_t]].argmax(dim=1) == yt[asked_t]
        assert right.float().mean() < chance + 4 * (chance * (1 - chance) / len(right)) ** 0.5 + 0.01


def test_associative_recall_asks_each_key_once_and_repeats_values():
    config = AssociativeRecallConfig(pairs=10, length=60, vocab=41)
    splits = load_associative_recall(config)
    repeated = 0
    for example in list(splits.test)[:100]:
        x, y = example["input"], example["target"]
        keys = x[(x >= 1) & (x <= config.keys)]
        assert sorted(keys[:10].tolist()) == sorted(keys[10:].tolist()) and len(set(keys.tolist())) == 10
        assert sorted(x[y != IGNORE].tolist()) == sorted(keys[10:].tolist())
        answers = y[y != IGNORE].tolist()
        repeated += len(set(answers)) < len(answers)
    assert repeated > 50  # drawn independently, so that answers do not exclude each other


def test_a_passkey_is_asked_again_in_training_only():
    config = PasskeyConfig(length=60, digits=2, ask_again=0.3, examples=200, eval_examples=50)
    splits, plain = load_passkey(config), load_passkey(replace(config, ask_again=0.0))
    assert torch.equal(splits.test.inputs, plain.test.inputs)
    assert torch.equal(splits.val.targets, plain.val.targets)
    x, y = splits.train.inputs, splits.train.targets
    at = (x == ANNOUNCE).long().argmax(dim=1)
    place = torch.arange(60)
    filler = (place > at[:, None] + 2) & (place < 60 - 3)  # behind the key, before the question
    asked = y != IGNORE
    assert torch.equal(asked & filler, (x == ASK) & filler)
    assert ((x == ASK) & filler).sum() / filler.sum() == pytest.approx(0.3, abs=0.03)
    first = x.gather(1, at[:, None] + 1).expand_as(y)
    assert torch.equal(y[asked & filler], first[asked & filler])
    assert (asked & ~filler).sum() == 2 * 200  # the question at the end, as ever


def test_positions_vary():
    splits = load_associative_recall(AssociativeRecallConfig())
    asked = (splits.train.targets != IGNORE).float().mean(dim=0)
    assert (asked[:16] == 0).all() and (asked[32:-1] > 0.1).all()
    announced = (load_passkey(PasskeyConfig()).train.inputs == ANNOUNCE).float().mean(dim=0)
    assert (announced[:53] > 0).all() and (announced[53:] == 0).all()
    selective = load_copy(CopyConfig(mode="selective")).train.inputs[:, :47]
    assert ((selective != BLANK).float().mean(dim=0) - 16 / 47).abs().max() < 0.05


@each_task
def test_seeds_and_splits_have_streams_of_their_own(load, config_class, params):
    config = config_class(**params, examples=40, eval_examples=40)
    other = config_class(**params, examples=40, eval_examples=40, seed=1)
    one, two = load(config), load(other)
    streams = [s.inputs for splits in (one, two) for s in (splits.train, splits.val, splits.test)]
    for i, a in enumerate(streams):
        assert not any(torch.equal(a, b) for b in streams[:i])
    assert torch.equal(one.train.inputs, load(config).train.inputs)


def test_many_rows_are_drawn_in_pieces():
    from zoo.data.recall import _distinct

    rows = _distinct(3, 3 + 2**21, 4, 5, np.random.default_rng(0))
    assert rows.shape == (5, 4) and rows.min() >= 3
    assert all(len(set(row)) == 4 for row in rows.tolist()) and len({tuple(r) for r in rows.tolist()}) == 5


@pytest.mark.parametrize(
    ("config_class", "params", "field", "message"),
    [
        (AssociativeRecallConfig, {"pairs": 17}, "length", "at least 68 for 17 pairs"),
        (AssociativeRecallConfig, {"pairs": 8, "vocab": 16}, "pairs", "at most 7"),
        (AssociativeRecallConfig, {"shortest": 31}, "shortest", "within 32..64"),
        (AssociativeRecallConfig, {"shortest": 65}, "shortest", "within 32..64"),
        (AssociativeRecallConfig, {"pairs": 0}, "pairs", "at least 1"),
        (AssociativeRecallConfig, {"vocab": 2}, "vocab", "at least 4"),
        (PasskeyConfig, {"eval_length": 11}, "eval_length", "at least 12 for a key of 5 digits"),
        (PasskeyConfig, {"length": 11}, "length", "at least 12 for a key of 5 digits"),
        (PasskeyConfig, {"vocab": 12}, "vocab", "at least 13"),
        (CopyConfig, {"items": 32}, "length", "at least 65 for 32 symbols"),
        (CopyConfig, {"mode": "random"}, "mode", "plain, selective"),
        (CopyConfig, {"examples": 0}, "examples", "at least 1"),
        (CopyConfig, {"seed": -1}, "seed", "at least 0"),
    ],
)
def test_impossible_parameters_name_the_field(config_class, params, field, message):
    with pytest.raises(ConfigError) as error:
        config_class(**params)
    (problem,) = error.value.problems
    assert problem.path == field and message in problem.message


def test_symbols_are_checked():
    encode = load_copy(CopyConfig(examples=1, eval_examples=1)).encode
    assert encode([0, 15]).tolist() == [0, 15] and encode([0, 15]).dtype == torch.int64
    for bad in (16, -1):
        with pytest.raises(ZooError, match=rf"0\.\.15, got {bad}"):
            encode([0, bad])
