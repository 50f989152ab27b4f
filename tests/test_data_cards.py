"""The numbers on the datasets' cards are those one gets."""

import lzma
import math
from collections import Counter, defaultdict

import pytest
import torch

from zoo.baselines import measure
from zoo.catalogue import catalogue
from zoo.data.labels import posterior
from zoo.data.specs import SPECS
from zoo.data.text import sotu_texts
from zoo.kinds import IGNORE, Classes

BY_NAME = {spec.name: spec for spec in SPECS}
each_dataset = pytest.mark.parametrize("name", BY_NAME)


def load(name):
    spec = BY_NAME[name]
    config_class = spec.config_class()
    return spec.load()(config_class() if config_class else None)


@each_dataset
def test_a_card_is_complete(name):
    spec = BY_NAME[name]
    for field in ("summary", "licence", "source", "examples", "baseline", "known_good", "since"):
        assert getattr(spec, field), field
    assert spec.synthetic == (spec.source == "generated")


@each_dataset
def test_sizes(name):
    spec, splits = BY_NAME[name], load(name)
    if name == "sotu_small":
        sizes = [len(text) for text in sotu_texts().values()]
    else:
        sizes = list(splits.sizes.values())
    assert spec.examples.startswith(" / ".join(map(str, sizes)) + " ")


@pytest.mark.parametrize("name", [n for n, s in BY_NAME.items() if isinstance(s.targets, Classes)])
def test_accuracy_of_the_commonest_class(name):
    splits = load(name)
    commonest = splits.train.targets.bincount().argmax()  # the first of equals
    accuracy = (splits.test.targets == commonest).float().mean()
    assert BY_NAME[name].baseline.startswith(f"accuracy {accuracy:.3f} ")


def test_error_of_the_mean():
    splits = load("diabetes")
    mse = ((splits.test.targets - splits.train.targets.mean()) ** 2).mean()
    assert BY_NAME["diabetes"].baseline.startswith(f"mse {mse:.3f} ")
    one = splits.decode(torch.tensor([1.0])) - splits.decode(torch.tensor([0.0]))
    assert f"1 = {one.item():.1f} points" in BY_NAME["diabetes"].examples


@pytest.mark.parametrize("name", ["associative_recall", "passkey", "copy"])
def test_bits_by_chance(name):
    splits = load(name)
    asked, asked_t = (split.targets[split.targets != IGNORE] for split in (splits.train, splits.test))
    counts = asked.bincount(minlength=BY_NAME[name].inputs.vocab).double()
    bits = -(counts / counts.sum()).log2()[asked_t].mean()
    chance = (counts > 0).sum().item()
    assert f"1/{chance} " in BY_NAME[name].baseline and f"{bits:.2f} bits" in BY_NAME[name].baseline
    assert abs(bits - math.log2(chance)) < 0.01


def n_gram_bits(train, test, order, symbols):
    """Bits per symbol of an n-gram model with Witten-Bell interpolation; the first symbol is given."""
    following = defaultdict(Counter)
    for n in range(order):
        for i in range(n, len(train)):
            following[train[i - n : i]][train[i]] += 1
    seen = {context: counts.total() for context, counts in following.items()}
    bits = 0.0
    for i in range(1, len(test)):
        p = 1 / symbols
        for n in range(min(order, i + 1)):
            context = test[i - n : i]
            if context in seen:
                counts = following[context]
                p = (counts.get(test[i], 0) + len(counts) * p) / (seen[context] + len(counts))
        bits -= math.log2(p)
    return bits / (len(test) - 1)


def test_bits_per_character():
    spec, texts = BY_NAME["sotu_small"], sotu_texts()
    train, test = texts["train"], texts["test"]
    counts = Counter(train)
    total = len(train) + spec.inputs.vocab
    unigram = -sum(math.log2((counts[c] + 1) / total) for c in test[1:]) / (len(test) - 1)
    assert spec.baseline.startswith(f"{unigram:.3f} bits per character")
    six = n_gram_bits(train, test, 6, spec.inputs.vocab)
    assert spec.known_good.startswith(f"{six:.3f} bits per character")

    def packed(text):
        return len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    xz = 8 * (packed(train + test) - packed(train)) / len(test)
    assert abs(xz - 2.085) < 0.01 and "2.085 xz" in spec.known_good


def sklearn_data(name):
    splits = load(name)
    return [
        part
        for split in (splits.train, splits.test)
        for part in (split.inputs.flatten(1).double().numpy(), split.targets.numpy())
    ]


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine"])
def test_scores_of_simple_classifiers(name):
    svm = pytest.importorskip("sklearn.svm")
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    x, y, xt, yt = sklearn_data(name)
    known_good = BY_NAME[name].known_good
    models = {
        "SVM": svm.SVC(),
        "logistic regression": LogisticRegression(max_iter=5000),
        "1-nearest neighbour": KNeighborsClassifier(1),
    }
    stated = 0
    for words, model in models.items():
        if words in known_good:
            assert f"{model.fit(x, y).score(xt, yt):.3f} {words}" in known_good
            stated += 1
    assert stated >= 2


