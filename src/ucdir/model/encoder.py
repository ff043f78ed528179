"""The encoder: backbone + projection head -> unit rows, saved as safetensors + config.json + model card."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ucdir.documents import to_json
from ucdir.errors import UcdirError
from ucdir.model.alignment import Alignment, Placed
from ucdir.model.backbones import Backbone, build_backbone
from ucdir.model.encoder_folder import FORMAT_VERSION, EncoderConfig, read_config
from ucdir.model.pretrained import MatchReport, load_weights
from ucdir.outside import require_trust
from ucdir.storage import atomic_file, atomic_folder, write_text


class Encoder(nn.Module):
    """Images -> unit rows. Normalises the pixels itself, so that every caller feeds it the same thing."""

    mean: Tensor
    std: Tensor
    loaded: MatchReport | None = None  # what a weights file filled, where it started from one

    def __init__(self, backbone: nn.Module, config: EncoderConfig, alignment: Alignment | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = projection_head(config)
        self.alignment = alignment
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Unit rows (N, D) float32; D is `dim`, or `feature_dim` without a head.

        inputs    (N, 3, H, W) uint8 pixels, or (N, feature_dim) what `features` gave for them
        """
        features = self.features(inputs) if inputs.ndim == 4 else inputs
        rows = features if self.head is None else self.head(features)
        return F.normalize(rows.float(), dim=1)

    def placed(self, views: Tensor, domain: Tensor) -> Placed:
        """Images as members of domains, for an encoder that knows domains.

        views    (N, V, 3, H, W) uint8; V is 1 (the plain view) or all of `config.views`
        domain   (N,) int64, position in `config.domains`; -1 = recognise it
        """
        if self.alignment is None:
            raise ValueError("this encoder does not distinguish domains")
        images, count = views.shape[:2]
        features = self.features(views.reshape(images * count, *views.shape[2:])).float().reshape(images, count, -1)
        placed: Placed = self.alignment(features, domain)
        return placed

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 pixels -> (N, feature_dim), what the backbone makes of them."""
        images = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        found: Tensor = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return found

    def fingerprint(self) -> str:
        """32 hex digits of the weights and of all that decides an embedding; equal encoders have equal ones."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(self.config.deciding(), sort_keys=True).encode())
        add_tensors(digest, self)
        return digest.hexdigest()

    def save(self, folder: Path, card: str = "") -> None:
        """Write model.safetensors, config.json and README.md; over an existing encoder folder each file is replaced whole."""
        files = _encoder_files(self, card)
        if folder.exists():
            save_tensors(folder / "model.safetensors", self.state_dict())
            for name, text in files.items():
                write_text(folder / name, text)
            return
        with atomic_folder(folder) as draft:
            save_tensors(draft / "model.safetensors", self.state_dict())
            for name, text in files.items():
                (draft / name).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Read an encoder folder, in evaluation mode on the CPU; UcdirError if it is not one, is damaged or too new."""
        config = read_config(folder)
        require_trust(config.backbone, f"encoder '{folder}'")
        try:
            tensors = load_file(folder / "model.safetensors")
            alignment = Alignment.of_tensors(tensors, config.domains) if config.domains else None
            encoder = cls(build_backbone(config.backbone, config.image_size).module, config, alignment)
            encoder.load_state_dict(tensors)
        except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UcdirError(f"encoder '{folder}' is damaged: {reason}. Train or copy it again.") from error
        return encoder.eval()


def add_tensors(digest: hashlib.blake2b, module: nn.Module) -> None:
    """Feed the names and values of all tensors of a module into a digest, in order of their names."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def backbone_digest(encoder: Encoder) -> str:
    """Tells the backbones of encoders apart, by their weights and by what decides their input."""
    digest = hashlib.blake2b(digest_size=20)
    not_of_backbone = ("hidden", "dim", "domains", "views", "rows")
    deciding = {key: value for key, value in encoder.config.deciding().items() if key not in not_of_backbone}
    digest.update(repr(sorted(deciding.items())).encode())
    add_tensors(digest, encoder.backbone)
    return digest.hexdigest()


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by their names as safetensors, whole or not at all; UcdirError when the disk takes no more."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(file) as draft:
        try:
            save_file(plain, draft)
        except SafetensorError as error:
            raise UcdirError(f"could not write '{file}': {error}. Is the disk full?") from error


def projection_head(config: EncoderConfig) -> nn.Sequential | None:
    """feature_dim -> hidden, ReLU -> dim, as in MoCo v2; None for a bare backbone."""
    if config.dim is None or config.hidden is None:
        return None
    return nn.Sequential(nn.Linear(config.feature_dim, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim))


def build_encoder(
    backbone: str,
    weights: str,
    image_size: int,
    dim: int | None = None,
    hidden: int | None = None,
) -> Encoder:
    """A new encoder on the CPU, in evaluation mode.

    backbone   torchvision/NAME or timm/NAME
    weights    `default` (the library's own), `none` (random numbers), or a path (see `load_weights`)
    dim        length of an embedding; None leaves the projection head away (frozen backbone)
    hidden     width of the head; None = as wide as the features
    """
    built = build_backbone(backbone, image_size, pretrained=weights == "default")
    encoder = Encoder(built.module, _config(backbone, image_size, built, dim, hidden, start=weights))
    start = {
        "default": f"the default weights of {backbone}, as its library ships them",
        "none": "random numbers",
    }.get(weights)
    if start is None:
        encoder.loaded = load_weights(Path(weights), encoder.backbone, encoder.head)
        start = encoder.loaded.sentence()
    return with_start(encoder, start).eval()


def in_plain_view(encoder: Encoder, domains: Sequence[str]) -> Encoder:
    """A bare backbone that sees images whole, as method align does, instead of their middle; its rows stay frozen."""
    alignment = Alignment.unlearned(encoder.config.feature_dim, len(domains))
    config = replace(encoder.config, dim=alignment.length, domains=tuple(domains), views=("plain",), rows="frozen")
    return Encoder(encoder.backbone, config, alignment).eval()


def with_start(encoder: Encoder, start: str) -> Encoder:
    """Write into the config where the weights come from."""
    encoder.config = EncoderConfig(**{**asdict(encoder.config), "start": start})
    return encoder


def _config(backbone: str, image_size: int, built: Backbone, dim: int | None, hidden: int | None, start: str) -> EncoderConfig:
    width = None if dim is None else hidden or built.feature_dim
    return EncoderConfig(backbone, image_size, built.mean, built.std, built.feature_dim, width, dim, start)


def _encoder_files(encoder: Encoder, card: str) -> Mapping[str, str]:
    return {"config.json": to_json(encoder.config, FORMAT_VERSION), "README.md": model_card(encoder, card)}


def model_card(encoder: Encoder, more: str) -> str:
    """What this encoder is, where it came from and how to use it, as Markdown."""
    config = encoder.config
    length = config.length
    head = "none (pooled features)" if config.dim is None else f"{config.feature_dim} -> {config.hidden} -> {config.dim}"
    return f"""# ucdir encoder

Turns an image into {length} numbers of unit length; images of the same thing have a high cosine similarity.

- backbone: {config.backbone}
- projection head: {head}
- image size: {config.image_size} px
- started from: {config.start}
- fingerprint: {encoder.fingerprint()}

{more.strip()}

## Use

```
ucdir index THIS_FOLDER IMAGES --out gallery
ucdir search gallery QUERY.png
```

```python
from pathlib import Path
from ucdir import Encoder

encoder = Encoder.load(Path("THIS_FOLDER"))
```
"""
