"""Settings of a run: preset < TOML file < flags. Validated once, saved with the run, unknown keys refused."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from ucdir import run_folder
from ucdir.errors import UsageError
from ucdir.outside import is_outside, load_outside, require_trust, trust


class Section(BaseModel):
    """A group of settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _at_least_two(counts: tuple[int, ...]) -> tuple[int, ...]:
    if not counts or min(counts) < 2:
        raise ValueError("at least one count is needed and each must be at least 2")
    return counts


Counts = Annotated[  # of clusters; a single one is a list of one
    tuple[int, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, int) else value),
    AfterValidator(_at_least_two),
]


class DataSettings(Section):
    """Which images, and how they are read."""

    domains: tuple[str, ...] = ()  # NAME=PATH of folders or manifests; filled in from the command line
    classes: Literal["auto", "folders", "none"] = Field(
        "auto", description="Whether folders are classes. Training never reads classes."
    )
    split: str | None = Field(None, description="Train on the rows of this split of a manifest.")
    max_unreadable: float = Field(0.01, ge=0.0, le=1.0)  # share of unreadable images above which training stops
    max_blur_sigma: float = Field(2.0, ge=0.1)  # px in a training view; the paper's 2 px are meant for 224 px
    augmented_views: int = Field(4, ge=2, multiple_of=2)  # of each image, where only the head learns
    workers: int = Field(0, ge=0, description="Threads for reading images; 0 = one per core.")
    views: Literal["auto", "cpu", "device"] = "auto"  # what renders training views; auto = the device if it is CUDA
    cache_dir: str = Field(
        "auto", min_length=1, description="Where to cache decoded pixels: a folder, auto (the user's cache) or none."
    )
    cache_gb: float = Field(20.0, ge=0.0)  # size of the cache at most; never over a quarter of the free space


class EncoderSettings(Section):
    """The network and where it starts."""

    backbone: str = Field(
        "torchvision/resnet50", description="torchvision/NAME, timm/NAME, or module:FACTORY from a package of your own."
    )
    weights: str = Field(
        "default",
        description="default (the library's ImageNet weights), none, or PATH: MoCo v2, torchvision, timm, an encoder folder.",
    )
    image_size: int = Field(224, ge=16, description="Side length of the images in pixels.")
    dim: int = Field(128, ge=2)  # D, length of an embedding
    hidden: int | None = Field(None, ge=1)  # width of the projection head; none = as wide as the backbone's features


FORMAT_VERSION = 2  # of settings that a run folder keeps; 1: other names, milestones in epochs
RENAMED = {"data.strongest_blur": "data.max_blur_sigma", "optimiser.parts": "optimiser.accumulation_steps"}  # since 2
DEFAULT_PRESET = "align"  # of a run that names neither a preset nor a method
PAPER = "ucdir"  # the method of presets that name none


class AlignSettings(Section):
    """The closed-form method (`learn/align.py`)."""

    shrinkage: float = Field(0.3, gt=0.0)  # fraction of the mean within-image variance added to every direction
    dim: int = Field(128, ge=2)  # directions kept
    group_counts: Counts = (8, 12, 16, 24, 32, 48)  # soft groups in each grouping
    groupings: int = Field(8, ge=1)  # of each count and kind
    length: int = Field(256, ge=2)  # of an embedding
    temperature: float = Field(0.05, gt=0.0)  # of memberships
    neighbours: int = Field(20, ge=1)  # averaged within a domain
    rounds: int = Field(1, ge=0)  # of learning again with the pairs found so far
    draw: int = Field(0, ge=0)  # which of the random crops; another number shows how much depends on them


class TuneSettings(Section):
    """How the backbone of method tune learns what align found (`learn/tuning.py`)."""

    epochs: int = Field(5, ge=1)
    taught: int = Field(2, ge=1)  # epochs that aim at what align found; later ones at what the backbone itself has found
    crop_size: int = Field(128, ge=16)  # px of the crops it learns from
    image_size: int = Field(192, ge=16)  # px of whole images afterwards: a thing is then as large in them as in crops
    batch_size: int = Field(32, ge=1)  # images of each domain in a step
    fewest_steps: int = Field(50, ge=1)  # of an epoch: small collections are gone through several times
    learning_rate: float = Field(2e-4, gt=0.0)  # of AdamW, at its highest; half a cosine leads to 0
    weight_decay: float = Field(1e-2, ge=0.0)


