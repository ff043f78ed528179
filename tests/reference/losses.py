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


def prototype_contrast(query: Rows, prototypes: Rows, assignment: np.ndarray, temperatures: Sequence[float]) -> float:
    losses = []
    for row, own in zip(query, assignment, strict=True):
        logits = [dot(row, prototype) / t for prototype, t in zip(prototypes, temperatures, strict=True)]
        losses.append(log_sum_exp(logits) - logits[own])
    return math.fsum(losses) / len(losses)


def contrast_with_prototypes(
    query: Rows, positive: Rows, prototypes: Rows, assignment: np.ndarray, temperature: float
) -> float:
    losses = []
    for row, friend, own in zip(query, positive, assignment, strict=True):
        near = dot(row, friend) / temperature
        others = [dot(row, prototype) / temperature for c, prototype in enumerate(prototypes) if c != own]
        losses.append(log_sum_exp([near, *others]) - near)
    return math.fsum(losses) / len(losses)


def contrast_across_domains(query: Rows, prototypes: Rows, assignment: np.ndarray, temperature: float) -> float:
    losses = []
    for row, own in zip(query, assignment, strict=True):
        cosines = [dot(row, prototype) for prototype in prototypes]
        (even,) = normalised_rows([cosines])
        logits = [(cosines[c] if c == own else even[c]) / temperature for c in range(len(prototypes))]
        losses.append(log_sum_exp(logits) - logits[own])
    return math.fsum(losses) / len(losses)


def normalised_rows(table: Sequence[Sequence[float]]) -> list[list[float]]:
    lengths = [math.sqrt(dot(row, row)) for row in table]
    return [[value / (length or 1) for value in row] for row, length in zip(table, lengths, strict=True)]


def concentration(rows: Rows, prototypes: Rows, assignment: np.ndarray, temperature: float, smoothing: float) -> list[float]:
    loose = []
    for c, prototype in enumerate(prototypes):
        away = [math.sqrt(math.fsum((row - prototype) ** 2)) for row, own in zip(rows, assignment, strict=True) if own == c]
        loose.append(math.fsum(away) / (len(away) * math.log(len(away) + smoothing)) if len(away) > 1 else None)
    loosest = max(value for value in loose if value is not None)
    filled = [loosest if value is None else value for value in loose]
    low, high = np.quantile(filled, [0.1, 0.9])
    cut = [min(max(value, low), high) for value in filled]
    return [temperature * value / (math.fsum(cut) / len(cut)) for value in cut]


def transport(similarity: np.ndarray, shares: np.ndarray, smoothing: float, iterations: int) -> list[list[float]]:
    """Scalings of rows and columns in turn, columns first."""
    kernel = [[math.exp(value / smoothing) for value in row] for row in similarity]
    rows, columns = [1.0] * len(kernel), [1.0] * len(shares)
    for _ in range(iterations):
        sums = [math.fsum(rows[i] * kernel[i][c] for i in range(len(kernel))) for c in range(len(shares))]
        columns = [share / total for share, total in zip(shares, sums, strict=True)]
        rows = [1 / len(kernel) / math.fsum(k * c for k, c in zip(row, columns, strict=True)) for row in kernel]
    return [[rows[i] * kernel[i][c] * columns[c] for c in range(len(shares))] for i in range(len(kernel))]


def self_matching(query: Rows, key: Rows, classifiers: Rows, temperature: float) -> float:
    pairs = zip(answers(query, classifiers, temperature), answers(key, classifiers, temperature), strict=True)
    losses = [-math.log(dot(here, there)) for here, there in pairs]
    return math.fsum(losses) / len(losses)


def unevenness(query: Rows, classifiers: Rows, temperature: float) -> float:
    found = answers(query, classifiers, temperature)
    average = [math.fsum(column) / len(found) for column in zip(*found, strict=True)]
    return math.log(len(average)) + math.fsum(share * math.log(share) for share in average)


def classifier_distance(query: Rows, classifiers: Rows, others: Rows, temperature: float) -> float:
    pairs = zip(answers(query, classifiers, temperature), answers(query, others, temperature), strict=True)
    losses = [math.fsum(abs(a - b) for a, b in zip(here, there, strict=True)) for here, there in pairs]
    return math.fsum(losses) / len(losses)


def answers(query: Rows, classifiers: Rows, temperature: float) -> list[list[float]]:
    return [softmax([dot(row, output) / temperature for output in classifiers]) for row in query]


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
