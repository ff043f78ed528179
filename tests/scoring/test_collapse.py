"""When embeddings are almost all the same."""

import pytest
import torch
import torch.nn.functional as F

from ucdir.scoring.collapse import COLLAPSED_BELOW, collapse_sentence, is_collapsed, spread


def around(angle: float, count: int = 40, dim: int = 8) -> torch.Tensor:
    """Unit rows whose angle with the first axis is about `angle` radians."""
    generator = torch.Generator().manual_seed(0)
    sideways = F.normalize(torch.randn(count, dim - 1, generator=generator), dim=1)
    return torch.cat([torch.ones(count, 1), angle * sideways], dim=1).div((1 + angle**2) ** 0.5)


def test_spread_by_hand() -> None:
    assert spread(torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1 / 2)
    assert spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(1)
    assert spread(torch.tensor([[0.6, 0.8], [0.6, 0.8]])) == 0


def test_spread_of_unit_rows_is_what_their_mean_lacks_to_length_one() -> None:
    rows = F.normalize(torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    assert spread(rows) == pytest.approx(1 - float(rows.mean(dim=0).square().sum()), rel=1e-12)


@pytest.mark.parametrize("dim", [2, 8, 2048])
def test_the_limit_is_an_angle_and_does_not_depend_on_the_dimension(dim: int) -> None:
    assert is_collapsed(around(0.5 * COLLAPSED_BELOW**0.5, dim=dim))
    assert not is_collapsed(around(2 * COLLAPSED_BELOW**0.5, dim=dim))


def test_equal_rows_rounded_to_bfloat16_are_collapsed() -> None:
    row = F.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(2)), dim=1)
    noisy = row * (1 + 2.0**-9 * torch.randn(60, 128, generator=torch.Generator().manual_seed(3)))
    assert is_collapsed(F.normalize(noisy.bfloat16().float(), dim=1))
    assert is_collapsed(torch.zeros(5, 4))
    assert is_collapsed(torch.ones(5, 1))


def test_what_is_not_collapsed() -> None:
    assert not is_collapsed(torch.ones(1, 4))  # of a lone image nothing is known
    assert not is_collapsed(torch.eye(4).repeat(3, 1))
    few = torch.eye(4)[[0] * 999 + [1]]
    assert not is_collapsed(few)
    assert not is_collapsed(torch.tensor([[1.0], [-1.0]]))


def test_the_sentence_names_all_domains() -> None:
    assert collapse_sentence(["a", "b"]) == (
        "all images of domain 'a' and of domain 'b' have almost the same embedding (collapsed)"
    )
