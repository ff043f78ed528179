"""What the routes answer, as JSON."""

from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from ucdir.gallery.interface import GalleryInfo, Hit, folder_of


class Answer(BaseModel):
    """Built once, never changed."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Problem(Answer):
    """Why a request was refused."""

    detail: str = Field(description="One sentence: what was found, what was expected, what to do.")


class GalleryProblem(Answer):
    """A gallery that is served as it was before something happened to it."""

    gallery: str
    detail: str


class Health(Answer):
    """Whether all is well."""

    status: Literal["ok", "degraded"]
    version: str
    galleries: int
    token_required: bool
    problems: list[GalleryProblem]


class DomainCount(Answer):
    """A domain of a gallery."""

    name: str
    count: int


class GalleryEntry(Answer):
    """A gallery that can be searched."""

    name: str
    count: int
    dim: int
    domains: list[DomainCount]
    encoder: str = Field(description="Fingerprint of the encoder.")
    known_domains: list[str] = Field(
        description="Domains that the encoder distinguishes and an upload can be searched as; often none."
    )
    expand: int = Field(description="Best hits that a query moves toward before it is answered, by default.")
    knows_confidence: bool = Field(description="Whether hits come with a confidence, and min_confidence can be set.")
    updated: str = Field(description="UTC, ISO 8601.")


class LimitEntry(Answer):
    """What a search may ask for."""

    max_bytes: int
    max_pixels: int
    max_k: int


class Galleries(Answer):
    """All that can be searched."""

    galleries: list[GalleryEntry]
    limits: LimitEntry


class QueryEntry(Answer):
    """What was searched with."""

    kind: Literal["upload", "image"]
    image_id: str | None
    width: int
    height: int
    domain: str | None = Field(
        description="Of an upload, the recognised domain, or null if the encoder does not distinguish domains; of "
        "an image, its own."
    )
    is_strange: bool = Field(description="It looks unlike all images of that domain.")


class HitEntry(Answer):
    """One image found."""

    rank: int = Field(ge=1)
    id: str
    similarity: float = Field(ge=-1, le=1, description="Cosine; larger is nearer.")
    confidence: float | None = Field(
        description="Probability that it shows the same kind of thing as the query; null as above."
    )
    domain: str
    class_name: str | None = Field(alias="class")
    name: str
    folder: str = Field(description="Relative to the domain's own; empty at its top.")
    width: int
    height: int
    bytes: int
    image: str
    thumbnail: str


class SearchAnswer(Answer):
    """The images most similar to the query, best first."""

    gallery: str
    searched: int
    seconds: float
    query: QueryEntry
    expand: int = Field(
        description="Best hits that the query moved toward; similarities are to the moved query. 0 = not moved."
    )
    confidence: float | None = Field(
        description="Probability that the gallery contains anything like the query; null if that is not known."
    )
    hits: list[HitEntry]


def hit_entry(rank: int, hit: Hit, info: GalleryInfo, gallery: str) -> HitEntry:
    """A hit of a gallery that is served under the name `gallery`."""
    image = hit.image
    address, name = f"/images/{image.id}", quote(gallery, safe="")
    return HitEntry(
        rank=rank,
        id=image.id,
        similarity=min(1.0, max(-1.0, hit.similarity)),
        confidence=hit.confidence,
        domain=image.domain,
        class_name=image.class_name,
        name=image.path.name,
        folder=folder_of(image, info.sources),
        width=image.width,
        height=image.height,
        bytes=image.bytes,
        image=f"{address}?gallery={name}",
        thumbnail=f"{address}/thumbnail?gallery={name}",
    )
