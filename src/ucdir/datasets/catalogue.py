"""The public data sets: what they hold and where they come from.

A number is given only if it is known; None means that nothing is asserted. Tests add up the tables.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

from ucdir.errors import UsageError

CLASS_CHOICES = ("standard", "all")


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch. `size` in bytes and `md5` are None when not known; `url` is None if it is behind a form."""

    name: str
    url: str | None = None
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class DomainSpec:
    """One domain as the official files have it.

    name             also of its manifest
    folders          names its folder may have; case, spaces, hyphens and underscores do not count
    images           expected images of the chosen classes, None = not known
    classes          class -> expected images, empty = not known
    listed           lines of its lists, of all classes; None = not known or no lists
    listed_uncleaned the same in the lists of an earlier version, to recognise them
    splits           split -> expected images of the chosen classes; splits not named are not known
    """

    name: str
    folders: tuple[str, ...]
    images: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    listed: int | None = None
    listed_uncleaned: int | None = None
    splits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetSpec:
    """A public data set.

    classes       names of its classes, empty = all that the lists name
    num_classes   as many as there should be
    inner         a folder between the domain and its classes that may be there, "" = none
    by_lists      images are those that <domain>_train.txt and <domain>_test.txt name, never those found by walking
    files         what to fetch
    layout        layout of the unpacked files, for people
    remarks       what is not asserted, what is left out
    """

    name: str
    title: str
    paper: str
    site: str
    licence: str
    layout: str
    domains: tuple[DomainSpec, ...]
    classes: tuple[str, ...]
    num_classes: int
    pairs: tuple[tuple[str, str], ...]
    ks: tuple[int, ...]
    files: tuple[RemoteFile, ...]
    preset: str | None = None
    inner: str = ""
    by_lists: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def downloadable(self) -> bool:
        """Can all of its files be fetched without a form?"""
        return all(file.url is not None for file in self.files)


def dataset(name: str, classes: str = "standard") -> DatasetSpec:
    """Find a data set by name.

    classes   "standard", or "all" for the 345 classes of DomainNet
    raises    UsageError for a name or a choice that does not exist
    """
    if classes not in CLASS_CHOICES:
        raise UsageError(f"--classes '{classes}' is unknown. Use one of: {', '.join(CLASS_CHOICES)}.")
    known = {spec.name: spec for spec in DATASETS}
    if name not in known:
        raise UsageError(_unknown(name, list(known)))
    if classes == "all" and name == DOMAINNET.name:
        return DOMAINNET_ALL
    return known[name]


def normalised(name: str) -> str:
    """A folder's name without what differs between copies: case, spaces, hyphens, underscores."""
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


def _unknown(name: str, known: list[str]) -> str:
    plainly = {normalised(one): one for one in known}
    near = difflib.get_close_matches(normalised(name), plainly, n=2)
    hint = f"Did you mean {' or '.join(plainly[one] for one in near)}?" if near else f"Use one of: {', '.join(known)}."
    return f"data set '{name}' is unknown. {hint}"


# Tables


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _table(classes: tuple[str, ...], *counts: int) -> dict[str, int]:
    return dict(zip(classes, counts, strict=True))


