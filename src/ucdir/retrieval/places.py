"""From the words of a command line to a gallery: `folder` or `milvus:URI`, and its name."""

from pathlib import Path

from ucdir.errors import UsageError
from ucdir.retrieval.engines import Engine, Place
from ucdir.retrieval.gallery import Gallery, GalleryFolder

FOLDER = "folder"


def open_engine(gallery: Path, engine: str = FOLDER) -> Engine:
    """Open a gallery for searching.

    gallery  its folder; for Milvus the name of its collection
    engine   folder or milvus:URI
    """
    if engine == FOLDER:
        return Gallery.load(gallery)
    from ucdir.retrieval.milvus import MilvusGallery

    return MilvusGallery.load(_uri(engine), str(gallery))


def place_of(gallery: Path, engine: str = FOLDER, overwrite: bool = False) -> Place:
    """Where `index` writes a gallery; see `open_engine`."""
    if engine == FOLDER:
        return GalleryFolder(gallery, overwrite)
    from ucdir.retrieval.milvus import MilvusPlace

    return MilvusPlace(_uri(engine), str(gallery), overwrite)


def engine_flag(engine: str) -> str:
    """What to add to a command that is proposed: "" for a folder, else the flag, without user and password."""
    if engine == FOLDER:
        return ""
    from ucdir.retrieval.milvus_store import Address

    return f" --engine milvus:{Address.read(_uri(engine))}"


def _uri(engine: str) -> str:
    kind, _, uri = engine.partition(":")
    if kind != "milvus" or not uri:
        raise UsageError(
            f"--engine '{engine}' is unknown. Use folder, milvus:FILE.db (Milvus Lite) or milvus:http://HOST:19530 (a server)."
        )
    return uri
