"""The device and the processes: number format, memory, seeds; many processes that train as one."""

import ctypes
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from math import prod
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hero_plugin import HeroModel
from hero_plugin.integrations.support import Interrupted, Rank, UserError
from hero_plugin.levels import map_tensors

Amp = Literal["none", "bf16", "fp16"]


def choose_device(name: str = "auto", rank: Rank | None = None, *, shared: bool = False) -> torch.device:
    """Return the device of this name, for this process; ``UserError`` if it is unknown, or there is none for it here.

    "auto" is CUDA where there is one, else the CPU (bit-reproducible); any name torch knows works. Of several
    processes, each gets the GPU of its ``rank`` on this machine; if ``shared``, they share GPUs, in turns, or the named
    one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if rank is not None and rank.size > 1 and shared and name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{rank.local % torch.cuda.device_count()}"
    elif rank is not None and rank.size > 1 and not shared and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(f"--device {name} would put all {rank.size} processes on one GPU; give --device cuda")
        if rank.local >= torch.cuda.device_count():
            raise UserError(
                f"process {rank.local} of this machine would use its own GPU, and there are "
                f"{torch.cuda.device_count()}: give torchrun --nproc-per-node {max(1, torch.cuda.device_count())}"
            )
        name = f"cuda:{rank.local}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here ({reason}); try --device auto") from error
    return device


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager[Any]:
    """Set the number format of the forward pass. Weights, gradients and the optimizer stay in float32."""
    if amp == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[amp])


def loss_scaler(amp: Amp, device: torch.device) -> Any:
    """Return a gradient scaler; it acts for fp16 only, whose small gradients would vanish unscaled."""
    if amp == "fp16" and device.type != "cuda":
        raise UserError(f"--amp fp16 needs a CUDA device, got {device}; use --amp bf16, or none")
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    return torch.cuda.amp.GradScaler(enabled=amp == "fp16")


def keep_freed_memory(device: torch.device) -> bool:
    """Ask glibc's allocator to keep large freed blocks, for work on the CPU; return whether it will.

    By default it gives every tensor of 32 MiB or more back to the system, which clears each page again when the next
    tensor touches it. ``MALLOC_*`` variables of the environment take precedence.
    """
    unsupported = device.type != "cpu" or not sys.platform.startswith("linux")
    if unsupported or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one that does nothing
    return mallopt is not None and all([mallopt(mmap_max, 0), mallopt(trim_threshold, 2**31 - 1)])


def seed_of(seed: int, step: int, what: str) -> int:
    """Return a 63-bit seed for one kind of draw of one training step.

    >>> seed_of(0, 1, "masks") == seed_of(0, 1, "masks") != seed_of(1, 0, "masks")
    True
    """
    digest = hashlib.blake2b(f"{seed} {step} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_device(number: int, device: torch.device) -> None:
    """Seed the generators that a model on ``device`` draws from, and no others: this runs before every step."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type != "cpu":
        torch.manual_seed(number)


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

        ``unused_parameters`` never get a gradient: the processes would wait for it.
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
            f"{rank.size} processes should train together and cannot meet ({_first_line(error)}); start them with "
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
            f"another process of this training has ended, or did not answer for {patience.total_seconds() / 60:.3g} "
            f"minutes; if it has told why, its message is above or in its machine's output ({_first_line(error)})"
        ) from error
    group.leave()


def of_a_peer(error: RuntimeError) -> bool:
    """Return whether the error is about communication with another process."""
    kinds = tuple(getattr(dist, name) for name in ("DistError", "DistBackendError") if hasattr(dist, name))
    words = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


