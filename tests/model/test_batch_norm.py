"""Split batch norm, the momentum encoder and devices."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ucdir.errors import UsageError
from ucdir.model.batch_norm import split_forward
from ucdir.model.device import autocast, avoid_slow_kernels, choose_device, choose_precision
from ucdir.model.momentum_encoder import MomentumEncoder


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return net.double()


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_split_norm(
    x: np.ndarray, splits: int, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised pixels and new running statistics, image group by image group and channel by channel."""
    out, means, variances = np.empty_like(x), [], []
    for group in range(splits):
        rows = range(group, len(x), splits)
        for channel in range(x.shape[1]):
            values = np.concatenate([x[row, channel].ravel() for row in rows])
            for row in rows:
                out[row, channel] = (x[row, channel] - values.mean()) / np.sqrt(values.var() + 1e-5)
            means.append(0.9 * mean[channel] + 0.1 * values.mean())
            variances.append(0.9 * variance[channel] + 0.1 * values.var(ddof=1))
    shape = (splits, x.shape[1])
    return out, np.reshape(means, shape).mean(axis=0), np.reshape(variances, shape).mean(axis=0)


@pytest.mark.parametrize(("n", "splits"), [(8, 2), (7, 2), (9, 4), (6, 3), (5, 1), (4, 4)])
def test_equals_slow_loops(n: int, splits: int) -> None:
    norm = nn.BatchNorm2d(3).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(1, 2)
    before = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
    expected, mean, variance = slow_split_norm(images(n).numpy(), splits, *before)
    assert_close(split_forward(norm, images(n), splits).detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    assert_close(norm.running_mean.numpy(), mean, rtol=1e-12, atol=0)
    assert_close(norm.running_var.numpy(), variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("splits", [1, 2, 5])
def test_is_a_plain_pass_in_evaluation_mode(n: int, splits: int) -> None:
    net = network().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(split_forward(net, images(n), splits), net(images(n)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("n", "splits"), [(8, 2), (7, 2), (11, 3)])
def test_each_group_is_encoded_as_if_alone(n: int, splits: int) -> None:
    rows = split_forward(network(), images(n), splits)
    for group in range(splits):
        assert_close(rows[group::splits], network()(images(n)[group::splits]))


def test_the_order_of_the_images_is_kept() -> None:
    """Without batch norm the groups make no difference at all."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).double()
    assert_close(split_forward(net, images(7), 3), net(images(7)))


@pytest.mark.parametrize("n", [8, 7])
def test_channels_last_gives_the_same(n: int) -> None:
    plain = network()
    expected = split_forward(plain, images(n), 2)
    last = network().to(memory_format=torch.channels_last)
    assert_close(split_forward(last, images(n).contiguous(memory_format=torch.channels_last), 2), expected)
    assert_close(last[1].running_var, plain[1].running_var)


def test_batches_are_not_counted() -> None:
    net = network()
    net[1].num_batches_tracked.fill_(5)
    split_forward(net, images(8), 2)
    assert int(net[1].num_batches_tracked) == 5


def test_a_norm_without_running_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).double()
    assert_close(split_forward(net, images(8), 2)[::2], net(images(8)[::2]))


# The momentum encoder


def test_momentum_leaves_buffers_alone() -> None:
    fast = network()
    slow = MomentumEncoder(fast, 0.5, 2)
    fast(images(8))
    buffers = {name: value.clone() for name, value in slow.encoder.named_buffers()}
    slow.update(fast)
    assert not torch.equal(fast[1].running_mean, buffers["1.running_mean"])
    assert all(torch.equal(value, buffers[name]) for name, value in slow.encoder.named_buffers())


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_momentum_is_a_weighted_mean(factor: float) -> None:
    fast, start = network(1), network(2)
    slow = MomentumEncoder(start, factor, 2)
    slow.update(fast)
    for now, was, new in zip(slow.encoder.parameters(), start.parameters(), fast.parameters(), strict=True):
        assert_close(now, factor * was.detach() + (1 - factor) * new.detach())


def test_the_slow_encoder_is_a_copy_without_gradient() -> None:
    fast = network()
    slow = MomentumEncoder(fast, 0.9, 2)
    with torch.no_grad():
        fast[0].weight.zero_()
    assert slow.encoder[0].weight.any()
    assert not any(parameter.requires_grad for parameter in slow.encoder.parameters())
    assert all(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_keys_come_back_in_the_order_of_the_images(seed: int) -> None:
    slow = MomentumEncoder(network().eval(), 0.9, 2)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    assert_close(slow.keys(images(7)[order])[order.argsort()], slow.encoder(images(7)))


def test_keys_are_grouped_by_the_shuffled_order() -> None:
    slow = MomentumEncoder(network(), 0.9, 2)
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    keys = slow.keys(images(6)[order])[order.argsort()]
    assert_close(keys[[3, 0, 5]], network()(images(6)[[3, 0, 5]]).detach())
    assert not keys.requires_grad


# Devices


def test_the_processor_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "tpu", "cpu:x"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' is not available here"):
        choose_device(name)


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("bfloat16", cpu) == "bfloat16"
    assert choose_precision("auto", cpu) in ("float32", "bfloat16")
    with pytest.raises(UsageError, match="precision 'fp16' is unknown"):
        choose_precision("fp16", cpu)


def test_mixed_precision_only_when_asked() -> None:
    layer, rows = nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(torch.device("cpu"), "float32"):
        assert layer(rows).dtype == torch.float32
    with autocast(torch.device("cpu"), "bfloat16"):
        assert layer(rows).dtype == torch.bfloat16


def test_strided_depthwise_convolutions_stay_in_float32_on_the_processor() -> None:
    """Same parameters and names, nearly the same values, gradient in float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    names = list(net.state_dict())
    expected = net(torch.ones(1, 4, 9, 9))
    avoid_slow_kernels(net, torch.device("cpu"), "float32")
    assert [type(layer) for layer in net] == [nn.Conv2d] * 3
    avoid_slow_kernels(net, torch.device("cpu"), "bfloat16")
    assert [type(layer) is nn.Conv2d for layer in net] == [False, True, True]
    assert list(net.state_dict()) == names
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net[0](torch.ones(1, 4, 9, 9)).dtype == torch.float32
        assert_close(net(torch.ones(1, 4, 9, 9)).float(), expected, rtol=0.1, atol=0.05)
