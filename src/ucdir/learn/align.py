"""Two or more unlabelled folders brought together in closed form: no gradient, no label.

S domains, each with N images seen in V views of F features. Pure functions of tensors; nothing has N x N numbers in memory.
ARCHITECTURE.md, "How align works", says why each step is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ucdir.errors import UcdirError
from ucdir.retrieval.neighbours import average, choose_each_other, nearest_rows
from ucdir.scoring.picks import evenly_spread
from ucdir.settings import AlignSettings

IMAGES_PER_BLOCK = 512  # images at a time
MAX_IMAGES = 20_000  # images of a domain that the map and the groups are learned from
MAX_PAIRS = 100_000  # of images that enter a covariance
SCALE = 10  # neighbours on the other side whose mean similarity says how near everything is to an image
STUDENT_SHRINKAGE = 0.2
MIN_VARIANCE = 1e-9  # of a feature within images
AGREEMENT_IMAGES = 20  # images that say how near domains are to each other
ITERATIONS = 20  # of the search for prototypes
OWN, ACROSS = 15, 10  # nearest images that can be partners, within a domain and across
ACROSS_WEIGHT = 2.0  # of the pairs across domains in the covariance, compared with those within one domain


@dataclass(frozen=True)
class Seen:
    """The images of one domain.

    name      for messages
    features  (N, V, F) float16, in memory or memory-mapped
    device    where blocks of them are computed with
    """

    name: str
    features: NDArray[np.float16]
    device: torch.device

    def __len__(self) -> int:
        return len(self.features)

    def blocks(self) -> Iterator[Tensor]:
        """(n, V, F) float32 unit rows, n <= IMAGES_PER_BLOCK, in order."""
        for start in range(0, len(self), IMAGES_PER_BLOCK):
            values = torch.from_numpy(np.array(self.features[start : start + IMAGES_PER_BLOCK]))
            yield F.normalize(values.to(self.device).float(), dim=2)

    def sampled(self) -> NDArray[np.int64]:
        """Positions of at most MAX_IMAGES images, evenly spread."""
        return evenly_spread(len(self), MAX_IMAGES)

    def sample(self) -> "Seen":
        """These images alone."""
        return self if len(self) <= MAX_IMAGES else Seen(self.name, self.features[self.sampled()], self.device)


@dataclass(frozen=True)
class Map:
    """Features of the views of an image -> a row that says what it shows.

    weights     (V,) of the views, sum 1
    projection  (F, D)
    """

    weights: Tensor
    projection: Tensor

    def __call__(self, views: Tensor) -> Tensor:
        """(n, V, F) unit rows -> (n, D), not centred, not of unit length."""
        rows: Tensor = torch.einsum("nvd,v->nd", F.normalize(views @ self.projection, dim=2), self.weights)
        return rows


# The map


def view_weights(means: Sequence[Tensor], keeps_style: Sequence[bool]) -> Tensor:
    """(V,) weights of the views, sum 1: a view that moves a domain's mean further than the domains are apart counts little.

    means        for each of S domains (V, F), the mean of each view, the plain view first
    keeps_style  (V,) views that always count fully
    """
    stacked = torch.stack(list(means))  # (S, V, F)
    gap = torch.stack([(stacked[a, 0] - stacked[b, 0]).norm() for a, b in combinations(range(len(means)), 2)]).mean()
    shift = (stacked - stacked[:, :1]).norm(dim=2).amax(dim=0)
    weights = 1 / (1 + (shift / gap.clamp(min=1e-6)) ** 4)
    weights[torch.tensor(keeps_style, device=weights.device)] = 1
    scaled: Tensor = weights / weights.sum()
    return scaled


@dataclass(frozen=True)
class Scatter:
    """How the images of one domain vary.

    within    (F, F) second moment of what differs between views of one image
    centres   (N, F) weighted mean of each image's views, minus the domain mean
    """

    within: Tensor
    centres: Tensor

    @property
    def between(self) -> Tensor:
        """(F, F) second moment of the images."""
        return self.centres.T @ self.centres / len(self.centres)


def view_means(seen: Seen) -> Tensor:
    """(V, F) mean of each view over the images."""
    return torch.stack([block.sum(dim=0, dtype=torch.float64) for block in seen.blocks()]).sum(dim=0).float() / len(seen)


def scatter(seen: Seen, means: Tensor, weights: Tensor) -> Scatter:
    """Where each kind of view has its own mean (V, F), which is style as well."""
    within, centres = torch.zeros(means.shape[1], means.shape[1], device=seen.device), []
    root = weights.sqrt()[:, None]
    for block in seen.blocks():
        views = block - means
        centre = torch.einsum("nvf,v->nf", views, weights)
        rest = ((views - centre[:, None]) * root).flatten(0, 1)
        within += rest.T @ rest
        centres.append(centre)
    return Scatter(within / len(seen), torch.cat(centres))


@dataclass(frozen=True)
class Pairs:
    """Images that count as views of one thing: `first[k]` of domain `domains[0]` and `second[k]` of `domains[1]`."""

    domains: tuple[int, int]
    first: Tensor
    second: Tensor
    weight: float


def pair_scatter(pairs: Sequence[Pairs], scatters: Sequence[Scatter]) -> Tensor:
    """(F, F) weighted second moment of what differs within pairs."""
    total = sum(part.weight for part in pairs)
    found = torch.zeros_like(scatters[0].within)
    for part in pairs:
        step = max(1, -(-len(part.first) // MAX_PAIRS))
        (a, b), first, second = part.domains, part.first[::step], part.second[::step]
        for i, j in zip(torch.split(first, IMAGES_PER_BLOCK * 8), torch.split(second, IMAGES_PER_BLOCK * 8), strict=True):
            apart = scatters[a].centres[i] - scatters[b].centres[j]
            found += part.weight / total / len(first) * (apart.T @ apart)
    return found / 2


def _shrunk(moment: Tensor, shrinkage: float) -> Tensor:
    """(F, F) float64 second moment with `shrinkage` times the mean variance added to every feature."""
    size, moment = len(moment), moment.double()
    level = (moment.trace() / size).clamp(min=MIN_VARIANCE)  # all views of all images may be the same
    return moment + shrinkage * level * torch.eye(size, dtype=torch.float64, device=moment.device)


def whitening(within: Tensor, between: Tensor, shrinkage: float, dim: int) -> Tensor:
    """(F, D) map: what differs within images becomes equally small in all directions; those in which images differ most stay.

    Within-class covariance normalisation with every image a class of its own (Hatch et al. 2006), then the leading directions
    of the whitened `between`: Fisher's discriminant. `shrinkage` times the mean variance is added to `within`.
    """
    between = between.double()
    values, vectors = torch.linalg.eigh(_shrunk(within, shrinkage))
    white = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    projection: Tensor = white @ torch.linalg.eigh(white @ between @ white).eigenvectors[:, -dim:]
    return projection.float()


# Groups


def prototypes(domains: Sequence[Tensor], count: int, balanced: bool, temperature: float, rng: np.random.Generator) -> Tensor:
    """(count, D) unit rows: soft spherical k-means of all domains together, seeded by k-means++.

    domains    S x (N, D) unit rows
    balanced   each domain has the same say in every single prototype, else only over all of them
    """
    rows = torch.cat(list(domains))
    share = torch.cat([torch.full((len(domain),), 1 / len(domain), device=rows.device) for domain in domains])
    far = torch.ones_like(share)
    chosen: list[int] = []
    for draw in rng.random(count):
        cumulated = (far.clamp(min=1e-6) * share).double().cumsum(dim=0)
        chosen.append(min(int(torch.searchsorted(cumulated, draw * cumulated[-1])), len(rows) - 1))
        far = torch.minimum(far if len(chosen) > 1 else 1 - rows @ rows[chosen[0]], 1 - rows @ rows[chosen[-1]])
    centres = rows[chosen]
    for _ in range(ITERATIONS):
        sums = [F.softmax(domain @ centres.T / temperature, dim=1).T @ domain / len(domain) for domain in domains]
        centres = F.normalize(torch.stack([F.normalize(part, dim=1) for part in sums] if balanced else sums).sum(dim=0), dim=1)
    return centres


def memberships(rows: Tensor, groupings: Sequence[Tensor], temperature: float) -> Tensor:
    """(N, C) unit rows: square roots of the memberships in every group of every grouping.

    The dot product of two such rows is the mean Bhattacharyya similarity of two images' memberships, so the whole is a
    consensus of clusterings (Strehl & Ghosh 2002; Fred & Jain 2005).
    """
    parts = [F.softmax(rows @ grouping.T / temperature, dim=1).clamp(min=1e-9).sqrt() for grouping in groupings]
    return F.normalize(torch.cat(parts, dim=1), dim=1)


def groupings(domains: Sequence[Tensor], settings: AlignSettings, rng: np.random.Generator) -> list[Tensor]:
    """Prototypes of many groupings: of each count, of both kinds, several times."""
    kinds = [
        (balanced, count) for balanced in (True, False) for count in settings.group_counts for _ in range(settings.groupings)
    ]
    return [
        prototypes(domains, min(count, sum(map(len, domains))), balanced, settings.temperature, rng)
        for balanced, count in kinds
    ]


# Neighbours


def smoothed(rows: Tensor, neighbours: int, rounds: int = 2) -> Tensor:
    """(N, D) unit rows, each averaged with its nearest ones, itself included, `rounds` times, and centred."""
    for _ in range(rounds):
        rows = average(rows, nearest_rows(rows, rows, neighbours))
    return centred(rows)


def centred(rows: Tensor) -> Tensor:
    """Rows less their mean, at unit length."""
    return F.normalize(rows - rows.mean(dim=0), dim=1)


def partners_within(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of images of one domain that are among each other's nearest neighbours."""
    near = nearest_rows(rows, rows, OWN, skip_self=True).rows
    return choose_each_other(near, near)