def test_scores_of_linear_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    x, y, xt, yt = sklearn_data("diabetes")
    for words, model in {"least squares": linear.LinearRegression(), "ridge": linear.Ridge()}.items():
        model.fit(x, y[:, 0])
        mse = ((model.predict(xt) - yt[:, 0]) ** 2).mean()
        score = model.score(xt, yt[:, 0])
        assert f"{mse:.3f} (R2 {score:.3f}) {words}" in BY_NAME["diabetes"].known_good


def test_scores_on_the_vowels():
    svm = pytest.importorskip("sklearn.svm")
    import numpy as np
    from sklearn.linear_model import RidgeClassifierCV

    splits = load("japanese_vowels")

    def features(split, describe):
        return np.stack([describe(example["input"].double()).numpy() for example in split])

    def mean(x):
        return x.mean(dim=0)

    def resampled(x):
        return torch.nn.functional.interpolate(
            x.T[None], size=15, mode="linear", align_corners=True
        ).flatten()

    ridge = RidgeClassifierCV(alphas=np.logspace(-2, 4, 20))
    for words, model, describe in [
        ("SVM on the mean frame", svm.SVC(), mean),
        ("ridge on 15 resampled frames", ridge, resampled),
    ]:
        model.fit(features(splits.train, describe), splits.train.targets)
        score = model.score(features(splits.test, describe), splits.test.targets)
        assert f"{score:.3f} {words}" in BY_NAME["japanese_vowels"].known_good


def scores_of(name):
    """name of the baseline -> metrics, of those that need no scikit-learn and those that do"""
    return {score.name: score.metrics for score in measure(catalogue(), catalogue().part("dataset", name))}


def test_scores_on_the_digits_with_three_questions():
    pytest.importorskip("sklearn")
    scores, card = scores_of("digits_mtl"), BY_NAME["digits_mtl"]
    names = ("digit/accuracy", "loops/accuracy", "slant/mse")
    naive, linear, trees = (
        [f"{scores[model][name]:.3f}" for name in names] for model in ("majority and mean", "linear", "trees")
    )
    assert card.baseline.startswith(", ".join(f"{n} {v}" for n, v in zip(names, naive, strict=True)))
    assert card.known_good.startswith(", ".join(f"{n} {v}" for n, v in zip(names, linear, strict=True)))
    assert f"; {', '.join(trees)} trees" in card.known_good


def test_scores_on_the_alloys():
    pytest.importorskip("sklearn")
    scores, card = scores_of("hea_strength"), BY_NAME["hea_strength"]
    assert card.baseline.startswith(f"mse {scores['mean']['mse']:.3f} ")
    trees = scores["trees"]
    assert card.known_good.startswith(f"mse {trees['mse']:.3f} (R2 {trees['r2']:.3f}) gradient-boosted trees")
    known = [
        (~split.targets.isnan()).sum() for split in vars(load("hea_strength")).values() if split_like(split)
    ]
    assert f"{sum(known).item() / 1400:.1f} are known" in card.examples


def split_like(value):
    return hasattr(value, "targets")


def test_scores_on_the_house():
    pytest.importorskip("sklearn")
    scores, card = scores_of("appliance_energy_small"), BY_NAME["appliance_energy_small"]
    mse = {name: f"{metrics['mse']:.3f}" for name, metrics in scores.items() if metrics}  # none: left out
    assert (
        card.baseline
        == f"mse {mse['last value']} (the last value goes on), {mse['seasonal naive']} (the last day again)"
    )
    assert (
        card.known_good.startswith(f"mse {mse['shared ridge']} ridge")
        and f"{mse['ridge']} ridge" in card.known_good
    )


def test_the_optimum_of_the_noisy_states():
    card, test = BY_NAME["noisy_states"], load("noisy_states").test
    symbols, states = test.inputs.numpy(), test.targets.numpy()
    config = card.config_class()()
    best, causal = (
        (posterior(config, symbols, causal=way).argmax(-1) == states).mean() for way in (False, True)
    )
    assert (
        card.known_good.startswith(f"accuracy {best:.3f} forward-backward")
        and f"{causal:.3f} forward," in card.known_good
    )
    commonest = load("noisy_states").train.targets.flatten().bincount().argmax()
    assert card.baseline.startswith(f"accuracy {(test.targets == commonest).float().mean():.3f} ")


def test_the_naive_answer_to_shapes():
    card, splits = BY_NAME["shapes"], load("shapes")
    task = catalogue().get("task", "core/dense_prediction")
    config = catalogue().part("task", task.id).config
    naive = task.load()(config, targets=card.targets).baseline(splits.train, splits.test)
    assert card.baseline.startswith(
        f"shape/miou {naive['shape/miou']:.3f}, depth/rmse {naive['depth/rmse']:.3f} "
    )


@pytest.mark.slow
def test_simple_models_of_shapes():
    pytest.importorskip("sklearn")
    scores, card = scores_of("shapes"), BY_NAME["shapes"]
    linear, trees = (
        (f"{scores[name]['shape/miou']:.3f}", f"{scores[name]['depth/rmse']:.3f}")
        for name in ("linear", "trees")
    )
    assert card.known_good.startswith(f"shape/miou {linear[0]}, depth/rmse {linear[1]} linear")
    assert f"; {trees[0]}, {trees[1]} trees" in card.known_good
