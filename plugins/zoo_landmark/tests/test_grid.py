"""Landmarks in a corpus: pieces equal the whole, removing undoes inserting, targets step over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo_landmark.functional import insert_landmarks, remove_landmarks, shift_labels

MARK = 99


@given(count=st.integers(0, 30), every=st.integers(1, 7), cut=st.integers(0, 30))
def test_pieces_of_a_corpus_equal_the_whole_and_removing_undoes_it(count, every, cut):
    tokens = torch.arange(2 * count).view(2, count) % MARK
    joined, is_landmark, kept = insert_landmarks(tokens, MARK, every)
    assert joined.shape == (2, count + count // every) == is_landmark.shape
    assert torch.equal(joined == MARK, is_landmark)
    assert torch.equal(joined[:, kept], tokens)
    assert torch.equal(remove_landmarks(joined, is_landmark), tokens)
    assert all(bool(joined[0, i]) == bool(MARK) for i in range(every, joined.shape[1], every + 1))
    first, rest = tokens[:, :cut], tokens[:, cut:]
    phase = first.shape[1] % every
    pieces = insert_landmarks(first, MARK, every), insert_landmarks(rest, MARK, every, phase)
    assert torch.equal(torch.cat([piece[0] for piece in pieces], 1), joined)


def test_a_landmark_follows_every_block():
    joined, is_landmark, kept = insert_landmarks(torch.tensor([[1, 2, 3, 4, 5, 6, 7]]), MARK, 3, phase=1)
    assert joined.tolist() == [[1, 2, MARK, 3, 4, 5, MARK, 6, 7]]
    assert is_landmark.nonzero()[:, 1].tolist() == [2, 6] and kept.tolist() == [0, 1, 3, 4, 5, 7, 8]


def test_targets_step_over_landmarks_which_are_never_predicted():
    tokens = torch.tensor([[1, 2, MARK, 3, 4, MARK, 5], [MARK, 1, MARK, MARK, 2, 3, MARK]])
    expected = [[2, 3, -100, 4, 5, -100, -100], [-100, 2, -100, -100, 3, -100, -100]]
    assert shift_labels(tokens, MARK).tolist() == expected
    assert shift_labels(tokens, MARK, ignore=-1)[0, -1] == -1


@given(count=st.integers(1, 25), every=st.integers(1, 6))
def test_each_token_of_the_corpus_is_asked_for_once(count, every):
    tokens = torch.arange(1, count + 1)[None]
    joined, is_landmark, _ = insert_landmarks(tokens, MARK, every)
    labels = shift_labels(joined, MARK)
    asked = remove_landmarks(labels, is_landmark)
    assert asked.tolist() == [[*range(2, count + 1), -100]]


def test_features_lose_their_landmarks_too():
    x = torch.randn(2, 5, 3)
    is_landmark = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 0, 1, 0]]).bool()
    kept = remove_landmarks(x, is_landmark)
    assert torch.equal(kept[0], x[0, [0, 2, 3]]) and torch.equal(kept[1], x[1, [1, 2, 4]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda ids: insert_landmarks(ids[0], MARK, 3), r"tokens must be ids \(B, N\)"),
        (lambda ids: insert_landmarks(ids.float(), MARK, 3), "tokens must be ids"),
        (lambda ids: insert_landmarks(ids, MARK, 0), "every must be at least 1"),
        (lambda ids: insert_landmarks(ids, MARK, 3, phase=3), r"phase.* must lie within 0..2, got 3"),
        (lambda ids: insert_landmarks(ids, 2, 3), "tokens hold the landmark's id 2 already"),
        (lambda ids: remove_landmarks(ids, ids > 1), "rows must hold equally many landmarks"),
        (lambda ids: remove_landmarks(ids, ids), "is_landmark must be bool"),
        (lambda ids: remove_landmarks(ids, ids[:1] > 1), "is_landmark must be"),
        (lambda ids: shift_labels(ids[0], MARK), r"tokens must be ids \(B, M\)"),
    ],
)
def test_what_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(torch.tensor([[1, 2, 3], [1, 1, 3]]))