def partners_across(one: Tensor, other: Tensor, count: int = ACROSS) -> tuple[Tensor, Tensor]:
    """Images of two domains that choose each other.

    Similarities are compared after subtracting half of how near everything on the other side is to each of the two, so that
    hubs are not everyone's choice (CSLS, Conneau et al. 2018).
    """
    level_one, level_other = (nearest_rows(a, b, SCALE).similarity.mean(dim=1) for a, b in ((one, other), (other, one)))
    there = nearest_rows(one, other, count, penalty=level_other / 2).rows
    back = nearest_rows(other, one, count, penalty=level_one / 2).rows
    return choose_each_other(there, back)


# Learning from the groups


def student(scatters: Sequence[Scatter], targets: Sequence[Tensor], shrinkage: float) -> Tensor:
    """(F, C): ridge regression from the views of an image to its targets, every domain counting the same.

    targets    S x (N, C) of the images of `scatters`, with mean 0 in each domain
    shrinkage  times the mean variance of a feature is added to every one
    """
    second = torch.stack([part.within + part.between for part in scatters]).mean(dim=0)
    parts = zip(scatters, targets, strict=True)
    both = torch.stack([part.centres.T @ target / len(target) for part, target in parts]).mean(dim=0)
    solved: Tensor = torch.linalg.solve(_shrunk(second, shrinkage), both.double()).float()
    return solved


