"""Retrieval figures as plain loops over lists of floats, to check the fast ones against."""

import math


def cosine(left, right):
    lengths = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / lengths if lengths else 0.0


def ranking(query, gallery):
    """Gallery rows, best first; equal cosines by row."""
    similarity = [cosine(query, row) for row in gallery]
    return sorted(range(len(gallery)), key=lambda row: (-round(similarity[row], 12), row))


def matches(queries, gallery, query_classes, gallery_classes):
    """For each query with a class: which ranks hold an image of its class."""
    result = []
    for query, wanted in zip(queries, query_classes, strict=True):
        if wanted >= 0:
            result.append([gallery_classes[row] == wanted for row in ranking(query, gallery)])
    return result


def precision(found, k):
    return sum(sum(ranks[:k]) / k for ranks in found) / len(found)


def capped_precision(found, k):
    above = below = 0
    for ranks in found:
        reach = min(k, sum(ranks))
        above += sum(ranks[:reach])
        below += reach
    return above / below


def average_precision(ranks, k):
    """Sum of precision at each relevant rank up to k, over min(k, relevant); None without relevant images."""
    relevant = sum(ranks)
    if relevant == 0:
        return None
    total, hits = 0.0, 0
    for position, match in enumerate(ranks[:k], start=1):
        if match:
            hits += 1
            total += hits / position
    return total / min(k, relevant)


def mean_average_precision(found, k):
    values = [value for value in (average_precision(ranks, k) for ranks in found) if value is not None]
    return sum(values) / len(values)


def recall(found, k):
    values = [sum(ranks[:k]) / sum(ranks) for ranks in found if sum(ranks) > 0]
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
