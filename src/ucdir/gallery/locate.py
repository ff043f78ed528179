"""Turns the arguments of a command into a gallery (`folder` or `milvus:URI`, and its name) and the encoder that made it."""

from pathlib import Path

from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.folder import Gallery, GalleryFolder
from ucdir.gallery.interface import Engine, GalleryInfo, GalleryWriter
from ucdir.model.encoder_folder import WEIGHTS
from ucdir.model.runtime import QueryEncoder, load_query_encoder

FOLDER = "folder"


def open_engine(gallery: Path, engine: str = FOLDER) -> Engine:
    """Open a gallery for searching.

    gallery  its folder; for Milvus the name of its collection
    engine   folder or milvus:URI
    """
    if engine == FOLDER:
        return Gallery.load(gallery)
    from ucdir.gallery.milvus import MilvusGallery

    return MilvusGallery.load(_uri(engine), str(gallery))


def gallery_writer(gallery: Path, engine: str = FOLDER, overwrite: bool = False) -> GalleryWriter:
    """Where `index` writes a gallery; see `open_engine`."""
    if engine == FOLDER:
        return GalleryFolder(gallery, overwrite)
    from ucdir.gallery.milvus import MilvusWriter

    return MilvusWriter(_uri(engine), str(gallery), overwrite)


def engine_flag(engine: str) -> str:
    """What to add to a command that is proposed: "" for a folder, else the flag, without user and password."""
    if engine == FOLDER:
        return ""
    from ucdir.gallery.milvus_store import Address

    return f" --engine milvus:{Address.read(_uri(engine))}"


def _uri(engine: str) -> str:
    kind, _, uri = engine.partition(":")
    if kind != "milvus" or not uri:
        raise UsageError(
            f"--engine '{engine}' is unknown. Use folder, milvus:FILE.db (Milvus Lite) or milvus:http://HOST:19530 (a server)."
        )
    return uri


def gallery_encoder(
    info: GalleryInfo,
    gallery: str,
    encoder: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    engine: str = FOLDER,
) -> QueryEncoder:
    """The encoder that made a gallery; UcdirError when it has moved or is another one."""
    recorded = Path(info.encoder_path)
    if encoder is None and not (recorded / WEIGHTS).is_file():
        raise UcdirError(
            f"the encoder of gallery '{gallery}' is no longer at '{recorded}'. Give its new location (--encoder FOLDER)."
        )
    folder = encoder or recorded
    loaded = load_query_encoder(folder, device, precision, runtime)
    info.require_encoder(loaded.fingerprint, folder, gallery, engine_flag(engine))
    return loaded