def principal(parts: Sequence[Tensor], length: int) -> list[Tensor]:
    """S x (N, E) rows with mean 0 in each domain -> S x (N, `length`) unit rows: their leading directions, centred.

    Every domain counts the same. Rows that have fewer directions keep all of them.
    """
    covariance = torch.stack([part.T @ part / len(part) for part in parts]).mean(dim=0).double()
    leading = torch.linalg.eigh(covariance).eigenvectors[:, -length:].float()
    return [centred(part @ leading) for part in parts]


# All of it


@dataclass(frozen=True)
class Domain:
    """What became of the images of one domain that were learned from.

    images      (M,) int64, which of the domain's they are
    centre      (D,) mean of the described images
    rows        (M, D) unit rows: what each image shows, by itself
    embeddings  (M, E) unit rows: what it shows, and what the groups around it teach
    """

    images: NDArray[np.int64]
    centre: Tensor
    rows: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class Aligned:
    """S domains brought together.

    agreement  mean cosine of an image to its nearest ones of another domain, before any are paired; of the two domains that
               agree most
    """

    map: Map
    domains: tuple[Domain, ...]
    agreement: float


def align(domains: Sequence[Seen], keeps_style: Sequence[bool], settings: AlignSettings, seed: int = 0) -> Aligned:
    """Bring S >= 2 domains together. Of a domain of more than MAX_IMAGES images as many are learned from.

    domains      the images of each, in an order that does not depend on names
    keeps_style  (V,) of the views; the plain view comes first
    raises       UcdirError for features that are not finite or do not vary
    """
    samples = [domain.sample() for domain in domains]
    means = [view_means(sample) for sample in samples]
    for domain, mean in zip(domains, means, strict=True):
        require_finite(domain.name, mean)
    weights = view_weights(means, keeps_style)
    scatters = [scatter(sample, mean, weights) for sample, mean in zip(samples, means, strict=True)]
    first = Map(weights, learn_projection(scatters, [], settings))
    described = [describe(sample, first) for sample in samples]
    own = [centred(part) for part in described]
    rows, calm = own, [smoothed(part, settings.neighbours) for part in own]
    agreed = agreement(calm)
    for _ in range(settings.rounds):
        rows = paired(rows, calm, samples, scatters, weights, settings)
        calm = [smoothed(part, settings.neighbours) for part in rows]
    told = taught(rows, scatters, settings, np.random.default_rng(seed))
    embeddings = principal([torch.cat(parts, dim=1) for parts in zip(calm, told, strict=True)], settings.length)
    found = zip(domains, described, own, embeddings, strict=True)
    placed = tuple(Domain(domain.sampled(), part.mean(dim=0), row, rest) for domain, part, row, rest in found)
    return Aligned(first, placed, agreed)