class MethodSettings(Section):
    """The method. Each has a class of its own with what it reads besides the name: see `settings_class`."""

    name: str = Field(
        "align",
        description="align (the default), tune; by gradient only: ucdir, instance, cluster, prototype, coda, protoot, or "
        "module:CLASS from a package of your own.",
    )


class GradientSettings(MethodSettings):
    """What the training loop reads for every method that learns by gradient."""

    num_clusters: Counts = Field(
        (65,), description="Clusters per domain; repeat for several independent clusterings, which are averaged."
    )
    encoder_momentum: float = Field(0.999, ge=0.0, le=1.0)  # EMA factor of the momentum encoder
    batch_norm_splits: int = Field(2, ge=1)  # interleaved groups of keys with statistics of their own
    kmeans_iterations: int = Field(20, ge=1)  # at most; a start that has converged ends earlier
    kmeans_restarts: int = Field(5, ge=1)  # the lowest inertia wins; of many images they look at a sample
    kmeans_warm_start: bool = False  # start from the clusters of the last epoch, plus one fresh start instead of all


CLOSED_FORM = ("align", "tune")  # learn no objective, or only after the closed form; their settings are sections
METHODS = {  # that learn by gradient from the start -> their class, which has its settings
    "ucdir": "ucdir.learn.methods.ucdir:Ucdir",
    "instance": "ucdir.learn.methods.contrast:Instance",
    "cluster": "ucdir.learn.methods.ucdir:Cluster",
    "prototype": "ucdir.learn.methods.prototype:Prototype",
    "coda": "ucdir.learn.methods.coda:Coda",
    "protoot": "ucdir.learn.methods.protoot:ProtoOT",
}


def method_class(name: str) -> Any:
    """The class of a method that learns by gradient, ours or module:CLASS; UsageError when there is none."""
    if name not in METHODS and not is_outside(name):
        known = (*CLOSED_FORM, *METHODS)
        raise UsageError(f"unknown method '{name}'. {did_you_mean(name, known)} A method of your own is named module:CLASS.")
    found = load_outside(METHODS.get(name, name), "method")
    settings = getattr(found, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, GradientSettings)):
        raise UsageError(f"method '{name}' has no settings. Give its class an attribute `settings`, a GradientSettings class.")
    trust(name)
    return found


def settings_class(method: str) -> type[MethodSettings]:
    """The settings that a method reads in [method]."""
    if method in CLOSED_FORM:
        return MethodSettings
    found: type[MethodSettings] = method_class(method).settings
    return found


class OptimiserSettings(Section):
    """How weights follow gradients; the paper uses sgd."""

    train: Literal["all", "head"] = Field(
        "all", description="head: keep the backbone as it is and run it once, for a few views; minutes on a laptop."
    )
    name: Literal["sgd", "adamw", "amsgrad"] = "sgd"  # adamw learns faster from random numbers; amsgrad is of protoot
    epochs: int = Field(200, ge=1, description="Passes over the largest domain.")
    batch_size: int = Field(64, ge=2, description="Images of each domain in a step, of all processes together.")
    accumulation_steps: int = Field(1, ge=1)  # parts of a step whose gradients add up: for cards with little memory
    learning_rate: float = Field(2e-4, gt=0.0, description="Learning rate of the first epoch.")
    momentum: float = Field(0.9, ge=0.0, lt=1.0)  # of sgd
    weight_decay: float = Field(1e-4, ge=0.0)
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.6, 0.8)  # fractions of the run at which `step` halves the rate

    @field_validator("milestones")
    @classmethod
    def fractions_of_the_run(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < fraction < 1 for fraction in value):
            raise ValueError("each must be a fraction of the run between 0 and 1; epoch 120 of 200 is 0.6")
        return value


