"""The terms once more, as slow float64 loops over plain numbers. Written from the equations; imports nothing of ucdir."""

import math
from collections.abc import Sequence

import numpy as np

Rows = np.ndarray  # (number, D) float64, unit rows


def similarities(query: Rows, key: Rows, bank: Rows, image_ids: np.ndarray) -> list[list[float]]:
    """Row i: query i with each image of its domain, its own image standing there with its own key."""
    table = []
    for i, own in enumerate(image_ids):
        row = [dot(query[i], entry) for entry in bank]
        row[own] = dot(query[i], key[i])
        table.append(row)
    return table


def instance_contrast(query: Rows, key: Rows, bank: Rows, image_ids: np.ndarray, temperature: float) -> float:
    losses = []
    for row, own in zip(similarities(query, key, bank, image_ids), image_ids, strict=True):
        losses.append(log_sum_exp([value / temperature for value in row]) - row[own] / temperature)
    return math.fsum(losses) / len(losses)


def cluster_contrast(
    query: Rows,
    key: Rows,
    bank: Rows,
    image_ids: np.ndarray,
    assignment: np.ndarray,
    prototypes: Rows,
    temperature: float,
    threshold: float,
) -> float:
    """`bank` holds the keys already and no image is repeated: an image's own bank row is its key."""
    losses = []
    for i, row in enumerate(similarities(query, key, bank, image_ids)):
        cluster = assignment[image_ids[i]]
        probability = softmax([dot(key[i], prototype) / temperature for prototype in prototypes])[cluster]
        if probability <= threshold:
            continue
        friends = [j for j in range(len(bank)) if assignment[j] == cluster]
        logits = [value / temperature for value in row]
        likelihoods = [logits[j] - log_sum_exp(logits) for j in friends]
        losses.append(-math.fsum(likelihoods) / len(friends))
    return math.fsum(losses) / len(losses) if losses else 0.0


def assignment_entropy(query: Rows, prototypes: Rows, temperature: float) -> float:
    entropies = []
    for row in query:
        logits = [dot(row, prototype) / temperature for prototype in prototypes]
        whole = log_sum_exp(logits)
        entropies.append(-math.fsum(math.exp(logit - whole) * (logit - whole) for logit in logits))
    return math.fsum(entropies) / len(entropies)


def distance_of_distance(query: Rows, prototypes: Rows, others: Rows, temperature: float) -> float:
    one, other = distance_map(query, prototypes, temperature), distance_map(query, others, temperature)
    losses = [
        math.fsum((here - there + 1e-6) ** 2 for here, there in zip(one[i], other[i], strict=True)) for i in range(len(query))
    ]
    return math.fsum(losses) / len(losses)


def distance_map(query: Rows, prototypes: Rows, temperature: float) -> list[list[float]]:
    soft = [softmax([dot(row, prototype) / temperature for prototype in prototypes]) for row in query]
    return [[1 - dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for b in soft] for a in soft]


def written(bank: Rows, image_ids: np.ndarray, key: Rows) -> Rows:
    """The bank after one row at a time was overwritten."""
    rows = bank.copy()
    for i, image_id in enumerate(image_ids):
        rows[image_id] = key[i]
    return rows


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def log_sum_exp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def softmax(values: Sequence[float]) -> list[float]:
    whole = log_sum_exp(values)
    return [math.exp(value - whole) for value in values]
