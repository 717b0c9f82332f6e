"""The processes of one training, as ``torchrun`` starts them: what they tell each other, and how they end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.interrupts import Interrupted
from hero_plugin.integrations.ranks import Rank

Value = TypeVar("Value")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: reading features may take one much longer than another."""


class PeerLost(UserError):
    """Another process of the training has ended, or does not answer."""

    hard = True


class Group:
    """The processes that train one model; ``Group()`` is one alone, which has nobody to talk to.

    What is not a tensor of the model travels over the CPU, so that asking waits for no GPU.
    """

    def __init__(self, rank: Rank | None = None, control: Any = None) -> None:
        self.rank, self.control = rank or Rank(), control

    @property
    def size(self) -> int:
        return self.rank.size

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank.leads

    def parallel(self, module: nn.Module, unread: Sequence[str] = ()) -> nn.Module:
        """``module``, whose gradients are the mean over the processes; alone, itself.

        unread: parameters that never get a gradient: the processes would wait for it.
        """
        if self.size == 1:
            return module
        # No buffer changes while a model trains here: nothing of them is sent round before each step either.
        left_out = [*unread, *(name for name, _ in module.named_buffers())]
        # Of convolutions with a single output channel or tap: dimensions of one, whose strides mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, left_out)
        return DistributedDataParallel(module)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process: the same answer in all."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def wait(self) -> None:
        """Until all have come here."""
        self.any(False)

    def from_leader(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns in the leading process, the only one that calls it; a copy in the others."""
        if self.size == 1:
            return make()
        values = [make() if self.leads else None]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """The value of each process, in their order, in all."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, all of one shape, on the device and without gradient."""
        if self.size == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(tensors, tensor)
        return tensors

    def leave(self) -> None:
        """End the group, once all have come here; this process goes on alone."""
        if self.size > 1 and dist.is_initialized():
            self.wait()
            dist.destroy_process_group()


ALONE = Group()


@contextmanager
def joined(rank: Rank, device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Group]:
    """The group of ``torchrun``'s processes while the block runs; one process alone joins none.

    An error leaves the group at once and not in order, so that the other processes notice.

    Raises:
        PeerLost: another process has ended, or did not answer for as long as ``patience``.
        UserError: the processes do not find each other.
    """
    if rank.size == 1:
        yield ALONE
        return
    if not dist.is_available():
        raise UserError(f"this torch ({torch.__version__}) was built without torch.distributed: train with one process")
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        control = dist.new_group(backend="gloo", timeout=patience) if device.type == "cuda" else dist.group.WORLD
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{rank.size} processes shall train together and cannot meet ({first_line(error)}); start them with "
            "torchrun, which says to each where the others are"
        ) from error
    group = Group(rank, control)
    try:
        yield group
    except Interrupted:  # all of them are: they agreed on it
        group.leave()
        raise
    except RuntimeError as error:
        if not of_a_peer(error):
            raise
        raise PeerLost(
            f"another process of this training has ended, or did not answer for {minutes(patience)}; if it has told "
            f"why, its message is above or in its machine's output ({first_line(error)})"
        ) from error
    group.leave()


def of_a_peer(error: RuntimeError) -> bool:
    """Whether what failed is not this process but its talk with another one."""
    kinds = tuple(getattr(dist, name) for name in ("DistError", "DistBackendError") if hasattr(dist, name))
    words = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def minutes(patience: timedelta) -> str:
    return f"{patience.total_seconds() / 60:.3g} minutes"