def paired(
    rows: Sequence[Tensor],
    calm: Sequence[Tensor],
    samples: Sequence[Seen],
    scatters: Sequence[Scatter],
    weights: Tensor,
    settings: AlignSettings,
) -> list[Tensor]:
    """S x (N, D) unit rows of the same images once those that choose each other count as views of one thing.

    rows, calm  S x (N, D) unit rows as they are, and averaged over their own domains
    """
    map_ = Map(weights, learn_projection(scatters, [*pairs_within(rows), *pairs_across(calm)], settings))
    return [centred(describe(sample, map_)) for sample in samples]


def taught(
    rows: Sequence[Tensor], scatters: Sequence[Scatter], settings: AlignSettings, rng: np.random.Generator
) -> list[Tensor]:
    """S x (N, C) unit rows: the output of a linear map of the features that was taught by the groups around each image."""
    found = groupings(rows, settings, rng)
    groups = principal([centred(memberships(part, found, settings.temperature)) for part in rows], settings.length)
    learned = student(scatters, [smoothed(part, settings.neighbours) for part in groups], STUDENT_SHRINKAGE)
    return [smoothed(centred(part.centres @ learned), settings.neighbours) for part in scatters]


def agreement(rows: Sequence[Tensor]) -> float:
    """See `Aligned`. rows: S x (N, D) unit rows, averaged over their own domains."""
    found = []
    for a, b in combinations(range(len(rows)), 2):
        there, back = (
            nearest_rows(one, other, AGREEMENT_IMAGES).similarity.mean()
            for one, other in ((rows[a], rows[b]), (rows[b], rows[a]))
        )
        found.append(float(there + back) / 2)
    return max(found)


def learn_projection(scatters: Sequence[Scatter], pairs: Sequence[Pairs], settings: AlignSettings) -> Tensor:
    """(F, D): every domain counts the same, and pairs as much as all views of images together."""
    within = torch.stack([part.within for part in scatters]).mean(dim=0)
    between = torch.stack([part.between for part in scatters]).mean(dim=0)
    if pairs:
        within = within + pair_scatter(pairs, scatters)
    return whitening(within, between, settings.shrinkage, settings.dim)


def describe(seen: Seen, map_: Map) -> Tensor:
    """(N, D) rows of all images, neither centred nor of unit length."""
    return torch.cat([map_(block) for block in seen.blocks()])


def pairs_within(rows: Sequence[Tensor]) -> list[Pairs]:
    """Images of one domain that choose each other, of each."""
    found = [Pairs((number, number), *partners_within(part), 1.0) for number, part in enumerate(rows)]
    return [part for part in found if len(part.first)]


def pairs_across(rows: Sequence[Tensor]) -> list[Pairs]:
    """Images of every two domains that choose each other."""
    found = [Pairs((a, b), *partners_across(rows[a], rows[b]), ACROSS_WEIGHT) for a, b in combinations(range(len(rows)), 2)]
    return [part for part in found if len(part.first)]


def require_finite(name: str, means: Tensor) -> None:
    """UcdirError for the view means (V, F) of features with NaN or infinity, or of a network whose output is 0."""
    if not bool(means.isfinite().all()):
        raise UcdirError(f"the backbone gives NaN or infinity for images of domain '{name}'. Use other weights (--weights).")
    if float(means.norm(dim=1).max()) == 0:
        raise UcdirError(f"the backbone gives only zeros for the images of domain '{name}'. Use other weights (--weights).")
