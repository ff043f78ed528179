"""How an encoder brings its domains together: features of an image's views, as a member of a domain -> a unit row.

An image that the encoder has not learned from takes the mean of the embeddings of its nearest neighbours in its own domain. So
the encoder carries, for every domain, a small memory of the images that it has learned from.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = 20


class Placed(NamedTuple):
    """Images as members of domains.

    rows       (N, E) float32 unit rows
    domain     (N,) int64, the domain of each, given or recognised
    is_strange (N,) bool, it does not look like the images of that domain
    """

    rows: Tensor
    domain: Tensor
    is_strange: Tensor


class DomainMemory(nn.Module):
    """The images of one domain that an encoder has learned from.

    centre      (D,) float32, mean of the domain's described images
    rows        (M, D) float16 unit rows, what an image is compared with; M = 0: an embedding is the described image, centred
    embeddings  (M, E) float16 unit rows, what it then becomes
    contents    (M, 32) uint8, SHA-256 of the image files
    """

    centre: Tensor
    rows: Tensor
    embeddings: Tensor
    contents: Tensor

    def __init__(self, centre: Tensor, rows: Tensor, embeddings: Tensor, contents: Tensor) -> None:
        super().__init__()
        for name, values in (("centre", centre), ("rows", rows), ("embeddings", embeddings), ("contents", contents)):
            self.register_buffer(name, values)

    def forward(self, described: Tensor) -> Tensor:
        """(N, D) described images -> (N, E) unit rows, as members of this domain."""
        own = F.normalize(described - self.centre, dim=1)
        if len(self.rows) == 0:
            return own
        cosine, ids = (own @ self.rows.float().T).topk(min(NEIGHBOURS, len(self.rows)), dim=1)
        weights = cosine.clamp(min=1e-3).pow(3)  # above 0: an image unlike all others has an embedding, too
        return F.normalize((weights[..., None] * self.embeddings[ids].float()).sum(dim=1), dim=1)


class Recogniser(nn.Module):
    """Which domain does an image look like?

    axes    (F, R) float32, along which the images of a domain vary equally
    means   (S, R) float32, of the domains along them
    limits  (S,) float32, the distance from its mean that one in a hundred images of a domain exceeds
    """

    axes: Tensor
    means: Tensor
    limits: Tensor

    def __init__(self, axes: Tensor, means: Tensor, limits: Tensor) -> None:
        super().__init__()
        for name, values in (("axes", axes), ("means", means), ("limits", limits)):
            self.register_buffer(name, values)

    def forward(self, plain: Tensor) -> Tensor:
        """(N, F) features of plain views -> (N, S) distances from the means."""
        distances: Tensor = (F.normalize(plain, dim=1) @ self.axes)[:, None].sub(self.means).norm(dim=2)
        return distances


class Alignment(nn.Module):
    """All that an encoder knows of its S domains.

    weights     (V,) float32 of the views, sum 1
    projection  (F, D) float32; None = the features as they are
    memories    of each domain
    """

    weights: Tensor
    projection: Tensor | None

    def __init__(
        self, weights: Tensor, projection: Tensor | None, memories: Sequence[DomainMemory], recogniser: Recogniser
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("projection", projection)
        for number, memory in enumerate(memories):
            self.add_module(f"memory{number}", memory)
        self.memories = tuple(memories)
        self.recogniser = recogniser

    @property
    def length(self) -> int:
        """Numbers in an embedding."""
        memory = self.memories[0]
        return memory.embeddings.shape[1] if len(memory.rows) else len(memory.centre)

    def forward(self, features: Tensor, domain: Tensor) -> Placed:
        """(N, V, F) features of the first V views -> images as members of `domain` (N,); -1 = recognise it."""
        distances = self.recogniser(features[:, 0])
        chosen = torch.where(domain < 0, distances.argmin(dim=1), domain)
        views = F.normalize(features, dim=2)
        if self.projection is not None:
            views = F.normalize(views @ self.projection, dim=2)
        described = torch.einsum("nvd,v->nd", views, self.weights[: features.shape[1]])
        described = described / self.weights[: features.shape[1]].sum()
        members = torch.stack([memory(described) for memory in self.memories])  # (S, N, E)
        own = torch.arange(chosen.shape[0], device=chosen.device)
        return Placed(members[chosen, own], chosen, distances[own, chosen] > self.recogniser.limits[chosen])

    @classmethod
    def unlearned(cls, features: int, domains: int) -> "Alignment":
        """Before anything is learned: the features of one view are the embedding, and every image is of the first domain."""
        nothing = torch.zeros(features), torch.empty(0, features), torch.empty(0, features), torch.empty(0, 32)
        recogniser = Recogniser(torch.zeros(features, 1), torch.zeros(domains, 1), torch.zeros(domains))
        return cls(torch.ones(1), None, [DomainMemory(*nothing) for _ in range(domains)], recogniser)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], domains: Sequence[str]) -> "Alignment":
        """With the shapes of the tensors called `alignment...` in the file of an encoder that knows `domains`."""
        own = {name.removeprefix("alignment."): value for name, value in tensors.items() if name.startswith("alignment.")}

        def part(prefix: str, *names: str) -> list[Tensor]:
            return [torch.empty_like(own[f"{prefix}.{name}"]) for name in names]

        memories = [
            DomainMemory(*part(f"memory{number}", "centre", "rows", "embeddings", "contents")) for number in range(len(domains))
        ]
        recogniser = Recogniser(*part("recogniser", "axes", "means", "limits"))
        projection = torch.empty_like(own["projection"]) if "projection" in own else None
        return cls(torch.empty_like(own["weights"]), projection, memories, recogniser)
