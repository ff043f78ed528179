"""Where and how precisely to compute."""

import copy

import pytest
import torch
from torch import nn

from ucdir.errors import UsageError
from ucdir.model.device import Float32Conv2d, autocast, avoid_slow_kernels, choose_device, choose_precision


def test_unknown_places_are_refused() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        choose_device("nowhere")
    with pytest.raises(UsageError, match="half"):
        choose_precision("half", torch.device("cpu"))


def test_only_strided_depthwise_convolutions_stay_in_float32() -> None:
    depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), depthwise, nn.Conv2d(8, 8, 3, groups=8))
    expected = depthwise(torch.ones(1, 8, 5, 5))
    avoid_slow_kernels(network, torch.device("cpu"), "bfloat16")
    assert [type(layer) for layer in network] == [nn.Conv2d, Float32Conv2d, nn.Conv2d]
    with autocast(torch.device("cpu"), "bfloat16"):
        torch.testing.assert_close(depthwise(torch.ones(1, 8, 5, 5)), expected)


def test_without_a_gradient_they_are_as_they_were() -> None:
    """What is embedded in a training is what is embedded after it."""
    plain = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
    network = nn.Sequential(copy.deepcopy(plain))
    avoid_slow_kernels(network, torch.device("cpu"), "bfloat16")
    with autocast(torch.device("cpu"), "bfloat16"), torch.no_grad():
        images = torch.randn(2, 8, 9, 9)
        assert torch.equal(network(images), plain(images))
        assert network(images).dtype == torch.bfloat16


def test_float32_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, groups=8))
    avoid_slow_kernels(network, torch.device("cpu"), "float32")
    assert type(network[0]) is nn.Conv2d
