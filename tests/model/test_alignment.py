"""What an encoder knows of its domains: new images take the embeddings of their neighbours, and domains are recognised."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.errors import UcdirError
from ucdir.learn.domain_recognition import learn_recogniser, recognised
from ucdir.model.alignment import NEIGHBOURS, Alignment, DomainMemory
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.encoder_folder import EncoderConfig


def rows(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def memory(images: int = 30, dim: int = 6, length: int = 5, seed: int = 0) -> DomainMemory:
    contents = torch.arange(images * 32, dtype=torch.int64).remainder(256).to(torch.uint8).view(images, 32)
    centre = 0.1 * torch.ones(dim)
    return DomainMemory(centre, rows(images, dim, seed).half(), rows(images, length, seed + 1).half(), contents)


def aligned_encoder() -> Encoder:
    torch.manual_seed(0)
    bare = build_encoder("timm/test_resnet", "none", 32)
    width = bare.config.feature_dim
    features = [torch.randn(40, width) + shift for shift in (0.0, 3.0)]
    alignment = Alignment(
        torch.tensor([0.75, 0.25]), torch.randn(width, 6), [memory(), memory(9, seed=5)], learn_recogniser(features)
    )
    config = EncoderConfig(
        **{**bare.config.__dict__, "dim": 5, "domains": ("photo", "sketch"), "views": ("plain", "mirrored"), "rows": "aligned"}
    )
    return Encoder(bare.backbone, config, alignment).eval()


def test_a_new_image_becomes_the_weighted_mean_of_its_nearest() -> None:
    known = memory()
    described = rows(3, 6, 9)
    found = known(described)
    for image, row in zip(F.normalize(described - known.centre, dim=1), found, strict=True):
        cosine = known.rows.float() @ image
        nearest = cosine.argsort(descending=True)[:NEIGHBOURS]
        expected = sum(max(float(cosine[n]), 1e-3) ** 3 * known.embeddings[n].float() for n in nearest)
        assert torch.allclose(row, F.normalize(expected, dim=0), atol=1e-5)


def test_fewer_images_than_neighbours_are_enough() -> None:
    assert memory(2)(rows(4, 6, 1)).isfinite().all()


def test_one_view_counts_like_all_of_them_together() -> None:
    """The weights of the views that are there add up to 1: the same view twice gives what it gives alone."""
    encoder = aligned_encoder()
    assert encoder.alignment is not None
    features = torch.randn(3, 1, encoder.config.feature_dim)
    domain = torch.tensor([0, 1, 0])
    once, twice = encoder.alignment(features, domain), encoder.alignment(features.expand(3, 2, -1), domain)
    assert torch.allclose(once.rows, twice.rows, atol=1e-5)


def test_an_embedding_depends_on_the_domain_given() -> None:
    encoder = aligned_encoder()
    views = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    one, other, free = (encoder.placed(views, torch.full((2,), number)) for number in (0, 1, -1))
    assert not torch.allclose(one.rows, other.rows)
    assert one.domain.tolist() == [0, 0]
    assert other.domain.tolist() == [1, 1]
    for number, row in zip(free.domain.tolist(), free.rows, strict=True):
        assert any(torch.equal(row, fixed.rows[i]) for fixed in ((one, other)[number],) for i in range(2))


def test_domains_are_recognised_and_strange_images_noticed() -> None:
    generator = torch.Generator().manual_seed(0)
    domains = [torch.randn(200, 16, generator=generator) + shift for shift in (3 * torch.eye(16)[1], 6 * torch.eye(16)[0])]
    assert recognised(domains) > 0.95
    recogniser = learn_recogniser(domains)
    own = recogniser(domains[0])
    assert (own.argmin(dim=1) == 0).float().mean() > 0.95
    assert 0 < (own[:, 0] > recogniser.limits[0]).float().mean() < 0.03


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    encoder = aligned_encoder()
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.load(tmp_path / "encoder")
    views = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    domain = torch.tensor([0, -1])
    assert loaded.config == encoder.config
    assert loaded.fingerprint() == encoder.fingerprint()
    assert all(torch.equal(a, b) for a, b in zip(encoder.placed(views, domain), loaded.placed(views, domain), strict=True))


def test_an_encoder_without_its_memory_is_damaged(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    aligned_encoder().save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "memory1" not in name}, file)
    with pytest.raises(UcdirError, match=r"is damaged.*Train or copy it again"):
        Encoder.load(tmp_path / "encoder")


def test_encoders_of_the_older_format_have_the_fingerprint_that_their_galleries_name(tmp_path: Path) -> None:
    """The new fields say nothing of an encoder that knows no domains."""
    import json

    torch.manual_seed(0)
    encoder = build_encoder("timm/test_resnet", "none", 32, dim=4)
    encoder.save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    for name in ("domains", "views", "rows", "confidence"):
        del stored[name]
    file.write_text(json.dumps(stored | {"format_version": 1}), encoding="utf-8")
    assert Encoder.load(tmp_path / "encoder").fingerprint() == encoder.fingerprint()
    assert set(encoder.config.deciding()) == set(stored) - {"format_version", "start"}
