"""Small trees of exactly the layout that the files of each public data set have when they are unpacked."""

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ucdir.datasets.catalogue import DOMAINNET, OFFICE31, OFFICE_HOME, PACS, VISDA, DatasetSpec

FOLDER = {
    OFFICE_HOME.name: "OfficeHomeDataset_10072016",
    DOMAINNET.name: ".",
    PACS.name: "kfold",
    VISDA.name: ".",
    OFFICE31.name: "domain_adaptation_images",
}


def count_of(domain: int, number: int) -> int:
    """Images of a class in the small trees: 1 or 2."""
    return 1 + (domain + number) % 2


def smaller(spec: DatasetSpec) -> DatasetSpec:
    """The same data set with the counts of the small trees."""
    domains = []
    for number, domain in enumerate(spec.domains):
        counts = {name: count_of(number, place) for place, name in enumerate(spec.classes)}
        splits = {"test": len(counts)} if domain.splits else {}
        listed = sum(counts.values()) + 1 if spec.by_lists else None  # one of a class that is not chosen
        earlier = listed and listed + 5
        domains.append(replace(domain, images=sum(counts.values()), classes=counts, splits=splits, listed=listed))
        domains[-1] = replace(domains[-1], listed_uncleaned=earlier)
    return replace(spec, domains=tuple(domains))


def picture(text: str) -> bytes:
    """A tiny image that no other text gives."""
    seed = sum(ord(letter) * 31**place for place, letter in enumerate(text))
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (seed % 256, seed // 256 % 256, seed // 65536 % 256)).save(stream, "png")
    return stream.getvalue()


def files_of(spec: DatasetSpec) -> dict[str, bytes]:
    """All files of a small tree by path, lists included."""
    files: dict[str, bytes] = {}
    for number, domain in enumerate(spec.domains):
        inner = "images/" if spec.inner else ""
        lines: dict[str, list[str]] = {"train": [], "test": []}
        wanted = [(name, count) for name, count in domain.classes.items()]
        for place, (name, count) in enumerate([*wanted, *([("zebra_crossing", 1)] if spec.by_lists else [])]):
            for image in range(count):
                path = f"{domain.folders[0]}/{inner}{name}/{number}_{place:03}_{image:06}.png"
                files[f"{FOLDER[spec.name]}/{path}".removeprefix("./")] = picture(path)
                lines["train" if image else "test"].append(f"{path} {place}")
        if spec.by_lists:
            files |= {f"{domain.name}_{split}.txt": "\n".join([*rows, ""]).encode() for split, rows in lines.items()}
            files[f"{domain.folders[0]}/bird/duplicate.png"] = picture("duplicate")
    return files


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
