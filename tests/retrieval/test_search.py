"""Exact search: what blocks and ties may not change."""

import numpy as np
import pytest
import torch
from reference import retrieval as reference

from ucdir.retrieval.search import nearest, top_k


def drawn(count, dim=16, seed=0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def crowded(count, dim=16):
    """Many exact duplicates, far apart."""
    return drawn(7, dim)[torch.arange(count) % 7]


@pytest.mark.parametrize("gallery", [drawn(53, seed=1), crowded(53)])
@pytest.mark.parametrize("k", [1, 5, 53, 1000])
def test_search_is_brute_force(gallery, k):
    queries = drawn(9, seed=2)
    found = nearest(queries, gallery, k)
    expected = [reference.ranking(query, gallery.tolist())[:k] for query in queries.tolist()]
    assert found.rows.tolist() == expected
    values = [
        [reference.cosine(query, gallery[row].tolist()) for row in rows]
        for query, rows in zip(queries.tolist(), expected, strict=True)
    ]
    assert found.similarity.tolist() == [pytest.approx(row, abs=1e-7) for row in values]


@pytest.mark.parametrize("query_block", [1, 4, 100])
@pytest.mark.parametrize("gallery_block", [1, 3, 10, 1000])
def test_blocks_change_nothing(query_block, gallery_block):
    queries, gallery = crowded(11), crowded(41)
    whole = nearest(queries, gallery, 9)
    blocked = nearest(queries, gallery, 9, query_block=query_block, gallery_block=gallery_block)
    assert torch.equal(blocked.rows, whole.rows)
    assert torch.equal(blocked.similarity, whole.similarity)


def test_a_memory_mapped_gallery_gives_the_same(tmp_path):
    gallery = drawn(60)
    np.save(tmp_path / "rows.npy", gallery.numpy())
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found, expected = (nearest(drawn(5, seed=3), source, 4, gallery_block=13) for source in (mapped, gallery))
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.similarity, expected.similarity)


@pytest.mark.parametrize("as_array", [False, True])
def test_candidates_keep_their_gallery_rows(as_array):
    gallery, candidates = drawn(40), torch.tensor([1, 2, 3, 17, 30, 39])
    source = gallery.numpy() if as_array else gallery
    found = nearest(drawn(5, seed=4), source, 4, candidates=candidates, gallery_block=4)
    alone = nearest(drawn(5, seed=4), gallery[candidates], 4)
    assert torch.equal(found.rows, candidates[alone.rows])


def test_every_row_finds_itself_first_with_similarity_one():
    rows = drawn(30)
    found = nearest(rows, rows, 1)
    assert found.rows[:, 0].tolist() == list(range(30))
    assert found.similarity.min() > 1 - 1e-6
    assert found.similarity.max() <= 1


def test_ties_at_the_cut_go_to_the_lowest_columns():
    values, columns = top_k(torch.tensor([[0.5, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]), 2)
    assert columns.tolist() == [[1, 0], [0, 1]]
    assert values.tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_an_empty_gallery_has_no_neighbours():
    assert nearest(drawn(3), drawn(4)[:0], 5).rows.shape == (3, 0)
    assert nearest(drawn(3)[:0], drawn(4), 5).rows.shape[0] == 0


def test_wrong_k_and_dimension_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        nearest(drawn(2), drawn(3), 0)
    with pytest.raises(ValueError, match="differ in dimension"):
        nearest(drawn(2, dim=3), drawn(3, dim=4), 1)
