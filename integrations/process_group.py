"""The group of processes of one training, as ``torchrun`` starts them: communication, and how they end."""

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
"""Longest wait for the other processes: reading features may take one much longer than another."""


class PeerLost(UserError):
    """Another process of the training has ended, or does not answer."""

    hard = True


class Group:
    """The processes that train one model; ``Group()`` is a process alone.

    What is not a tensor of the model travels over the CPU, so that no exchange waits for a GPU.
    """

    def __init__(self, rank: Rank | None = None, control: Any = None) -> None:
        self.rank, self.control = rank or Rank(), control

    @property
    def size(self) -> int:
        """Return the number of processes."""
        return self.rank.size

    @property
    def leads(self) -> bool:
        """Return whether this is the process that writes the files."""
        return self.rank.leads

    def parallel(self, module: nn.Module, unused_parameters: Sequence[str] = ()) -> nn.Module:
        """Return ``module`` with gradients averaged over the processes; alone, the module itself.

        unused_parameters: Parameters that never get a gradient: the processes would wait for it.
        """
        if self.size == 1:
            return module
        # No buffer changes while a model trains here: nothing of them is sent round before each step either.
        left_out = [*unused_parameters, *(name for name, _ in module.named_buffers())]
        # Of convolutions with a single output channel or tap: dimensions of one, whose strides mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, left_out)
        return DistributedDataParallel(module)

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` holds in any process: the same answer in all."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.any(False)

    def from_leader(self, make: Callable[[], Value]) -> Value:
        """Call ``make`` in the leading process alone; return its result, a copy in the others."""
        if self.size == 1:
            return make()
        values = [make() if self.leads else None]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, which have one shape, without gradient."""
        if self.size == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(tensors, tensor)
        return tensors

    def leave(self) -> None:
        """End the group once all processes have come here; this one goes on alone."""
        if self.size > 1 and dist.is_initialized():
            self.wait()
            dist.destroy_process_group()


ALONE = Group()


@contextmanager
def joined(rank: Rank, device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Group]:
    """Join the group of ``torchrun``'s processes while the block runs; one process alone joins none.

    An error leaves the group at once and not in order, so that the other processes notice.

    Raises:
        PeerLost: Another process has ended, or did not answer for as long as ``patience``.
        UserError: The processes do not find each other.
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
            f"{rank.size} processes should train together and cannot meet ({first_line(error)}); start them with "
            "torchrun, which tells each where the others are"
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
    """Return whether the error is about communication with another process, not about this one."""
    kinds = tuple(getattr(dist, name) for name in ("DistError", "DistBackendError") if hasattr(dist, name))
    words = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def minutes(patience: timedelta) -> str:
    """Return a duration in words."""
    return f"{patience.total_seconds() / 60:.3g} minutes"