def _all_pairs(domains: tuple[DomainSpec, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(combinations((domain.name for domain in domains), 2))


_OFFICE_HOME_CLASSES = _words(
    "Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch "
    "Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet "
    "Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil "
    "Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon "
    "TV Table Telephone ToothBrush Toys Trash_Can Webcam"
)
_OFFICE_HOME_DOMAINS = (
    DomainSpec("art", ("Art",), 2427),
    DomainSpec("clipart", ("Clipart",), 4365),
    DomainSpec("product", ("Product",), 4439),
    DomainSpec("real_world", ("Real World",), 4357),
)
OFFICE_HOME = DatasetSpec(
    name="office-home",
    title="Office-Home",
    paper="Venkateswara et al., Deep Hashing Network for Unsupervised Domain Adaptation, CVPR 2017",
    site="https://www.hemanthdv.org/officeHomeDataset.html",
    licence="fair use notice: non-commercial research and education; the pictures belong to their owners, see the site",
    layout="Art, Clipart, Product, 'Real World' (or Real_World), each with 65 class folders",
    domains=_OFFICE_HOME_DOMAINS,
    classes=_OFFICE_HOME_CLASSES,
    num_classes=65,
    pairs=_all_pairs(_OFFICE_HOME_DOMAINS),
    ks=(1, 5, 15),
    files=(RemoteFile("OfficeHomeDataset_10072016.zip"),),
    preset="office-home",
    remarks=("Counts per class are not asserted, only that each of the 65 classes is there.",),
)

# The official site gives the numbers of all 345 classes, before and after cleaning. MD5 and sizes: a public mirror.
_SERVER = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_SEVEN = _words("bird feather teapot tiger whale windmill zebra")
_DOMAINNET_DOMAINS = (
    DomainSpec("clipart", ("clipart",), 1959, _table(_SEVEN, 335, 268, 221, 314, 342, 245, 234), 48129, 48837),
    DomainSpec("infograph", ("infograph",), 2121, _table(_SEVEN, 202, 424, 209, 269, 371, 350, 296), 51605, 53201),
    DomainSpec("painting", ("painting",), 2415, _table(_SEVEN, 220, 343, 385, 420, 354, 396, 297), 72266, 75759),
    DomainSpec("quickdraw", ("quickdraw",), 3500, dict.fromkeys(_SEVEN, 500), 172500, splits={"test": 1050}),
    DomainSpec("real", ("real",), None, {}, 172947, 175327, splits={"test": 1346}),
    DomainSpec("sketch", ("sketch",), 2091, _table(_SEVEN, 306, 305, 315, 379, 269, 242, 275), 69128, 70386),
)


def _domainnet_list(name: str, size: int, md5: str) -> RemoteFile:
    return RemoteFile(f"{name}.txt", f"{_SERVER}/domainnet/txt/{name}.txt", size, md5)


_DOMAINNET_FILES = (
    RemoteFile("clipart.zip", f"{_SERVER}/groundtruth/clipart.zip", 1270909081, "cd0d8f2d77a4e181449b78ed62bccf1e"),
    RemoteFile("infograph.zip", f"{_SERVER}/infograph.zip", 4338659804, "720380b86f9e6ab4805bb38b6bd135f8"),
    RemoteFile("painting.zip", f"{_SERVER}/groundtruth/painting.zip", 3679366174, "1ae32cdb4f98fe7ab5eb0a351768abfd"),
    RemoteFile("quickdraw.zip", f"{_SERVER}/quickdraw.zip", 459920701, "bdc1b6f09f277da1a263389efe0c7a66"),
    RemoteFile("real.zip", f"{_SERVER}/real.zip", 6062039589, "dcc47055e8935767784b7162e7c7cca6"),
    RemoteFile("sketch.zip", f"{_SERVER}/sketch.zip", 2633992926, "658d8009644040ff7ce30bb2e820850f"),
    _domainnet_list("clipart_train", 1443819, "b4349693a7f9c05c53955725c47ed6cb"),
    _domainnet_list("clipart_test", 628917, "f5ddbcfd657a3acf9d0f7da10db22565"),
    _domainnet_list("infograph_train", 1683098, "379b50054f4ac2018dca4f89421b92d9"),
    _domainnet_list("infograph_test", 728028, "779626b50869edffe8ea6941c3755c71"),
    _domainnet_list("painting_train", 2241901, "7db0e7ca73ad9982f6e1f7f3ef372c0a"),
    _domainnet_list("painting_test", 971888, "232b35dc53f26d414686ae579e38d9b5"),
    _domainnet_list("quickdraw_train", 5164600, "b732ced3939ac8efdd8c0a889dca56cc"),
    _domainnet_list("quickdraw_test", 2213400, "c1a828fdfe216fb109f1c0083a252c6f"),
    _domainnet_list("real_train", 4440944, "8ebf02c2075fadd564705f0dc7cd6291"),
    _domainnet_list("real_test", 1911327, "6098816791c3ebed543c71ffa11b9054"),
    _domainnet_list("sketch_train", 1960222, "1233bd18aa9a8a200bf4cecf1c34ef3e"),
    _domainnet_list("sketch_test", 850581, "d8a222e4672cfd585298aa14d02ea441"),
)
DOMAINNET = DatasetSpec(
    name="domainnet",
    title="DomainNet, cleaned version, seven classes",
    paper="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019",
    site="http://ai.bu.edu/M3SDA/",
    licence="fair use notice: non-commercial research and education; the pictures belong to their owners, see the site",
    layout="clipart, infograph, painting, quickdraw, real, sketch, each with class folders; <domain>_train.txt and "
    "<domain>_test.txt anywhere next to them",
    domains=_DOMAINNET_DOMAINS,
    classes=_SEVEN,
    num_classes=7,
    pairs=(
        ("clipart", "sketch"),
        ("infograph", "real"),
        ("infograph", "sketch"),
        ("painting", "clipart"),
        ("painting", "quickdraw"),
        ("quickdraw", "real"),
    ),
    ks=(50, 100, 200),
    files=_DOMAINNET_FILES,
    preset="domainnet",
    by_lists=True,
    remarks=(
        "Images are those of the lists, train and test together; the folders also hold duplicates.",
        "real: of the seven classes only the 1,346 images of its test list are asserted; its total is not known.",
        "In every domain the lines of both lists are asserted; with --classes all (345 classes) only these.",
    ),
)
DOMAINNET_ALL = replace(
    DOMAINNET,
    title="DomainNet, cleaned version, all 345 classes",
    domains=tuple(replace(one, images=None, classes={}, splits={}) for one in _DOMAINNET_DOMAINS),
    classes=(),
    num_classes=345,
    preset=None,
)

_PACS_CLASSES = _words("dog elephant giraffe guitar horse house person")
_PACS_DOMAINS = (
    DomainSpec("photo", ("photo",), 1670, _table(_PACS_CLASSES, 189, 202, 182, 186, 199, 280, 432)),
    DomainSpec("art_painting", ("art_painting",), 2048, _table(_PACS_CLASSES, 379, 255, 285, 184, 201, 295, 449)),
    DomainSpec("cartoon", ("cartoon",), 2344, _table(_PACS_CLASSES, 389, 457, 346, 135, 324, 288, 405)),
    DomainSpec("sketch", ("sketch",), 3929, _table(_PACS_CLASSES, 772, 740, 753, 608, 816, 80, 160)),
)
PACS = DatasetSpec(
    name="pacs",
    title="PACS",
    paper="Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017",
    site="https://dali-dl.github.io/project_iccv2017.html",
    licence="none stated with the files; used for research, see the site",
    layout="photo, art_painting, cartoon, sketch, each with 7 class folders; the folder above is PACS or kfold",
    domains=_PACS_DOMAINS,
    classes=_PACS_CLASSES,
    num_classes=7,
    pairs=_all_pairs(_PACS_DOMAINS),
    ks=(50, 100, 200),
    files=(RemoteFile("PACS.zip"),),
)

_VISDA_CLASSES = _words("aeroplane bicycle bus car horse knife motorcycle person plant skateboard train truck")
_VISDA_SERVER = "http://csr.bu.edu/ftp/visda17/clf"
_VISDA_SYNTHETIC = (14309, 7365, 16640, 12800, 9512, 14240, 17360, 12160, 10731, 11680, 16000, 9600)
_VISDA_REAL = (3646, 3475, 4690, 10401, 4691, 2075, 5796, 4000, 4549, 2281, 4236, 5548)
VISDA = DatasetSpec(
    name="visda",
    title="VisDA-2017, classification",
    paper="Peng et al., VisDA: The Visual Domain Adaptation Challenge, 2017",
    site="http://ai.bu.edu/visda-2017/",
    licence="see the site",
    layout="train (synthetic) and validation (real), each with 12 class folders",
    domains=(
        DomainSpec("synthetic", ("train",), 152397, _table(_VISDA_CLASSES, *_VISDA_SYNTHETIC)),
        DomainSpec("real", ("validation",), 55388, _table(_VISDA_CLASSES, *_VISDA_REAL)),
    ),
    classes=_VISDA_CLASSES,
    num_classes=12,
    pairs=(("synthetic", "real"),),
    ks=(50, 100, 200),
    files=tuple(RemoteFile(name, f"{_VISDA_SERVER}/{name}") for name in ("train.tar", "validation.tar")),
    remarks=("The test images (72,372, with a list of their own) are not used.",),
)

_OFFICE31_DOMAINS = (
    DomainSpec("amazon", ("amazon",), 2817),
    DomainSpec("dslr", ("dslr",), 498),
    DomainSpec("webcam", ("webcam",), 795),
)
OFFICE31 = DatasetSpec(
    name="office31",
    title="Office-31",
    paper="Saenko et al., Adapting Visual Category Models to New Domains, ECCV 2010",
    site="https://faculty.cc.gatech.edu/~judy/domainadapt/",
    licence="see the site",
    layout="amazon, dslr, webcam, each with a folder images that holds 31 class folders",
    domains=_OFFICE31_DOMAINS,
    classes=_words(
        "back_pack bike bike_helmet bookcase bottle calculator desk_chair desk_lamp desktop_computer file_cabinet "
        "headphones keyboard laptop_computer letter_tray mobile_phone monitor mouse mug paper_notebook pen phone printer "
        "projector punchers ring_binder ruler scissors speaker stapler tape_dispenser trash_can"
    ),
    num_classes=31,
    pairs=_all_pairs(_OFFICE31_DOMAINS),
    ks=(1, 5, 15),
    files=(RemoteFile("domain_adaptation_images.tar.gz"),),
    inner="images",
    remarks=("Counts per class are not asserted, only that each of the 31 classes is there.",),
)

DATASETS = (OFFICE_HOME, DOMAINNET, PACS, VISDA, OFFICE31)