class RunSettings(Section):
    """How the run is carried out."""

    seed: int = Field(0, ge=0, description="Random seed.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the computation.")
    oracle: bool = True  # where classes exist, also score each epoch and keep the oracle epoch apart


class Settings(Section):
    """Everything that decides a run."""

    data: DataSettings = DataSettings()
    encoder: EncoderSettings = EncoderSettings()
    method: SerializeAsAny[MethodSettings] = MethodSettings()
    align: AlignSettings = AlignSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    tune: TuneSettings = TuneSettings()
    run: RunSettings = RunSettings()

    @field_validator("method", mode="before")
    @classmethod
    def of_the_class_of_the_method(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return settings_class(value.get("name", DEFAULT_PRESET)).model_validate(value)

    def of_method(self, name: str) -> "Settings":
        """The same for another method, without what that one does not read."""
        wanted = settings_class(name)
        kept = {key: value for key, value in self.method.model_dump().items() if key in wanted.model_fields}
        return self.model_copy(update={"method": wanted.model_validate({**kept, "name": name})})

    @property
    def gradient(self) -> GradientSettings:
        """The settings of a method that learns by gradient."""
        assert isinstance(self.method, GradientSettings)
        return self.method

    @property
    def aligns(self) -> bool:
        """Whether the method is align, alone or with the backbone tuned after it; others learn by gradient from the start."""
        return self.method.name in CLOSED_FORM

    def to_toml(self) -> str:
        """Write as TOML text that `load_settings` reads back to equal settings; a missing key means none.

        Settings that the method does not read are left out: they are the defaults again when it is read back.
        """
        lines = [f"format_version = {FORMAT_VERSION}", ""]
        for name, section in self.model_dump(mode="json").items():
            read = {key: value for key, value in section.items() if value is not None and self.reads(f"{name}.{key}")}
            if read:
                lines.append(f"[{name}]")
                lines.extend(f"{key} = {_toml_value(value)}" for key, value in read.items())
                lines.append("")
        return "\n".join(lines)

    def reads(self, key: str) -> bool:
        """Whether the method reads the setting section.key."""
        return is_read_by(self.method.name, key)


WITH_FLAG = (  # settings with a flag of their own, see `flag_of`
    *("method.name", "encoder.backbone", "encoder.weights", "encoder.image_size"),
    *("optimiser.train", "optimiser.epochs", "optimiser.batch_size", "optimiser.learning_rate", "method.num_clusters"),
    *("data.classes", "data.split", "data.workers", "data.cache_dir", "run.seed", "run.device", "run.precision"),
)
OF_TRAINING_VIEWS = ("data.max_blur_sigma", "data.views")
OF_GRADIENT = (*OF_TRAINING_VIEWS, "data.augmented_views", "encoder.dim", "encoder.hidden", "run.oracle")


def flag_of(key: str) -> str:
    """How the command line names the setting section.key."""
    if key not in WITH_FLAG:
        return f"--set {key}"
    section, _, name = key.partition(".")
    return f"--{section if name == 'name' else name.replace('_', '-')}"


def setting_field(key: str) -> FieldInfo:
    """Type, range and meaning of the setting section.key."""
    section, _, name = key.partition(".")
    annotation = Settings.model_fields[section].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, Section)
    fields = GradientSettings.model_fields if section == "method" else annotation.model_fields
    return fields[name]


def is_read_by(method: str, key: str) -> bool:
    """Whether `method` reads the setting section.key."""
    section, _, name = key.partition(".")
    if section == "method":
        return name in settings_class(method).model_fields
    if section == "tune":
        return method == "tune"
    if section == "align":
        return method in CLOSED_FORM
    if method == "tune" and key in OF_TRAINING_VIEWS:
        return True
    return method not in CLOSED_FORM or not (section == "optimiser" or key in OF_GRADIENT)


