"""Simple models behind one face: fitted on rows of features, they answer as a network would.

B rows, F features, K outputs. scikit-learn is imported only when one of its models is fitted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.kinds import IGNORE, Classes, Forecast, Labels, Questions, TargetKind, Values

#: features (B, F) -> outputs (B, K)
Answer = Callable[[np.ndarray], Tensor]

#: What each model is called, and the kinds of target it can answer.
LINEAR, LOGISTIC, TREES = "ridge", "logistic", "trees"
#: Strengths of regularisation that ridge chooses from by leave-one-out.
ALPHAS = tuple(10.0**exponent for exponent in range(-2, 7))
#: Trees are grown for one output at a time: for more than this it takes too long.
MOST_FORESTS = 64
#: Rounds of boosting, at most and at least, and what is allowed for all: rounds x rows x features x outputs.
ROUNDS, FEWEST_ROUNDS, WORK = 100, 20, 1_000_000_000
#: Steps after which logistic regression is taken as it is.
MOST_STEPS = 500


def models_for(targets: TargetKind) -> tuple[str, ...]:
    """The fitted models that apply to these targets, simplest first."""
    if isinstance(targets, Questions):
        return ("linear", TREES)
    if isinstance(targets, (Classes, Labels)):
        return (LOGISTIC, TREES)
    if isinstance(targets, (Values, Forecast)):
        return (LINEAR, TREES)
    return ()


def rounds_for(cells: int) -> int:
    """Rounds of boosting on so many rows x features x outputs: fewer where they take long."""
    return max(FEWEST_ROUNDS, min(ROUNDS, WORK // max(1, cells)))


def fit(
    name: str, targets: TargetKind, features: np.ndarray, answers: Any, *, rounds: int = ROUNDS
) -> Answer:
    """A model fitted on train. features: (B, F), answers: targets of these rows -> features -> outputs.

    rounds: of boosting, where trees are wanted.
    """
    if isinstance(targets, Questions):
        parts = []
        for question, part in targets.parts.items():
            simple = LOGISTIC if isinstance(part, Classes) else LINEAR
            called = simple if name == "linear" else name
            parts.append(fit(called, part, features, answers[question], rounds=rounds))
        return lambda x: torch.cat([part(x) for part in parts], dim=1)
    if isinstance(targets, (Classes, Labels)):
        known = (answers != IGNORE).numpy()
        return _classifier(name, targets.outputs, features[known], answers.numpy()[known], rounds=rounds)
    return _regressor(name, features, answers.flatten(1).double().numpy(), rounds=rounds)


def _classifier(name: str, count: int, features: np.ndarray, labels: np.ndarray, *, rounds: int) -> Answer:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    model = (
        LogisticRegression(max_iter=MOST_STEPS)
        if name == LOGISTIC
        else HistGradientBoostingClassifier(random_state=0, max_iter=rounds)
    )
    if len(np.unique(labels)) < 2:  # nothing to learn; scikit-learn would refuse
        only = torch.full((1, count), -30.0)
        only[0, labels[:1]] = 0.0
        return lambda x: only.expand(len(x), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: what was reached is scored
        model.fit(features, labels)

    def answer(x: np.ndarray) -> Tensor:
        outputs = np.full((len(x), count), 1e-12)
        outputs[:, model.classes_] = np.maximum(model.predict_proba(x), 1e-12)
        return torch.from_numpy(outputs).log().float()

    return answer


def _regressor(name: str, features: np.ndarray, values: np.ndarray, *, rounds: int) -> Answer:
    """One model per output, on the rows where it was measured; the mean where that is too few.

    Where at least half of the rows are whole, ridge takes these alone, for all outputs at once.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV

    known = ~np.isnan(values)
    entire = known.all(axis=1)
    if name == LINEAR and 2 * entire.sum() >= len(values):
        features, values, known = features[entire], values[entire], known[entire]
    if name == LINEAR and known.all():
        model = RidgeCV(alphas=ALPHAS).fit(features, values)
        return lambda x: torch.from_numpy(model.predict(x).reshape(len(x), -1)).float()
    models: list[Any] = []
    for column in range(values.shape[1]):
        rows = known[:, column]
        if rows.sum() < 3:
            models.append(None)
            continue
        trees = HistGradientBoostingRegressor(random_state=0, max_iter=rounds)
        one = RidgeCV(alphas=ALPHAS) if name == LINEAR else trees
        models.append(one.fit(features[rows], values[rows, column]))

    def answer(x: np.ndarray) -> Tensor:
        columns = [np.zeros(len(x)) if model is None else model.predict(x) for model in models]
        return torch.from_numpy(np.stack(columns, axis=1)).float()

    return answer
