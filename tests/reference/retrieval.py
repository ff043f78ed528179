"""Retrieval figures as plain loops over lists of floats, to check the fast ones against."""

import math
from itertools import groupby, permutations, product


def cosine(left, right):
    lengths = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / lengths if lengths else 0.0


def ranking(query, gallery):
    """Gallery rows, best first; equal cosines by row."""
    similarity = [cosine(query, row) for row in gallery]
    return sorted(range(len(gallery)), key=lambda row: (-round(similarity[row], 12), row))


def tied(similarity, relevant):
    """Ties in order of rank, each a list of what is relevant in it: [[True], [False, True], ...]."""
    order = sorted(range(len(similarity)), key=lambda row: -similarity[row])
    return [[bool(relevant[row]) for row in rows] for _, rows in groupby(order, key=lambda row: similarity[row])]


def matches(queries, gallery, query_classes, gallery_classes):
    """For each query with a class its ties."""
    result = []
    for query, wanted in zip(queries, query_classes, strict=True):
        if wanted >= 0:
            similarity = [round(cosine(query, row), 12) for row in gallery]
            result.append(tied(similarity, [found == wanted for found in gallery_classes]))
    return result


def mean_over_orders(ties, figure):
    """Mean of figure(ranks) over all orders of the images in each tie, each order taken once."""
    orders = product(*(permutations(tie) for tie in ties))
    values = [figure([found for tie in order for found in tie]) for order in orders]
    return math.fsum(values) / len(values)


def hits(ties, k):
    """Expected number of relevant images among the first k."""
    total, seen = 0.0, 0
    for tie in ties:
        total += min(max(k - seen, 0), len(tie)) * sum(tie) / len(tie)
        seen += len(tie)
    return total


def precision(found, k):
    return sum(hits(ties, k) / k for ties in found) / len(found)


def capped_precision(found, k):
    above = below = 0
    for ties in found:
        reach = min(k, count_relevant(ties))
        above += hits(ties, reach)
        below += reach
    return above / below


def count_relevant(ties):
    return sum(sum(tie) for tie in ties)


def order_precision(ranks, k):
    """Average precision at k of one order: sum of the precision at each relevant rank up to k, over min(k, relevant)."""
    total, seen = 0.0, 0
    for position, match in enumerate(ranks[:k], start=1):
        if match:
            seen += 1
            total += seen / position
    return total / max(min(k, sum(ranks)), 1)


def average_precision(ties, k):
    """Expected average precision at k from the probability that two ranks both hold relevant images; None without any."""
    relevant = count_relevant(ties)
    if relevant == 0:
        return None
    ranks = [number for number, tie in enumerate(ties) for _ in tie]
    total = 0.0
    for position in range(min(k, len(ranks))):
        own = ties[ranks[position]]
        pairs = math.fsum(both_relevant(ties, ranks[before], ranks[position]) for before in range(position))
        total += (sum(own) / len(own) + pairs) / (position + 1)
    return total / min(k, relevant)


def both_relevant(ties, one, other):
    """Probability that two different ranks, of the ties with these numbers, both hold a relevant image."""
    (n, r), (m, s) = ((len(ties[number]), sum(ties[number])) for number in (one, other))
    return r * (r - 1) / (n * (n - 1)) if one == other else r * s / (n * m)


def mean_average_precision(found, k):
    values = [value for value in (average_precision(ties, k) for ties in found) if value is not None]
    return sum(values) / len(values)


def recall(found, k):
    values = [hits(ties, k) / count_relevant(ties) for ties in found if count_relevant(ties)]
    return sum(values) / len(values)


def centred(rows):
    """Rows minus their mean, at unit length."""
    mean = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [unit([value - middle for value, middle in zip(row, mean, strict=True)]) for row in rows]


def unit(row):
    length = math.sqrt(math.fsum(value * value for value in row))
    return [value / length if length else 0.0 for value in row]


def smoothed(rows, neighbours, rounds):
    rows = centred(rows)
    for _ in range(rounds):
        averaged = []
        for row in rows:
            near = ranking(row, rows)[: neighbours + 1]
            weights = [max(cosine(row, rows[other]), 0.0) ** 3 for other in near]
            averaged.append(
                unit(
                    [
                        math.fsum(weight * rows[other][d] for weight, other in zip(weights, near, strict=True))
                        for d in range(len(row))
                    ]
                )
            )
        rows = averaged
    return centred(rows)