def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    files = resources.files("ucdir").joinpath("presets").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_settings(
    preset: str | None = None,
    file: Path | None = None,
    assignments: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    is_of_run: bool = False,
    methods: Sequence[str] = (),
    method: str | None = None,
) -> Settings:
    """Resolve the settings of a run: defaults < preset < file < assignments.

    preset        name from `preset_names`; None = `align`, unless the file or the assignments name a method
    file          TOML file with the same sections
    assignments   {"section.key": value}; a text value is read as TOML if it is valid TOML, else as plain text
    defaults      like assignments, but under everything else
    is_of_run     the file is config.toml of a run folder: names of earlier versions are read, too, and what the method of
                  the run does not read is ignored
    methods       names of methods that share the settings, as in a benchmark: each setting must be read by one of them
    method        the one of them whose settings are wanted; None = the one that the preset, the file or the assignments name
    raises        UsageError for an unknown preset, section or key (near names are given), for a wrong value, and for one
                  that no method reads
    """
    assigned = _nested(assignments or {})
    given: dict[str, dict[str, Any]] = {}
    if file is not None:
        content = _read_file(file, is_of_run)
        _merge(given, content, f"'{file}'")
        for section, key in (("method", "name"), ("encoder", "backbone")) if is_of_run else ():
            require_trust(str(content.get(section, {}).get(key, "")), f"'{file}'")
    _merge(given, assigned, "the command line")
    named = given.get("method", {}).get("name")
    if preset is None and named in (None, DEFAULT_PRESET):
        preset = DEFAULT_PRESET
    merged: dict[str, dict[str, Any]] = {}
    _merge(merged, _nested(defaults or {}), "the defaults")
    if preset is not None:
        _merge(merged, _read_preset(preset), f"preset '{preset}'")
    _merge(merged, given, "the command line")
    chosen = str(method or merged.get("method", {}).get("name", PAPER))
    merged["method"] = {key: value for key, value in merged.get("method", {}).items() if is_read_by(chosen, f"method.{key}")}
    merged["method"]["name"] = chosen
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from error
    _refuse_unread(methods or (chosen,), assigned if is_of_run else given)
    trust(settings.encoder.backbone)
    return settings


def stored_settings(folder: Path) -> Settings:
    """The settings of the run in `folder`, also of one that an earlier version of ucdir wrote."""
    return load_settings(file=folder / run_folder.SETTINGS, is_of_run=True)


def _refuse_unread(methods: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> None:
    """A setting that no chosen method reads is not ignored silently."""
    for section, values in given.items():
        for name in values:
            key = f"{section}.{name}"
            if any(is_read_by(method, key) for method in methods):
                continue
            readers = [method for method in (*CLOSED_FORM, *METHODS) if is_read_by(method, key)]
            if not readers:
                raise UsageError(f"unknown setting '{key}'. {_similar(section, name, _known_keys(with_methods=True))}")
            raise UsageError(
                f"{flag_of(key)} has no effect with method {' or '.join(methods)}. {_instead(methods, key, readers)}"
            )


def _instead(methods: Sequence[str], key: str, readers: Sequence[str]) -> str:
    """What to do about a setting section.key that none of the methods reads."""
    name = key.partition(".")[2]
    if "tune" in methods and name in TuneSettings.model_fields:
        return f"Use --set tune.{name}=VALUE."
    return f"Leave it out, or choose a method that reads it (--method {' or '.join(readers)})."


def differences(one: Settings, other: Settings) -> tuple[str, ...]:
    """Names, as section.key, of the settings in which two runs differ, among those that the method of the first reads."""
    flat, against = _flat(one), _flat(other)
    return tuple(key for key, value in flat.items() if value != against.get(key) and one.reads(key))


def value_of(settings: Settings, key: str) -> Any:
    """The value of section.key."""
    return _flat(settings)[key]


def _flat(settings: Settings) -> dict[str, Any]:
    return {f"{name}.{key}": value for name, section in settings.model_dump().items() for key, value in section.items()}


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read `section.key=value` texts, as given to --set."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set '{text}' has no value. Write it as --set section.key=value.")
        result[key.strip()] = _plain_value(value.strip())
    return result


