"""Stands in for `ucdir serve` while the page is tested: the same routes, real files, hits random but fixed by the query.

    python tests/web/stub_service.py FOLDER [--port 8765] [--token TOKEN] [--delay 0.1]

FOLDER holds one folder of images per domain. Gallery `collection` has every domain, gallery `first` only the first.
"""

import argparse
import hashlib
import io
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, Form, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image, UnidentifiedImageError

STATIC = Path(__file__).parents[2] / "src" / "ucdir" / "web" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OPEN = ("/", "/health")
MAX_BYTES, MAX_PIXELS, MAX_K = 20_000_000, 89_000_000, 200


@dataclass(frozen=True)
class Picture:
    """One image of a gallery."""

    id: str
    path: Path
    domain: str
    folder: str  # below the domain's own folder, "" for the folder itself


def pictures_of(root: Path) -> list[Picture]:
    """Every image below `root`, sorted by path."""
    found = sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".png"))
    return [_picture(root, path) for path in found]


def _picture(root: Path, path: Path) -> Picture:
    domain, *folders, _ = path.relative_to(root).parts
    return Picture(hashlib.sha256(str(path.relative_to(root)).encode()).hexdigest()[:32], path, domain, "/".join(folders))


def make_app(root: Path, token: str | None = None, delay: float = 0.0) -> FastAPI:
    """The service over `root`; `delay` seconds before each answer of /search."""
    everything = pictures_of(root)
    galleries = {"collection": everything, "first": [p for p in everything if p.domain == everything[0].domain]}
    app = FastAPI(docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        locked = token and request.url.path not in OPEN and not request.url.path.startswith("/static/")
        if locked and request.headers.get("authorization") != f"Bearer {token}":
            return JSONResponse({"detail": "This server needs a token: send 'Authorization: Bearer TOKEN'."}, 401)
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    def gallery_of(name: str | None) -> list[Picture]:
        if name and name not in galleries:
            raise HTTPException(404, f"gallery '{name}' is not served here. There are: {', '.join(galleries)}.")
        return galleries[name or "collection"]

    def picture_of(image_id: str, gallery: str | None) -> Picture:
        for picture in gallery_of(gallery):
            if picture.id == image_id:
                return picture
        raise HTTPException(404, f"image '{image_id}' is not in the gallery.")

    @app.get("/")
    def page() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "version": "0.1.0", "galleries": len(galleries), "token_required": token is not None}

    @app.get("/galleries")
    def list_galleries() -> dict[str, Any]:
        listed = [_described(name, pictures) for name, pictures in galleries.items()]
        return {"galleries": listed, "limits": {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS, "max_k": MAX_K}}

    @app.post("/search")
    def search(
        image: Annotated[bytes | None, File()] = None,
        image_id: Annotated[str | None, Form()] = None,
        gallery: Annotated[str | None, Form()] = None,
        domain: Annotated[str | None, Form()] = None,
        under: Annotated[str | None, Form()] = None,
        k: Annotated[int, Form(ge=1, le=MAX_K)] = 24,
    ) -> dict[str, Any]:
        time.sleep(delay)
        if (image is None) == (image_id is None):
            raise HTTPException(422, "Send exactly one of: image, image_id.")
        chosen = [p for p in gallery_of(gallery) if domain in (None, "", p.domain) and _is_under(p, under) and p.id != image_id]
        query = {"kind": "upload", "image_id": None} if image is not None else {"kind": "image", "image_id": image_id}
        width, height = _size(io.BytesIO(image) if image is not None else picture_of(image_id or "", gallery).path)
        ranked = _ranked(chosen, image or (image_id or "").encode())[:k]
        hits = [_hit(rank, p, similarity, gallery or "collection") for rank, (p, similarity) in enumerate(ranked, start=1)]
        query |= {"width": width, "height": height}
        return {"gallery": gallery or "collection", "searched": len(chosen), "seconds": 0.031, "query": query, "hits": hits}

    @app.get("/images/{image_id}")
    def original(image_id: str, gallery: str | None = None) -> Response:
        return FileResponse(_present(picture_of(image_id, gallery).path), headers={"Cache-Control": "private, no-cache"})

    @app.get("/images/{image_id}/thumbnail")
    def thumbnail(image_id: str, gallery: str | None = None, side: int = 320) -> Response:
        content = io.BytesIO()
        with Image.open(_present(picture_of(image_id, gallery).path)) as opened:
            small = opened.convert("RGB")
            small.thumbnail((side, side))
            small.save(content, "JPEG", quality=85)
        return Response(content.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})

    return app


def _described(name: str, pictures: list[Picture]) -> dict[str, Any]:
    names = sorted({picture.domain for picture in pictures})
    domains = [{"name": domain, "count": sum(p.domain == domain for p in pictures)} for domain in names]
    updated = "2026-11-23T04:00:00+00:00"
    return {"name": name, "count": len(pictures), "dim": 128, "domains": domains, "encoder": "3f9c", "updated": updated}


def _ranked(pictures: list[Picture], query: bytes) -> list[tuple[Picture, float]]:
    """Best first; a class that the query's bytes pick is nearer than the others."""
    chance = random.Random(hashlib.sha256(query).digest())
    nearest = chance.choice(sorted({picture.folder for picture in pictures})) if pictures else ""
    scored = [(p, round(0.2 + 0.45 * chance.random() + 0.25 * (p.folder == nearest), 4)) for p in pictures]
    return sorted(scored, key=lambda pair: -pair[1])


def _hit(rank: int, picture: Picture, similarity: float, gallery: str) -> dict[str, Any]:
    width, height = _size(picture.path) if picture.path.exists() else (96, 96)
    return {
        "rank": rank,
        "id": picture.id,
        "similarity": similarity,
        "domain": picture.domain,
        "class": picture.folder or None,
        "name": picture.path.name,
        "folder": picture.folder,
        "width": width,
        "height": height,
        "bytes": picture.path.stat().st_size if picture.path.exists() else 0,
        "image": f"/images/{picture.id}?gallery={gallery}",
        "thumbnail": f"/images/{picture.id}/thumbnail?gallery={gallery}",
    }


def _is_under(picture: Picture, under: str | None) -> bool:
    return not under or f"{picture.folder}/".startswith(f"{under.strip('/')}/")


def _present(path: Path) -> Path:
    if not path.exists():
        raise HTTPException(410, f"'{path.name}' is gone or has changed since the gallery was indexed.")
    return path


def _size(source: Path | io.BytesIO) -> tuple[int, int]:
    try:
        with Image.open(source) as opened:
            return opened.size
    except UnidentifiedImageError:
        raise HTTPException(
            415, "The query is not an image that ucdir opens: send JPEG, PNG, WebP, GIF, BMP or TIFF."
        ) from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--token")
    parser.add_argument("--delay", type=float, default=0.0)
    asked = parser.parse_args()
    uvicorn.run(make_app(asked.folder, asked.token, asked.delay), port=asked.port, log_level="warning")
