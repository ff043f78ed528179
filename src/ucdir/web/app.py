"""The routes of `ucdir serve`, and how OpenAPI describes them."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp

from ucdir import __version__
from ucdir.errors import UsageError
from ucdir.gallery.ask import SearchOptions
from ucdir.gallery.interface import Engine, GalleryImage, Where, path_prefixes
from ucdir.web.galleries import Served
from ucdir.web.monitoring import Watch
from ucdir.web.originals import browser_type, content_of, disposition, open_indexed, require_indexed
from ucdir.web.refusals import ANSWERS
from ucdir.web.request_limits import MAX_EXPANDED, TEXT_FIELDS, SearchForm, read_form
from ucdir.web.responses import (
    DomainCount,
    Galleries,
    GalleryEntry,
    GalleryProblem,
    Health,
    LimitEntry,
    Problem,
    QueryEntry,
    SearchAnswer,
    hit_entry,
)
from ucdir.web.security import Guard
from ucdir.web.service import Service
from ucdir.web.static_files import PageFile
from ucdir.web.thumbnails import FULL, make_shown, make_thumbnail
from ucdir.web.uploads import Queries

Result = TypeVar("Result")
ImageId = Annotated[str, Path(description="Id of a gallery image, from a hit.")]
GalleryName = Annotated[str | None, Query(description="Name of a gallery; default the first.")]
Side = Annotated[int, Query(ge=64, le=1024, description="Longer side in pixels, at most.")]
FRESH = {"Cache-Control": "private, no-cache"}
WHY = {
    400: "A form that cannot be read, or broke off",
    401: "The token is missing or wrong",
    403: "Sent by a page of another site",
    404: "No such gallery, domain, folder or image",
    408: "It did not arrive in time",
    410: "The file is gone or has changed since it was indexed",
    413: "Too many bytes",
    415: "Not an image that can be opened; or not a form",
    421: "Not a host name of this service",
    422: "A value out of range, or too many pixels",
    503: "Too many searches at once, or a gallery is damaged; see Retry-After",
}


def create_app(service: Service) -> ASGIApp:
    """The whole service as one ASGI application."""
    app = FastAPI(title="ucdir", version=__version__, docs_url=None, redoc_url=None, exception_handlers=ANSWERS)
    routes, token = Routes(service), service.rules.token is not None

    def add(path: str, route: Callable[..., Any], *statuses: int, method: str = "GET", **more: Any) -> None:
        app.add_api_route(path, route, methods=[method], **description(statuses, **more))
        if method == "GET":
            app.add_api_route(path, route, methods=["HEAD"], include_in_schema=False)

    form = search_form(service.limits.max_k)
    add("/", routes.index, include_in_schema=False)
    add("/static/{name:path}", routes.static, include_in_schema=False)
    add("/health", routes.health)
    add("/galleries", routes.galleries, secured=token)
    add("/search", routes.search, 400, 403, 404, 408, 413, 415, 422, 503, method="POST", secured=token, openapi_extra=form)
    add("/images/{id}", routes.image, 304, 404, 410, 415, 422, 503, kind="image/*", secured=token)
    add("/images/{id}/thumbnail", routes.thumbnail, 304, 404, 410, 415, 422, 503, kind="image/*", secured=token)
    add("/metrics", routes.metrics, kind=CONTENT_TYPE_LATEST, secured=token)
    return Watch(Guard(app, service.rules), service.metrics)


def description(statuses: Sequence[int], secured: bool = False, kind: str | None = None, **more: Any) -> dict[str, Any]:
    """How OpenAPI describes a route.

    statuses   of its other answers, besides those of every route
    secured    whether it needs the token
    kind       content type of the answer, if not JSON
    """
    general = (401, 421) if secured else (421,)
    refused = [status for status in (*general, *statuses) if status != 304]
    responses: dict[int, Any] = {status: {"model": Problem, "description": WHY[status]} for status in refused}
    if 304 in statuses:
        responses[304] = {"description": "As it was, see If-None-Match"}
    if kind is not None:
        more |= {"response_class": Response}
        responses[200] = {"description": "Found", "content": {kind: {}}}
    if secured:
        more |= {"dependencies": [Depends(HTTPBearer(auto_error=False))]}
    return {"responses": responses, **more}


def search_form(max_k: int) -> dict[str, Any]:
    """How OpenAPI describes the form of /search."""
    text: dict[str, Any] = {"type": "string", "maxLength": 4096}
    fields = {name: text for name in TEXT_FIELDS if name not in ("k", "expand", "min_confidence")}
    fields |= {
        "image": {"type": "string", "format": "binary", "description": "An image file."},
        "k": {"type": "integer", "minimum": 1, "maximum": max_k, "default": min(24, max_k)},
        "expand": {"type": "integer", "minimum": 0, "maximum": MAX_EXPANDED},
        "min_confidence": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    }
    exactly_one = [{"required": ["image"]}, {"required": ["image_id"]}]
    schema = {"type": "object", "properties": fields, "oneOf": exactly_one, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


class Routes:
    """One method a route. Whatever reads a disk or computes is done in the threads of the service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._page_file(request, "index.html")

    async def static(self, request: Request, name: str) -> Response:
        """What the page is made of."""
        return self._page_file(request, name)

    async def health(self) -> Health:
        """Whether all is well."""
        service = self.service
        for served in service.catalogue:
            await service.searching(served.engine)
        problems = [
            GalleryProblem(gallery=served.name, detail="the last good version is served; the log of the service says why.")
            for served in service.catalogue
            if served.problem is not None
        ]
        return Health(
            status="degraded" if problems else "ok",
            version=__version__,
            galleries=len(service.catalogue),
            token_required=service.rules.token is not None,
            problems=problems,
        )

    async def galleries(self) -> Galleries:
        """What can be searched, and how much of it."""
        limits = self.service.limits
        return Galleries(
            galleries=[
                await self.service.searching(gallery_entry, served, self.service.queries) for served in self.service.catalogue
            ],
            limits=LimitEntry(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, max_k=limits.max_k),
        )

    async def search(self, request: Request) -> SearchAnswer:
        """The images of a gallery that are most similar to an upload, or to one of its own images."""
        form = await read_form(request, self.service.limits)
        try:
            with self.service.places.place():
                return await unless_gone(request, self._search(form))
        finally:
            form.close()

    async def image(self, request: Request, id: ImageId, gallery: GalleryName = None) -> Response:  # noqa: A002
        """The file of a gallery image: as it is where browsers show it, else as a JPEG or PNG."""
        image = await self._image(gallery, id)
        headers = {"ETag": f'"{image.sha256}"', **FRESH}
        if is_known(request, headers["ETag"]):
            await self.service.reading(require_indexed, image)
            return Response(status_code=304, headers=headers)
        return await self.service.reading(self._original, image, headers, request.method)

    async def thumbnail(self, request: Request, id: ImageId, gallery: GalleryName = None, side: Side = 320) -> Response:  # noqa: A002
        """A small JPEG of a gallery image."""
        image = await self._image(gallery, id)
        headers = {"ETag": f'"{image.sha256}-{side}"', **FRESH}
        if is_known(request, headers["ETag"]):
            await self.service.reading(require_indexed, image)
            return Response(status_code=304, headers=headers)
        content = await self.service.reading(self._drawn, image, side)
        return Response(content, media_type="image/jpeg", headers=headers)

    async def metrics(self) -> Response:
        """What the service counts, for Prometheus."""
        return Response(generate_latest(self.service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _search(self, form: SearchForm) -> SearchAnswer:
        started = time.perf_counter()
        served = self.service.catalogue.get(form.gallery)
        engine = await self.service.searching(served.engine)
        where, own = Where(form.domain, form.under), int(form.image is None)
        path_prefixes(engine.info, where)  # an unknown domain is refused before anything is embedded
        row, query = await self._query(form, served, engine)
        way = way_of(form, self.service.queries.way(served.fingerprint))
        found = await self.service.searching(served.search, engine, row[None], form.k + own, where, way)
        hits = [hit for hit in found.hits[0] if hit.image.id != form.image_id][: form.k]
        return SearchAnswer(
            gallery=served.name,
            searched=found.searched,
            seconds=round(time.perf_counter() - started, 4),
            query=query,
            expand=way.expand,
            confidence=found.confidence[0],
            hits=[hit_entry(rank, hit, engine.info, served.name) for rank, hit in enumerate(hits, 1)],
        )

    async def _query(self, form: SearchForm, served: Served, engine: Engine) -> tuple[np.ndarray, QueryEntry]:
        """The (D,) row to search with and where it is from."""
        if form.image is not None:
            upload = await self.service.queries.embed(form.image, served.fingerprint, form.as_domain)
            return upload.row, QueryEntry(
                kind="upload",
                image_id=None,
                width=upload.width,
                height=upload.height,
                domain=upload.domain,
                is_strange=upload.is_strange,
            )
        wanted = form.image_id or ""
        image = await self.service.searching(known_image, engine, served.name, wanted)
        row = await self.service.searching(served.embedding, engine, image.id)
        if row is None:
            raise UsageError(f"gallery '{served.name}' no longer has an image '{image.id}'. Search again.")
        return row, QueryEntry(
            kind="image", image_id=image.id, width=image.width, height=image.height, domain=image.domain, is_strange=False
        )

    async def _image(self, gallery: str | None, wanted: str) -> GalleryImage:
        served = self.service.catalogue.get(gallery)
        engine = await self.service.searching(served.engine)
        return await self.service.searching(known_image, engine, served.name, wanted)

    def _original(self, image: GalleryImage, headers: dict[str, str], method: str) -> Response:
        file = open_indexed(image)
        try:
            kind = browser_type(file)
        except BaseException:
            file.close()
            raise
        if kind is None:
            file.close()
            return self._shown(image, headers)
        headers |= {"Content-Length": str(image.bytes), "Content-Disposition": disposition(image.path.name)}
        if method == "HEAD":
            file.close()
            return Response(media_type=kind, headers=headers)
        return StreamingResponse(content_of(file, image), media_type=kind, headers=headers)

    def _shown(self, image: GalleryImage, headers: dict[str, str]) -> Response:
        """An image that browsers do not show, as one that they do."""
        content = self._drawn(image, FULL)
        kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
        headers |= {"Content-Disposition": disposition(f"{image.path.stem}.{kind}")}
        return Response(content, media_type=f"image/{kind}", headers=headers)

    def _drawn(self, image: GalleryImage, side: int) -> bytes:
        """A picture of an image, `side` pixels or FULL, drawn once and then kept."""
        thumbnails, key = self.service.thumbnails, (image.sha256, side)
        kept = thumbnails.get(key)
        if kept is not None:
            require_indexed(image)
            return kept
        with open_indexed(image) as file:
            drawn = make_shown(file) if side == FULL else make_thumbnail(file, side)
        thumbnails.put(key, drawn)
        return drawn

    def _page_file(self, request: Request, name: str) -> Response:
        file: PageFile | None = self.service.page.get(name)
        if file is None:
            raise HTTPException(404, "there is nothing at this address.")
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if is_known(request, file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


def gallery_entry(served: Served, queries: Queries) -> GalleryEntry:
    """What a gallery holds now, and what its encoder among those of `queries` knows."""
    engine = served.engine()
    domains = [DomainCount(name=name, count=count) for name, count in served.domains().items()]
    info = engine.info
    return GalleryEntry(
        name=served.name,
        count=len(engine),
        dim=info.dim,
        domains=domains,
        encoder=info.fingerprint,
        known_domains=list(queries.domains(served.fingerprint)),
        expand=queries.way(served.fingerprint).expand,
        knows_confidence=queries.way(served.fingerprint).confidence is not None,
        updated=info.updated,
    )


def way_of(form: SearchForm, usual: SearchOptions) -> SearchOptions:
    """How a gallery is searched: by default, except for the fields of the form. UsageError if the encoder has no confidence."""
    if form.min_confidence and usual.confidence is None:
        raise HTTPException(422, "min_confidence: the encoder of this gallery has no calibrated confidence. Leave it out.")
    expand = usual.expand if form.expand is None else form.expand
    return replace(usual, expand=expand, least=form.min_confidence)


def known_image(engine: Engine, gallery: str, wanted: str) -> GalleryImage:
    """The image with this id; UsageError if there is none."""
    image = engine.find(wanted) if re.fullmatch("[0-9a-f]{24}", wanted) else None
    if image is None:
        raise UsageError(f"gallery '{gallery}' has no image '{wanted[:40]}'. Search again; the gallery may have been updated.")
    return image


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has this content already."""
    given = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in given or given == ["*"]


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work, or abandon it when the client disconnects: what was not started by then costs nothing."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client went away.")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