def _plain_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise UsageError(f"unknown preset '{name}'. {did_you_mean(name, preset_names())}")
    return tomllib.loads(resources.files("ucdir").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8"))


def _read_file(file: Path, is_of_run: bool) -> dict[str, Any]:
    content = _read_toml(file)
    version = content.pop("format_version", 1 if is_of_run else FORMAT_VERSION)
    if version not in range(1, FORMAT_VERSION + 1):
        raise UsageError(f"'{file}' has format_version {version}; this ucdir reads up to {FORMAT_VERSION}. Update ucdir.")
    return _renamed(content) if version == 1 else content


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Settings of format 1 under their names of today; milestones were epochs."""
    for old, new in RENAMED.items():
        section, key = old.split(".")
        values = content.get(section, {})
        if key in values:
            values[new.partition(".")[2]] = values.pop(key)
    optimiser = content.get("optimiser", {})
    if "milestones" in optimiser:
        optimiser["milestones"] = [
            epoch / optimiser["epochs"] for epoch in optimiser["milestones"] if epoch < optimiser["epochs"]
        ]
    return content


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"settings file not found: '{file}'. Give the path of a TOML file to --config.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"settings file '{file}' cannot be read as TOML: {error}. Correct it and run again.") from error


def _nested(assignments: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for dotted, value in assignments.items():
        section, dot, key = dotted.partition(".")
        if not dot:
            known = [f"{name}.{field}" for name, fields in _known_keys().items() for field in fields]
            raise UsageError(f"setting '{dotted}' has no section. {did_you_mean(dotted, known)}")
        nested.setdefault(section, {})[key] = value
    return nested


def _merge(merged: dict[str, dict[str, Any]], update: Mapping[str, Any], origin: str) -> None:
    known = _known_keys()
    for section, values in update.items():
        if section not in known:
            raise UsageError(f"unknown section '{section}' in {origin}. {did_you_mean(section, known)}")
        if not isinstance(values, Mapping):
            raise UsageError(f"'{section}' in {origin} is a value, not a section. Write it under [{section}].")
        for key in values:
            if f"{section}.{key}" in RENAMED:
                raise UsageError(
                    f"setting '{section}.{key}' in {origin} is now called {RENAMED[f'{section}.{key}']}. Rename it."
                )
            if section != "method" and key not in known[section]:  # those of methods: see `_refuse_unread`
                raise UsageError(f"unknown setting '{section}.{key}' in {origin}. {_similar(section, key, known)}")
        merged.setdefault(section, {}).update(values)


def _similar(section: str, key: str, known: Mapping[str, Sequence[str]]) -> str:
    """What may have been meant by an unknown setting."""
    elsewhere = [f"{other}.{key}" for other, keys in known.items() if key in keys]
    return f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else did_you_mean(key, known[section])


def _known_keys(with_methods: bool = False) -> dict[str, tuple[str, ...]]:
    """Section -> its keys; with those of every method only on request, because that loads their code."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    known = {
        name: tuple(annotation.model_fields)
        for name, annotation in sections.items()
        if isinstance(annotation, type) and issubclass(annotation, Section)
    }
    fields: list[type[Section]] = [GradientSettings, *(settings_class(name) for name in METHODS if with_methods)]
    return known | {"method": tuple(dict.fromkeys(name for each in fields for name in each.model_fields))}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the names nearest to one that does not exist, or with all there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(known)}."


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"][:2])
    found = problem["input"]
    reason = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(found, BaseModel | Mapping) else f"={found}"
    near = _near_literal(str(found), problem["ctx"]["expected"]) if problem["type"] == "literal_error" else ""
    return f"setting {place}{shown} is not valid: {reason[0].lower()}{reason[1:]}.{near} Change it with --set {place}=VALUE."


def _near_literal(found: str, expected: str) -> str:
    """A question about the nearest of the quoted words in `expected`; empty when none is near."""
    near = difflib.get_close_matches(found, re.findall(r"'([^']*)'", expected), n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(_toml_value(element) for element in value)}]"
    return str(value)


def _toml_string(text: str) -> str:
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in text.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'