@dataclass(frozen=True)
class BatchShard:
    """The rows of a batch that one process runs, where several train on it together.

    Attributes:
        rows: Places in the batch of the rows to run: the process' own, then those that its own are compared with.
        counts: Number of own rows of each process, in the order of the batch; 0 where there are too few.
        index: Number of this process.
    """

    rows: tuple[int, ...]
    counts: tuple[int, ...]
    index: int

    @classmethod
    def of(cls, total: int, rank: Rank, following_rows: int = 0) -> "BatchShard":
        """Return the shard of ``rank``; one process alone has all rows.

        A process without own rows runs one all the same, because the others wait for its gradients. So many
        ``following_rows`` after its own, the first following the last, run as well, because the model compares each row
        with them.
        """
        if rank.size == 1:
            return cls(tuple(range(total)), (total,), 0)
        bounds = [total * index // rank.size for index in range(rank.size + 1)]
        counts = tuple(end - start for start, end in pairwise(bounds))
        run = max(1, counts[rank.index] + following_rows)
        rows = tuple((bounds[rank.index] + place) % total for place in range(run))
        return cls(rows, counts, rank.index)

    @property
    def total(self) -> int:
        """Return the number of rows of the batch."""
        return sum(self.counts)

    @property
    def count(self) -> int:
        """Return the number of this process' own rows."""
        return self.counts[self.index]


def whole_outputs(model: Any, outputs: Any, shard: BatchShard, group: Group) -> Any:
    """Turn the outputs of the rows of ``shard`` into outputs of all rows of the batch, in their order.

    What a wrapped model keeps of its forward for its losses is completed as well. Only this process' own rows have a
    graph: a loss of the whole batch then has, in each process, the part of its gradient that goes through these rows,
    and the parts add up to the gradient that one process with the whole batch would have.
    """
    found: dict[int, Tensor] = {}

    def find(tensor: Tensor, key: str = "") -> Tensor:
        found[id(tensor)] = tensor
        return tensor

    def put(tensor: Tensor, key: str = "") -> Tensor:
        return whole[id(tensor)]

    map_tensors(find, outputs)
    if isinstance(model, HeroModel):
        model.map_last_forward(find)
    whole = dict(zip(found, whole_tensors(list(found.values()), shard, group), strict=True))
    if isinstance(model, HeroModel):
        model.map_last_forward(put)
    return map_tensors(put, outputs)


def whole_tensors(tensors: list[Tensor], shard: BatchShard, group: Group) -> list[Tensor]:
    """Turn each (rows run, ...) into (rows of the batch, ...), bit for bit, by one exchange of bytes."""
    for tensor in tensors:
        if tensor.shape[:1] != (len(shard.rows),):
            raise ValueError(
                f"the model was run on {len(shard.rows)} rows of a batch, and one of its outputs has the shape "
                f"{tuple(tensor.shape)}: only outputs with a row for each input can be gathered"
            )
    own = [tensor[: shard.count] for tensor in tensors]
    parts = [_bytes(tensor.detach()) for tensor in own]
    mine = torch.cat(parts, dim=1)
    padded = mine.new_zeros(max(shard.counts), mine.shape[1])
    padded[: shard.count] = mine
    received = zip(group.gather_tensor(padded), shard.counts, strict=True)
    whole = torch.cat([each[:count] for each, count in received])
    first = sum(shard.counts[: shard.index])
    made = []
    for tensor, raw in zip(own, whole.split([part.shape[1] for part in parts], dim=1), strict=True):
        read = _read(raw, tensor)
        made.append(torch.cat([read[:first], tensor, read[first + shard.count :]]))  # its own rows keep their graph
    return made


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _bytes(tensor: Tensor) -> Tensor:
    """View (B, ...) as (B, bytes per row)."""
    return tensor.reshape(len(tensor), prod(tensor.shape[1:])).contiguous().view(torch.uint8)


def _read(raw: Tensor, like: Tensor) -> Tensor:
    """Undo ``_bytes``: return a tensor of the dtype and row shape of ``like``."""
    return raw.clone(memory_format=torch.contiguous_format).view(like.dtype).reshape(len(raw), *like.shape[1:])
