"""Where and how precisely to compute."""

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ucdir.errors import UsageError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; auto takes CUDA, then MPS, then the CPU. UsageError when it is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device '{name}' is not available here. Use auto, cpu, cuda, cuda:N or mps.") from error
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """`float32` or `bfloat16`; auto takes bfloat16 where the hardware multiplies it faster than float32."""
    if name == "auto":
        return "bfloat16" if _has_bfloat16(device) else "float32"
    if name not in ("float32", "bfloat16"):
        raise UsageError(f"precision '{name}' is unknown. Use auto, float32 or bfloat16.")
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for the block when `precision` is bfloat16."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def reuse_buffers(device: torch.device) -> None:
    """Let the C library keep large buffers that a network on the CPU frees, for the next step to take again.

    Returned to the system and allocated again, their pages are zeroed each time: hundreds of thousands of page faults a step.
    Nothing happens where the C library is not glibc.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 2**31 - 1)


class Float32Conv2d(nn.Conv2d):
    """A convolution that stays in float32 inside autocast when a gradient may be needed."""

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolved: Tensor
        if not torch.is_grad_enabled():
            convolved = super()._conv_forward(images, weight, bias)
            return convolved
        with torch.autocast(images.device.type, enabled=False):
            convolved = super()._conv_forward(images.float(), weight, bias)
            return convolved


def avoid_slow_kernels(network: nn.Module, device: torch.device, precision: str) -> None:
    """Keep strided depthwise convolutions in float32 on a CPU that trains in bfloat16.

    oneDNN has no fast bfloat16 kernel for the gradient of their input: in MobileNetV2 four layers took half of a step.
    Without a gradient they are as they were: an encoder embeds the same in a training and after it.
    """
    if device.type != "cpu" or precision != "bfloat16":
        return
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and max(module.stride) > 1:
            module.__class__ = Float32Conv2d
