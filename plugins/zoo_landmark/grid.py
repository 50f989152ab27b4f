"""Where landmarks stand: after every so many tokens. B batch, N tokens, M tokens and landmarks.

`block_len` is the number of tokens between two landmarks, l_block in the paper; a block and its landmark take
`block_len + 1` places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_landmark import checks


def places(tokens: int, every: int, phase: int = 0, *, device: torch.device | None = None) -> Tensor:
    """The place of each of the next tokens once landmarks stand after every `every` of them: int64 (N,).

    phase: tokens since the last landmark. A landmark follows the token that completes a block at once.
    """
    at = torch.arange(tokens, device=device)
    return at + (phase + at) // every


def insert_rows(x: Tensor, landmarks: Tensor, every: int, phase: int = 0) -> Tensor:
    """Put rows between the rows of x, after every `every` of them.

    x: (..., N, D); landmarks: (..., (phase + N) // every, D) -> (..., N + (phase + N) // every, D).
    """
    tokens, count = x.shape[-2], landmarks.shape[-2]
    source = torch.empty(tokens + count, dtype=torch.int64, device=x.device)
    is_landmark = torch.ones_like(source, dtype=torch.bool)
    where = places(tokens, every, phase, device=x.device)
    source[where] = torch.arange(tokens, device=x.device)
    is_landmark[where] = False
    source[is_landmark] = torch.arange(tokens, tokens + count, device=x.device)
    return torch.cat((x, landmarks), -2).index_select(-2, source)


def landmark_mask(size: int, block_len: int, *, device: torch.device | None = None) -> Tensor:
    """Which of `size` places hold landmarks in the regular grid that starts with a block: bool (M,)."""
    return torch.arange(size, device=device) % (block_len + 1) == block_len


def insert_landmarks(
    tokens: Tensor, landmark_id: int, every: int, phase: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A landmark after every `every` symbols of a corpus, or of the next piece of one.

    Args:
        tokens: ids (B, N).
        phase: how many symbols came since the last landmark.

    Returns:
        The ids with landmarks (B, M), where the landmarks are, bool (B, M), and the places of the others,
        int64 (N,). Pieces of a corpus, each with its phase, give what the corpus gives as a whole.

    Raises:
        ValueError: `tokens` is not (B, N), it holds the landmark's id already, `every` < 1, or `phase` is not
            in [0, every).
    """
    checks.corpus(tokens, landmark_id, every, phase)
    batch, count = tokens.shape
    fresh = tokens.new_full((batch, (phase + count) // every, 1), landmark_id)
    joined = insert_rows(tokens.unsqueeze(-1), fresh, every, phase).squeeze(-1)
    return joined, joined == landmark_id, places(count, every, phase, device=tokens.device)


def remove_landmarks(x: Tensor, is_landmark: Tensor) -> Tensor:
    """What stands at the other places. x: (B, M, ...), is_landmark: bool (B, M) -> (B, N, ...).

    Raises:
        ValueError: shapes that do not fit, or rows with different numbers of landmarks.
    """
    checks.landmarks(is_landmark, x.shape[:2])
    kept = (~is_landmark).sum(1)
    if len(kept) and bool((kept != kept[0]).any()):
        raise ValueError(
            "rows must hold equally many landmarks to stay one tensor, got "
            f"{is_landmark.sum(1).tolist()} of {is_landmark.shape[1]} places"
        )
    return x[~is_landmark].unflatten(0, (len(x), int(kept[0]) if len(kept) else 0))


def shift_labels(tokens: Tensor, landmark_id: int, ignore: int = -100) -> Tensor:
    """Targets for a corpus with landmarks: the next symbol that is none; `ignore` at landmarks and the end.

    A landmark is never predicted and costs no symbol. tokens: ids (B, M) -> (B, M).

    Raises:
        ValueError: `tokens` is not (B, M).
    """
    if tokens.dim() != 2:
        raise ValueError(f"tokens must be ids (B, M), got {tuple(tokens.shape)}")
    is_landmark = tokens == landmark_id
    size = tokens.shape[1]
    at = torch.arange(size, device=tokens.device).expand_as(tokens)
    # The first place from here on that holds no landmark; `size` where there is none.
    following = at.masked_fill(is_landmark, size).flip(1).cummin(1).values.flip(1)
    following = torch.nn.functional.pad(following[:, 1:], (0, 1), value=size)
    padded = torch.nn.functional.pad(tokens, (0, 1), value=ignore)
    return padded.gather(1, following).masked_fill(is_landmark, ignore)
