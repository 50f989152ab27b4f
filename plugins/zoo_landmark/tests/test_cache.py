"""The cache: what is fetched, where it is put, what is dropped, what stays on the device."""

from __future__ import annotations

import pytest
import torch
from zoo_landmark import LandmarkCache

from zoo.layers import Rotary

SIZE = 4  # three tokens and a landmark


def _blocks(count, *, batch=1, heads=2, width=4, seed=0):
    noise = torch.Generator().manual_seed(seed)
    shape = (batch, heads, count * SIZE, width)
    return [torch.randn(shape, generator=noise, dtype=torch.float64) for _ in range(2)]


def _cache(count, *, top_k=2, batch=1, heads=2, **options):
    cache = LandmarkCache(block_len=3, top_k=top_k, **options)
    if count:
        cache.append(*_blocks(count, batch=batch, heads=heads))
    return cache


def _queries(count=3, *, batch=1, heads=2, width=4):
    noise = torch.Generator().manual_seed(9)
    return torch.randn(batch, heads, count, width, generator=noise, dtype=torch.float64)


def _retrieve(cache, q):
    return cache.retrieve(q, places=torch.arange(q.shape[2]))


def test_each_token_and_head_fetches_the_blocks_whose_landmarks_it_likes_best():
    cache, q = _cache(7), _queries()
    found = _retrieve(cache, q)
    scores = q @ cache.blocks.landmarks.mT
    assert torch.equal(found.chosen, scores.topk(2).indices.sort().values)
    for head in range(2):
        for token in range(3):
            blocks = found.chosen[0, head, token]
            assert torch.equal(found.keys[0, head, token], cache.blocks.keys[0, head, blocks])
            assert torch.equal(found.values[0, head, token], cache.blocks.values[0, head, blocks])


def test_heads_or_tokens_can_share_what_is_fetched():
    q = _queries()
    by_token = _retrieve(_cache(7, select="token"), q)
    assert torch.equal(by_token.chosen[:, 0], by_token.chosen[:, 1])
    by_head = _retrieve(_cache(7, select="head"), q)
    assert by_head.keys.shape[2] == 1  # one set of blocks for all tokens: a third of the traffic
    likes = (q @ _cache(7).blocks.landmarks.mT).softmax(-1)
    assert torch.equal(by_token.chosen[:, 0], likes.amax(1).topk(2).indices.sort().values)
    assert torch.equal(by_head.chosen[:, :, 0], likes.amax(2).topk(2).indices.sort().values)


def test_all_three_choose_alike_for_one_token_in_one_head():
    q = _queries(1, heads=1)
    chosen = [_retrieve(_cache(9, heads=1, select=s), q).chosen for s in ("token_head", "token", "head")]
    assert torch.equal(chosen[0], chosen[1]) and torch.equal(chosen[0], chosen[2])


def test_places_are_stingy():
    cache, q = _cache(7, top_k=3), _queries(40)
    assert cache.start_position() == 4 * SIZE and _cache(3, top_k=3).start_position() == 3 * SIZE
    found = _retrieve(cache, q)
    for chosen, slots in zip(
        found.chosen.flatten(0, 2).tolist(), found.slots.flatten(0, 2).tolist(), strict=True
    ):
        assert slots == [rank + (block >= 4) for rank, block in enumerate(chosen)]
    assert len({tuple(slots) for slots in found.slots.flatten(0, 2).tolist()}) > 2


def test_few_blocks_are_all_there_at_their_true_places():
    cache, q = _cache(2), _queries()
    found = _retrieve(cache, q)
    assert found.keys.shape == (1, 2, 1, 2, SIZE, 4) and found.slots.flatten().tolist() == [0, 1] * 2
    assert _retrieve(_cache(0), q) is None and _retrieve(_cache(5, top_k=0), q) is None
    assert _retrieve(_cache(5, top_k=None), q).keys.shape[3] == 5


def test_of_equal_landmarks_the_most_recent_win():
    """All landmarks are the same in the first layer: which are fetched must not depend on rounding."""
    for dtype in (torch.float32, torch.float64):
        cache = LandmarkCache(block_len=3, top_k=2, turn=Rotary(head_width=4))
        keys, values = (t.to(dtype) for t in _blocks(50))
        keys[:, :, 3::4] = keys[:, :, 3:4]
        cache.append(keys, values)
        q = _queries(200).to(dtype) * 50
        found = cache.retrieve(q, places=torch.arange(200) % 4)
        older = found.chosen[found.chosen < 48]  # the last two stand at other places than the rest
        assert set(older.tolist()) == {46, 47}


def test_the_ring_drops_the_oldest():
    keys, values = _blocks(7)
    cache = LandmarkCache(block_len=3, top_k=2, max_blocks=4)
    for start in range(0, 7 * SIZE, SIZE):
        cache.append(keys[:, :, start : start + SIZE], values[:, :, start : start + SIZE])
    assert len(cache) == 4
    assert torch.equal(cache.blocks.values.flatten(2, 3), values[:, :, 3 * SIZE :])
    at_once = LandmarkCache(block_len=3, top_k=2, max_blocks=4)
    at_once.append(keys, values)
    assert torch.equal(at_once.blocks.keys, cache.blocks.keys)
    assert cache.blocks.keys.untyped_storage().nbytes() == cache.blocks.keys.numel() * 8  # no view of more


def test_with_offload_only_landmarks_stay_on_the_device():
    cache, q = _cache(7, offload="cpu"), _queries()
    plain = _cache(7)
    number = 8
    assert plain.device_bytes() == 2 * 7 * (2 * SIZE + 1) * 4 * number
    assert cache.device_bytes() == 2 * 7 * 4 * number  # n H d
    for one, other in zip(_retrieve(cache, q), _retrieve(plain, q), strict=True):
        assert torch.equal(one, other)


def test_streams_can_be_reordered_saved_and_forgotten():
    cache, q = _cache(7, batch=3), _queries(batch=3)
    before = _retrieve(cache, q)
    other = LandmarkCache(block_len=3, top_k=2)
    other.load_state_dict(cache.state_dict())
    cache.reorder(torch.tensor([2, 2, 0]))
    after = _retrieve(cache, q[[2, 2, 0]])
    assert torch.equal(after.keys, before.keys[[2, 2, 0]])
    assert torch.equal(_retrieve(other, q).keys, before.keys)
    cache.reset()
    assert len(cache) == 0 and cache.state_dict() == {} and cache.device_bytes() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"block_len": 0, "top_k": 1}, "block_len must be at least 1"),
        ({"block_len": 3, "top_k": -1}, "top_k must be at least 0, or None"),
        ({"block_len": 3, "top_k": 4, "max_blocks": 3}, "max_blocks must be at least 1 and at least top_k=4"),
        ({"block_len": 3, "top_k": 1, "select": "heads"}, "select must be one of token_head, token, head"),
        ({"block_len": 3, "top_k": 1, "offload": "disk"}, "offload must be 'cpu' or None, got 'disk'"),
    ],
)
def test_options_that_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LandmarkCache(**options)


def test_tensors_that_do_not_fit_are_refused():
    cache = _cache(3)
    keys, values = _blocks(2)
    with pytest.raises(ValueError, match="whole blocks with their landmarks"):
        cache.append(keys[:, :, :5], values[:, :, :5])
    with pytest.raises(ValueError, match=r"the cache is of \(streams, heads, channels, type\)"):
        cache.append(keys.float(), values.float())
    with pytest.raises(ValueError, match=r"\(1, 2, 4, torch.float64\), but these are \(2, 2, 4"):
        _retrieve(cache, _queries(batch=2))
