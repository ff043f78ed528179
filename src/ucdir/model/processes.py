"""The processes of one command, started together by torchrun. A process alone is the same thing with a count of 1.

In training every process holds the same weights, banks and clusterings, draws the same plan of an epoch, and encodes its
share of the images of each step. The rows are then brought together, so that every process sees the terms of the whole step.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ucdir.errors import UcdirError
from ucdir.model.device import choose_device

PATIENCE = timedelta(days=1)  # others wait for the first while it scores or writes; who dies is noticed by torchrun

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Processes:
    """This process among those that were started together.

    rank    its number, from 0
    count   how many there are
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The first process alone decides, writes files and speaks."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """This process's part of `length` things: every count-th, so that the parts are equal up to one."""
        return slice(self.rank, length, self.count)

    def first(self, make: Callable[[], Thing]) -> Thing:
        """What `make` gives in the first process, in all of them; an error of ucdir's it raises there is raised in all."""
        if self.count == 1:
            return make()
        box: list[Any] = [None]
        if self.is_first:
            try:
                box = [make()]
            except UcdirError as error:
                box = [error]
        dist.broadcast_object_list(box, src=0)
        if isinstance(box[0], UcdirError):
            box[0].told_elsewhere = not self.is_first
            raise box[0]
        made: Thing = box[0]
        return made

    def each(self, thing: Thing) -> list[Thing]:
        """The value contributed by each process, in order of rank."""
        if self.count == 1:
            return [thing]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, thing)
        return gathered

    def to_first(self, thing: Thing) -> list[Thing]:
        """What every process brings, by rank, in the first; nothing in the others."""
        if self.count == 1:
            return [thing]
        gathered: list[Any] | None = [None] * self.count if self.is_first else None
        dist.gather_object(thing, gathered)
        return gathered or []

    def all_rows(self, rows: Tensor, places: Tensor) -> Tensor:
        """Rows (n, D) of places (n,) of every process -> (count * n, D) in order of place. A gradient goes to one's own."""
        if self.count > 1:
            mine = rows
            parts = [torch.empty_like(rows) for _ in range(self.count)]
            dist.all_gather(parts, rows.detach().contiguous())
            parts[self.rank] = mine
            rows = torch.cat(parts)
            spots = [torch.empty_like(places) for _ in range(self.count)]
            dist.all_gather(spots, places.contiguous())
            places = torch.cat(spots)
        ordered: Tensor = rows[places.argsort()]
        return ordered

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over the processes in place of each floating tensor."""
        if self.count == 1:
            return
        for tensor in tensors:
            if tensor.is_floating_point():
                dist.all_reduce(tensor)
                tensor /= self.count

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """`network` with gradients that are means over the processes."""
        if self.count == 1:
            return network
        places = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer torch calls the option forward_sync_buffers
            return DistributedDataParallel(network, device_ids=places, broadcast_buffers=False)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the processes that torchrun started, if it did, and part when all are done."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        dist.barrier()
    finally:
        dist.destroy_process_group()


def own_device(name: str, processes: Processes) -> torch.device:
    """The device called `name` for this process: of several on one machine each takes the GPU of its local rank.

    UsageError, reported once, if there is none of that name.
    """
    processes.first(lambda: str(choose_device(name)))
    device = choose_device(name)
    if device.type == "cuda" and name in ("auto", "cuda") and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


def without_sync(network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Leave gradients where they are for the block, when `wanted`: more parts of the step will follow."""
    if wanted and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()
