"""Ranking figures against the published implementation, plain loops, and numbers derived by hand."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import retrieval as reference
from torch.testing import assert_close

from ucdir.retrieval import exact_search
from ucdir.scoring.metrics import score

GOLDEN = np.load(Path(__file__).with_name("golden_retrieval.npz"))
KS = (1, 3, 10, 100)


def exact_rows(rows: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(exact_search.exact_rows(rows.numpy()))


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def drawn(seed, queries=23, gallery=31, dim=6, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(count, dim, generator=generator, dtype=dtype) for count in (queries, gallery)]
    ids = [torch.randint(-1, classes, (count,), generator=generator) for count in (queries, gallery)]
    return *rows, *ids


@pytest.mark.parametrize("ks", [(1, 5, 15), (50, 100, 200), (3, 10, 1000)])
@pytest.mark.parametrize("direction", ["AB", "BA"])
def test_capped_precision_is_that_of_the_published_implementation(ks, direction):
    query, gallery = direction
    scores = score(
        golden(f"in.ret.features_{query}"),
        golden(f"in.ret.features_{gallery}"),
        golden(f"in.ret.targets_{query}"),
        golden(f"in.ret.targets_{gallery}"),
        ks,
        resamples=0,
    )
    found = torch.tensor([scores[f"capped P@{k}"].value for k in ks], dtype=torch.float64)
    expected = golden(f"out.ret.k{'_'.join(map(str, ks))}.{query}") / 100
    assert_close(found, expected, rtol=1e-8, atol=0)


def test_cosines_are_those_of_the_published_implementation():
    rows = exact_rows(golden("in.ret.features_A")), exact_rows(golden("in.ret.features_B"))
    assert_close(rows[0] @ rows[1].T, golden("out.ret.cosine"), rtol=0, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_figure_is_that_of_plain_loops(seed):
    rows = drawn(seed)
    scores = score(*rows, KS, resamples=0)
    found = reference.matches(*(part.tolist() for part in rows))
    for k in KS:
        assert scores[f"P@{k}"].value == pytest.approx(reference.precision(found, k), rel=1e-12)
        assert scores[f"capped P@{k}"].value == pytest.approx(reference.capped_precision(found, k), rel=1e-12)
        assert scores[f"mAP@{k}"].value == pytest.approx(reference.mean_average_precision(found, k), rel=1e-12)
        assert scores[f"R@{k}"].value == pytest.approx(reference.recall(found, k), rel=1e-12)
    everything = reference.mean_average_precision(found, len(rows[1]))
    assert scores["mAP@All"].value == pytest.approx(everything, rel=1e-12)


def test_float32_rows_give_the_same_figures():
    rows = drawn(5)
    single = score(rows[0].float(), rows[1].float(), *rows[2:], KS)
    assert [m.value for m in single.metrics] == pytest.approx([m.value for m in score(*rows, KS).metrics], rel=1e-5)


def test_numbers_derived_by_hand():
    # one query at angle 0; the gallery at rising angles, relevant at ranks 1, 3 and 4
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = score(torch.tensor([[1.0, 0.0]]), gallery, torch.tensor([7]), torch.tensor([7, 2, 7, 7, -1]), (2, 4))
    assert scores["P@2"].value == 1 / 2
    assert scores["P@4"].value == 3 / 4
    assert scores["capped P@4"].value == 2 / 3  # among the first three
    assert scores["mAP@2"].value == (1 / 1) / 2
    assert scores["mAP@4"].value == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert scores["R@2"].value == 1 / 3
    assert scores["mAP@All"].value == scores["mAP@4"].value
    assert scores.chance == 3 / 5
    assert scores.ceiling(4) == 3 / 4


def test_a_query_without_relevant_images_is_zero_in_precision_and_outside_the_rest():
    queries = torch.eye(2)
    scores = score(queries, torch.eye(2), torch.tensor([0, 9]), torch.tensor([0, 0]), (1,))
    assert scores.without_relevant == 1
    assert scores["P@1"].value == 1 / 2
    assert scores["capped P@1"].value == scores["mAP@1"].value == 1.0
    assert scores["R@1"].value == 1 / 2
    absent = scores.per_class[1]
    assert (absent.class_id, absent.queries, absent.relevant) == (9, 1, 0)
    values = {metric.name: metric.value for metric in absent.metrics}
    assert values["P@1"] == 0
    assert math.isnan(values["mAP@All"])


def test_queries_without_a_class_are_left_out_and_counted():
    queries, gallery, classes, gallery_classes = drawn(3)
    scores = score(queries, gallery, classes, gallery_classes, (5,))
    kept = classes >= 0
    assert scores.without_class == int((~kept).sum()) > 0
    assert scores.query_rows.tolist() == kept.nonzero()[:, 0].tolist()
    alone = score(queries[kept], gallery, classes[kept], gallery_classes, (5,))
    assert alone.metrics == scores.metrics


def test_without_any_query_or_gallery_image_nothing_counts():
    rows, ids = torch.eye(3), torch.zeros(3, dtype=torch.int64)
    nobody = score(rows, rows, ids - 1, ids, (1,))
    assert nobody.without_class == 3
    assert all(math.isnan(metric.value) and math.isnan(metric.low) for metric in nobody.metrics)
    empty = score(rows, rows[:0], ids, ids[:0], (1,))
    assert empty["P@1"].value == 0
    assert math.isnan(empty["mAP@All"].value)
    assert empty.without_relevant == 3


def test_a_tie_by_hand():
    """One image ahead, relevant; then three equal ones, two of them relevant; then an irrelevant one.

    Orders of the tie are RRI, RIR and IRR: the first two ranks hold 1 + (1 + 1 + 0) / 3 relevant images, the first three
    1 + (2 + 1 + 1) / 3. Precision at relevant ranks sums to 1 + 1 + 1, 1 + 1 + 3 / 4 and 1 + 2 / 3 + 3 / 4, cut after rank 2
    to 1 + 1, 1 + 1 and 1.
    """
    gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]])
    scores = score(torch.tensor([[1.0, 0.0]]), gallery, torch.tensor([7]), torch.tensor([7, 2, 7, 7, 2]), (2, 3, 4))
    assert scores["P@2"].value == pytest.approx((1 + 2 / 3) / 2)
    assert scores["P@3"].value == pytest.approx((1 + 4 / 3) / 3)
    assert scores["P@4"].value == 3 / 4
    assert scores["capped P@4"].value == scores["P@3"].value
    assert scores["R@2"].value == pytest.approx((1 + 2 / 3) / 3)
    assert scores["mAP@2"].value == pytest.approx((2 + 2 + 1) / 3 / 2)
    everything = (3 + (1 + 1 + 3 / 4) + (1 + 2 / 3 + 3 / 4)) / 3 / 3
    assert scores["mAP@All"].value == scores["mAP@4"].value == pytest.approx(everything)


def alone(similarity, relevant, ks):
    """Scores of one query whose gallery has these similarities, whole tenths."""
    tenths = torch.tensor(similarity, dtype=torch.float64) / 10
    gallery = torch.stack([tenths, (1 - tenths.square()).sqrt()], dim=1)
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    return score(query, gallery, torch.tensor([1]), torch.tensor(relevant).long(), ks, resamples=0)


TIES = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(images=TIES)
def test_figures_of_ties_are_means_over_all_orders(images):
    similarity, relevant = map(list, zip(*images, strict=True))
    ties, ks = reference.tied(similarity, relevant), (1, 2, 3, 5, 9)
    scores = alone(similarity, relevant, ks)
    count, last = sum(relevant), len(images)
    for column, k in enumerate(ks):
        mean = partial(reference.mean_over_orders, ties)
        capped = min(k, count)
        assert float(scores.hits[0, column]) == pytest.approx(mean(lambda ranks, k=k: sum(ranks[:k])), rel=1e-12)
        found = mean(lambda ranks, capped=capped: sum(ranks[:capped]))
        assert float(scores.capped_hits[0, column]) == pytest.approx(found, rel=1e-12)
        precision = mean(partial(reference.order_precision, k=k))
        assert float(scores.average_precision[0, column]) == pytest.approx(precision, rel=1e-12)
    everything = reference.mean_over_orders(ties, partial(reference.order_precision, k=last))
    assert float(scores.average_precision[0, -1]) == pytest.approx(everything, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(images=TIES)
def test_the_two_slow_ways_agree(images):
    ties = reference.tied(*map(list, zip(*images, strict=True)))
    for k in range(1, len(images) + 1):
        mean = reference.mean_over_orders(ties, partial(reference.order_precision, k=k))
        assert (reference.average_precision(ties, k) or 0) == pytest.approx(mean, rel=1e-12)


def crowded(queries, gallery, dim, values):
    """Rows of few different values: most cosines are shared by relevant and irrelevant images, zero rows among them."""
    generator = torch.Generator().manual_seed(queries)
    rows = [torch.randint(values, (count, dim), generator=generator).float() for count in (queries, gallery)]
    ids = [torch.randint(3, (count,), generator=generator) for count in (queries, gallery)]
    return *rows, *ids


CROWDED = pytest.mark.parametrize(
    ("queries", "gallery", "dim", "values"), [(9, 200, 3, 2), (30, 60, 2, 3), (5, 150, 40, 2), (7, 1, 3, 2)]
)


@CROWDED
def test_many_equal_cosines_are_scored_as_plain_loops_score_them(queries, gallery, dim, values):
    rows = crowded(queries, gallery, dim, values)
    scores, similarity = score(*rows, KS, resamples=0), exact_rows(rows[0]) @ exact_rows(rows[1]).T
    relevant = rows[2][:, None] == rows[3]
    found = [reference.tied(*pair) for pair in zip(similarity.tolist(), relevant.tolist(), strict=True)]
    hits = torch.tensor([[reference.hits(ties, k) for k in KS] for ties in found], dtype=torch.float64)
    assert_close(scores.hits, hits, rtol=1e-12, atol=1e-12)
    capped = [[reference.hits(ties, min(k, reference.count_relevant(ties))) for k in KS] for ties in found]
    assert_close(scores.capped_hits, torch.tensor(capped, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    precision = [[reference.average_precision(ties, k) or 0 for k in (*KS, gallery)] for ties in found]
    assert_close(scores.average_precision, torch.tensor(precision, dtype=torch.float64), rtol=1e-12, atol=0)


def values_of(scores):
    classes = {f"{entry.class_id} {m.name}": m.value for entry in scores.per_class for m in entry.metrics}
    return {m.name: m.value for m in scores.metrics} | classes


@CROWDED
@pytest.mark.parametrize("order", ["random", "by class", "reversed"])
def test_the_order_of_the_gallery_changes_nothing(queries, gallery, dim, values, order):
    rows = crowded(queries, gallery, dim, values)
    orders = {"by class": rows[3].argsort(stable=True), "reversed": torch.arange(gallery - 1, -1, -1)}
    moved = orders.get(order, torch.randperm(gallery, generator=torch.Generator().manual_seed(1)))
    other = score(rows[0], rows[1][moved], rows[2], rows[3][moved], KS, resamples=0)
    assert values_of(other) == pytest.approx(values_of(score(*rows, KS, resamples=0)), rel=1e-12, nan_ok=True)


@CROWDED
def test_block_size_changes_nothing_in_ties(queries, gallery, dim, values):
    rows = crowded(queries, gallery, dim, values)
    whole, blocked = (score(*rows, KS, resamples=0, block_size=size) for size in (None, 2))
    assert torch.equal(blocked.average_precision, whole.average_precision)
    assert torch.equal(blocked.hits, whole.hits)


def chance_precision(count, relevant):
    """Mean average precision of a random order: (H + (R - 1) / (G - 1) (G - H)) / G with H = 1 + 1 / 2 + ... + 1 / G."""
    harmonic = math.fsum(1 / rank for rank in range(1, count + 1))
    return (harmonic + (relevant - 1) / (count - 1) * (count - harmonic)) / count


def test_an_encoder_of_zeros_scores_chance():
    classes = torch.arange(80) // 20  # sorted by class, as galleries are
    scores = score(torch.zeros(80, 8), torch.zeros(80, 8), classes, classes, (1, 5, 50))
    assert [scores[f"P@{k}"].value for k in (1, 5, 50)] == pytest.approx([0.25] * 3, rel=1e-12)
    assert scores["P@1"].value == pytest.approx(scores.chance, rel=1e-12)
    assert scores["R@50"].value == pytest.approx(50 / 80, rel=1e-12)
    assert scores["mAP@All"].value == pytest.approx(chance_precision(80, 20), rel=1e-12)


def test_one_picture_copied_into_all_class_folders_scores_the_expectation():
    """Each class has one image of its own and three copies of that picture, which are all equal to each other."""
    classes, copies = torch.arange(5), torch.arange(15) // 3
    own = torch.nn.functional.one_hot(classes, 6).double()
    picture = torch.ones(15, 6, dtype=torch.float64)
    scores = score(own, torch.cat([picture, own]), classes, torch.cat([copies, classes]), (1, 4), resamples=0)
    assert scores["P@1"].value == 1
    assert scores["P@4"].value == pytest.approx((1 + 3 * 3 / 15) / 4, rel=1e-12)
    terms = [3 / 15 * (2 + j * 2 / 14) / (j + 2) for j in range(15)]
    assert scores["mAP@All"].value == pytest.approx((1 + math.fsum(terms)) / 4, rel=1e-12)


def test_ties_of_relevant_images_alone_and_of_irrelevant_images_alone_are_whole_numbers():
    gallery = torch.eye(3)[[0, 0, 1, 1, 2]]
    scores = score(torch.tensor([[1.0, 0.5, 0.1]]), gallery, torch.tensor([4]), torch.tensor([4, 4, 0, 1, 4]), (1, 2, 3, 4))
    assert scores.hits.tolist() == [[1, 2, 2, 2]]
    assert scores["mAP@All"].value == (1 + 1 + 3 / 5) / 3


@pytest.mark.parametrize("relevant", [0, 1])
def test_cosines_one_step_of_the_grid_apart_are_no_tie(relevant):
    """2**-52 is the least that two exact cosines can differ by; the better image comes second in the gallery."""
    step = 2.0**-26
    query = torch.tensor([[1.0, step, 0.0]], dtype=torch.float64)
    gallery = torch.tensor([[0.6, 0.0, 0.8], [0.6, step, 0.8]], dtype=torch.float64)
    worse, better = (exact_rows(query) @ exact_rows(gallery).T)[0].tolist()
    assert better - worse == 2.0**-52
    classes = torch.tensor([0, 0])
    classes[relevant] = 1
    assert score(query, gallery, torch.tensor([1]), classes, (1,)).hits.tolist() == [[relevant]]


def test_images_equal_to_the_query_have_the_largest_cosine():
    """On the grid the cosine of an image with itself may exceed 1 by rounding."""
    rows = torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    scores = score(rows, rows, torch.arange(50), torch.arange(50), (1,))
    assert scores["P@1"].value == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads):
    rows = drawn(11, queries=300, gallery=700, dtype=torch.float32)
    expected, before = score(*rows, KS), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = score(*rows, KS)
    finally:
        torch.set_num_threads(before)
    assert found.metrics == expected.metrics
    assert torch.equal(found.average_precision, expected.average_precision)


def test_figures_of_each_class_are_those_of_its_queries_alone():
    queries, gallery, classes, gallery_classes = drawn(12, queries=60)
    scores = score(queries, gallery, classes, gallery_classes, (3,), resamples=0)
    assert [found.class_id for found in scores.per_class] == sorted({c for c in classes.tolist() if c >= 0})
    for found in scores.per_class:
        mine = classes == found.class_id
        alone = score(queries[mine], gallery, classes[mine], gallery_classes, (3,), resamples=0)
        assert (found.queries, found.relevant) == (int(mine.sum()), int((gallery_classes == found.class_id).sum()))
        assert [m.value for m in found.metrics] == pytest.approx([m.value for m in alone.metrics], rel=1e-12)


@pytest.mark.parametrize("block_size", [1, 2, 7, 1000])
def test_block_size_changes_nothing(block_size):
    rows = drawn(4, dim=64, dtype=torch.float32)
    whole, blocked = score(*rows, KS), score(*rows, KS, block_size=block_size)
    assert blocked.metrics == whole.metrics
    assert torch.equal(blocked.average_precision, whole.average_precision)
    assert torch.equal(blocked.hits, whole.hits)


def test_rotation_scale_and_order_of_queries_change_nothing():
    queries, gallery, classes, gallery_classes = drawn(6)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(2))
    plain = score(queries, gallery, classes, gallery_classes, KS)
    turned = score(3 * queries[order] @ rotation, gallery @ rotation, classes[order], gallery_classes, KS)
    assert [m.value for m in turned.metrics] == pytest.approx([m.value for m in plain.metrics], rel=1e-12)


def test_intervals_hold_the_value_and_repeat_for_a_seed():
    rows = drawn(7, queries=200, gallery=200)
    first, again, other = score(*rows, (5,), seed=1), score(*rows, (5,), seed=1), score(*rows, (5,), seed=2)
    assert first.metrics == again.metrics
    assert first.metrics != other.metrics
    assert all(metric.low < metric.value < metric.high for metric in first.metrics)


def test_interval_of_a_share_is_as_wide_as_the_binomial_says():
    rows = torch.eye(2).repeat(200, 1)
    ids = torch.arange(400) % 4 // 2  # half of the queries find their class at rank 1
    scores = score(rows, torch.eye(2), ids, torch.tensor([0, 1]), (1,), resamples=4000)["P@1"]
    expected = 1.96 * math.sqrt(0.25 / 400)
    assert scores.value == 0.5
    assert (scores.high - scores.low) / 2 == pytest.approx(expected, rel=0.1)


def test_without_resamples_there_is_no_interval():
    assert math.isnan(score(*drawn(0), (5,), resamples=0)["P@5"].low)


def test_per_class_figures_average_to_the_whole():
    scores = score(*drawn(8), (3,))
    weighted = sum(entry.queries * {m.name: m.value for m in entry.metrics}["P@3"] for entry in scores.per_class)
    assert weighted / len(scores.relevant) == pytest.approx(scores["P@3"].value)
    with pytest.raises(KeyError):
        scores["P@4"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_are_refused(bad):
    rows = drawn(0)
    rows[1][4, 2] = bad
    with pytest.raises(ValueError, match="1 of 31 embeddings are not finite"):
        score(*rows, (1,))


def test_wrong_ks_and_shapes_are_refused():
    queries, gallery, classes, gallery_classes = drawn(0)
    with pytest.raises(ValueError, match="at least one k"):
        score(queries, gallery, classes, gallery_classes, ())
    with pytest.raises(ValueError, match="1 or more"):
        score(queries, gallery, classes, gallery_classes, (0, 5))
    with pytest.raises(ValueError, match="query embeddings and classes have shapes"):
        score(queries, gallery, classes[:-1], gallery_classes, (1,))
    assert score(queries, gallery, classes, gallery_classes, (5, 1, 5)).ks == (1, 5)
