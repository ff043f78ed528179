"""Exact search: the answer of brute force in float64, whatever the blocks, the ties and the order of the gallery."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import retrieval as reference

from ucdir.retrieval.exact_search import SAMPLE_ROWS, are_unit, exact_rows, margin, nearest


def drawn(count, dim=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def crowded(count, dim=16):
    """Many exact duplicates, far apart."""
    return drawn(7, dim)[np.arange(count) % 7]


def near_ties(count, dim=16):
    """Cosines that differ by less than float32 can tell."""
    rows = drawn(1, dim) + np.float32(1e-6) * drawn(count, dim, seed=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rising(count, dim=16):
    """Sorted so that each row is nearer to the first query of `drawn(.., seed=2)` than all before."""
    rows = drawn(count, dim, seed=1)
    return rows[np.argsort(rows @ drawn(1, dim, seed=2)[0])]


def brute_force(queries, gallery, k):
    """All float64 cosines of the exact rows, sorted whole."""
    similarity = exact_rows(queries) @ exact_rows(gallery).T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(similarity, rows, axis=1).clip(-1, 1)


def assert_exact(found, queries, gallery, k):
    rows, similarity = brute_force(queries, gallery, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.similarity, similarity)
    assert found.rows.dtype == np.int64
    assert found.similarity.dtype == np.float64


@pytest.mark.parametrize("gallery", [drawn(53, seed=1), crowded(53)])
@pytest.mark.parametrize("k", [1, 5, 53, 1000])
def test_search_is_that_of_plain_loops(gallery, k):
    queries = drawn(9, seed=2)
    found = nearest(queries, gallery, k)
    expected = [reference.ranking(query, gallery.tolist())[:k] for query in queries.tolist()]
    assert found.rows.tolist() == expected
    values = [
        [reference.cosine(query, gallery[row].tolist()) for row in rows]
        for query, rows in zip(queries.tolist(), expected, strict=True)
    ]
    assert found.similarity.tolist() == [pytest.approx(row, abs=1e-7) for row in values]


@pytest.mark.parametrize("make", [drawn, crowded, near_ties, rising])
@pytest.mark.parametrize(("queries", "k"), [(1, 1), (3, 10), (70, 10), (1, 2000), (5, 300)])
def test_large_galleries_give_brute_force(make, queries, k):
    """Large enough for the sampled start, the groups and several blocks."""
    gallery, queries = make(5 * SAMPLE_ROWS), drawn(queries, seed=2)
    assert_exact(nearest(queries, gallery, k, gallery_block=3000), queries, gallery, k)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    queries=st.integers(1, 20),
    dim=st.integers(1, 40),
    k=st.integers(1, 320),
    distinct=st.integers(1, 300),
    query_block=st.integers(1, 30),
    gallery_block=st.integers(1, 310),
)
def test_nothing_changes_the_answer(seed, count, queries, dim, k, distinct, query_block, gallery_block):
    gallery = drawn(distinct, dim, seed)[np.random.default_rng(seed).integers(distinct, size=count)]
    pictures = drawn(queries, dim, seed + 1)
    found = nearest(pictures, gallery, k, query_block=query_block, gallery_block=gallery_block)
    assert_exact(found, pictures, gallery, k)


@pytest.mark.parametrize("query_block", [1, 4, 100])
@pytest.mark.parametrize("gallery_block", [1000, 4999, 10**6])
def test_blocks_change_nothing_in_a_sampled_search(query_block, gallery_block):
    queries, gallery = drawn(11, seed=2), np.concatenate([drawn(3 * SAMPLE_ROWS, seed=1), crowded(2 * SAMPLE_ROWS)])
    found = nearest(queries, gallery, 9, query_block=query_block, gallery_block=gallery_block)
    assert_exact(found, queries, gallery, 9)


def test_a_gallery_of_one_image_repeated_gives_its_first_rows():
    found = nearest(drawn(40, seed=2), np.repeat(drawn(1), 6 * SAMPLE_ROWS, axis=0), 5)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4]] * 40


def test_thousands_of_ties_at_the_cut_go_to_the_lowest_rows():
    gallery = drawn(6 * SAMPLE_ROWS, seed=1)
    alike = np.random.default_rng(0).choice(len(gallery), 5000, replace=False)
    gallery[alike] = drawn(1, seed=5)
    found = nearest(drawn(1, seed=5), gallery, 12)
    assert found.rows[0].tolist() == sorted(alike)[:12]
    assert_exact(found, drawn(1, seed=5), gallery, 12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    queries=st.integers(1, 20),
    k=st.integers(1, 320),
    distinct=st.integers(1, 20),
    query_block=st.integers(1, 30),
    gallery_block=st.integers(1, 310),
)
def test_a_rank_orders_equals_and_nothing_else(seed, count, queries, k, distinct, query_block, gallery_block):
    """With ranks a gallery gives what it gives sorted by them."""
    rng = np.random.default_rng(seed)
    gallery = drawn(distinct, 8, seed)[rng.integers(distinct, size=count)]
    pictures, ranks = drawn(queries, 8, seed + 1), rng.permutation(count)
    order = np.argsort(ranks)
    rows, similarity = brute_force(pictures, gallery[order], k)
    found = nearest(pictures, gallery, k, rank=ranks.__getitem__, query_block=query_block, gallery_block=gallery_block)
    np.testing.assert_array_equal(found.rows, order[rows])
    np.testing.assert_array_equal(found.similarity, similarity)


@pytest.mark.parametrize("k", [1, 12, 3000])
def test_ranks_order_equals_of_a_large_gallery(k):
    """Large enough for the sampled start; thousands of rows are equal at the cut."""
    gallery = drawn(6 * SAMPLE_ROWS, seed=1)
    gallery[np.random.default_rng(0).choice(len(gallery), 5000, replace=False)] = drawn(1, seed=5)
    ranks, queries = np.random.default_rng(1).permutation(len(gallery)), np.concatenate([drawn(1, seed=5), drawn(2, seed=6)])
    order = np.argsort(ranks)
    found = nearest(queries, gallery, k, rank=ranks.__getitem__)
    np.testing.assert_array_equal(found.rows, order[brute_force(queries, gallery[order], k)[0]])


def test_a_rank_is_asked_only_where_there_are_equals():
    def rank(rows):
        raise AssertionError("no two rows are equal")

    queries, gallery = drawn(3, seed=2), drawn(5 * SAMPLE_ROWS, seed=1)
    np.testing.assert_array_equal(nearest(queries, gallery, 9, rank=rank).rows, nearest(queries, gallery, 9).rows)


@pytest.mark.parametrize("dim", [1, 2, 2048])
def test_any_dimension(dim):
    queries, gallery = drawn(3, dim, seed=2), drawn(500, dim, seed=1)
    assert_exact(nearest(queries, gallery, 20), queries, gallery, 20)


def test_one_row_and_no_row():
    assert nearest(drawn(3), drawn(1, seed=1), 5).rows.tolist() == [[0], [0], [0]]
    assert nearest(drawn(3), drawn(4)[:0], 5).rows.shape == (3, 0)
    assert nearest(drawn(3)[:0], drawn(4), 3).rows.shape == (0, 3)


@pytest.mark.parametrize("queries", [drawn(5, seed=3), drawn(5, seed=3).astype(np.float64) * 1e-3])
@pytest.mark.parametrize("scale", [1.0, 1.0001, 1e-12, 1e15])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lengths_and_types_of_rows_change_nothing(queries, scale, dtype):
    lengths = np.random.default_rng(0).uniform(1, 2 if scale != 1 else 1, size=(5 * SAMPLE_ROWS, 1))
    gallery = (drawn(5 * SAMPLE_ROWS, seed=1) * lengths * scale).astype(dtype)
    assert_exact(nearest(queries, gallery, 7, gallery_block=4000), queries, gallery, 7)


def test_a_zero_row_is_similar_to_nothing():
    queries, gallery = np.concatenate([np.zeros((1, 16), np.float32), drawn(2)]), drawn(5 * SAMPLE_ROWS, seed=1)
    gallery[100] = 0
    found = nearest(queries, gallery, 4)
    assert found.rows[0].tolist() == [0, 1, 2, 3]
    assert found.similarity[0].tolist() == [0, 0, 0, 0]
    assert_exact(found, queries, gallery, 4)


def test_a_memory_mapped_gallery_gives_the_same(tmp_path):
    gallery = drawn(5 * SAMPLE_ROWS)
    np.save(tmp_path / "rows.npy", gallery)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert_exact(nearest(drawn(5, seed=3), mapped, 4, gallery_block=1300), drawn(5, seed=3), gallery, 4)


@pytest.mark.parametrize("candidates", [[1, 2, 3, 17, 30, 39], [7, 8, 9, 10], [39]])
def test_candidates_keep_their_gallery_rows(candidates):
    gallery, candidates = drawn(40), np.array(candidates)
    found = nearest(drawn(5, seed=4), gallery, 4, candidates=candidates, gallery_block=4)
    rows, similarity = brute_force(drawn(5, seed=4), gallery[candidates], 4)
    np.testing.assert_array_equal(found.rows, candidates[rows])
    np.testing.assert_array_equal(found.similarity, similarity)


def test_many_candidates_are_searched_like_a_gallery_of_their_own():
    gallery, candidates = drawn(12 * SAMPLE_ROWS), np.arange(0, 12 * SAMPLE_ROWS, 2)
    found = nearest(drawn(5, seed=4), gallery, 6, candidates=candidates)
    np.testing.assert_array_equal(found.rows, candidates[brute_force(drawn(5, seed=4), gallery[candidates], 6)[0]])


def test_rows_known_to_be_unit_give_the_same():
    gallery = drawn(5 * SAMPLE_ROWS)
    assert are_unit(gallery)
    assert_exact(nearest(drawn(2, seed=3), gallery, 4, unit=True), drawn(2, seed=3), gallery, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.9])
def test_rows_that_are_not_unit_are_seen(value):
    gallery = drawn(40000)
    gallery[39990, 3] = value
    assert not are_unit(gallery)
    assert not are_unit(drawn(4).astype(np.float64))


def test_every_row_finds_itself_first_with_similarity_one():
    rows = drawn(30)
    found = nearest(rows, rows, 1)
    assert found.rows[:, 0].tolist() == list(range(30))
    assert found.similarity.min() > 1 - 1e-6
    assert found.similarity.max() <= 1


@pytest.mark.parametrize("dim", [1, 3, 128, 2048])
@pytest.mark.parametrize("same_sign", [False, True])
def test_float32_scores_stay_within_the_margin(dim, same_sign):
    """Same signs: no errors cancel. Near it they do come: a margin of a hundredth would be broken."""
    queries, gallery = drawn(40, dim, seed=1), drawn(500, dim, seed=2)
    queries, gallery = (np.abs(queries), np.abs(gallery)) if same_sign else (queries, gallery)
    scores = gallery @ exact_rows(queries).astype(np.float32).T
    error = np.abs(scores.T - exact_rows(queries) @ exact_rows(gallery).T).max()
    assert error <= margin(dim)
    assert margin(dim) <= 2 * (dim + 64) * 2.0**-24


def test_exact_rows_have_the_same_dot_products_in_any_order_of_summation():
    rows = np.concatenate([drawn(200, 77) * 3, np.zeros((1, 77), np.float32), np.full((1, 77), 1e-40, np.float32)])
    unit = rows.astype(np.float64) / np.maximum(np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True), 1e-30)
    np.testing.assert_allclose(exact_rows(rows), unit, rtol=0, atol=2.0**-27)
    order = np.random.default_rng(1).permutation(77)
    exact = exact_rows(rows)
    np.testing.assert_array_equal(exact @ exact.T, exact[:, order] @ exact[:, order].T)


def test_wrong_k_dimension_and_candidates_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        nearest(drawn(2), drawn(3), 0)
    with pytest.raises(ValueError, match="differ in dimension"):
        nearest(drawn(2, dim=3), drawn(3, dim=4), 1)
    for candidates in ([2, 1], [1, 1], [0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="must be rising gallery rows from 0 to 2"):
            nearest(drawn(2), drawn(3), 1, candidates=np.array(candidates))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [50, 6 * SAMPLE_ROWS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(value, count, dtype):
    broken = drawn(count).astype(dtype)
    broken[count - 2, 3] = value
    with pytest.raises(ValueError, match=r"1 of .* embeddings are not finite"):
        nearest(drawn(2), broken, 3)
    with pytest.raises(ValueError, match=r"1 of .* embeddings are not finite"):
        nearest(broken, drawn(4), 3)


def test_searching_imports_no_torch():
    code = "import sys, ucdir.retrieval.exact_search; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
