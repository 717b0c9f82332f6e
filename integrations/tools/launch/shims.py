"""Shims that keep old code running on today's libraries: each is small, named, and applied only where it is needed."""

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence
from torch.optim.lr_scheduler import LambdaLR

from hero_plugin.adapters.detr.criterion import sigmoid_focal_loss
from hero_plugin.integrations.data import load_word_vectors
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch.run import Patch, around
from hero_plugin.integrations.training.checkpoints import load_safely, supported
from hero_plugin.integrations.training.optim import linear_decay


@dataclass(frozen=True)
class Shim:
    """A fault of old code on current libraries, and its repair."""

    name: str
    symptom: str
    """What happens without it."""
    repair: str
    """What it does about it."""
    needed: Callable[[], bool]
    """Whether the fault is present on this machine."""
    patches: tuple[Patch, ...] = ()
    stand_ins: Callable[[], dict[str, ModuleType]] = field(default=dict)
    """Modules that take the place of missing ones, by name."""


# What the shims call in the place of the original, where they are needed, and what they stand in for.


def without_cuda() -> bool:
    """Return whether torch finds no GPU."""
    return not torch.cuda.is_available()


def fails(call: Callable[[], object], *errors: type[Exception]) -> bool:
    """Return whether a call raises one of these errors; any other is no fault that a shim repairs."""
    try:
        call()
    except Exception as error:
        return isinstance(error, errors)
    return False


def make_module(name: str, **contents: Any) -> ModuleType:
    """Make a module."""
    made = ModuleType(name)
    vars(made).update(contents)
    return made


def parse_for_cpu(parse: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Parse a script's options, and correct the device: a ``torch.device``, or in Lighthouse its name."""
    result = parse(self, *args, **kwargs)
    self.opt.device = type(self.opt.device)("cpu")
    return result


def pack_whole(pack: Callable[..., Any], input: torch.Tensor, lengths: Any, **options: Any) -> Any:
    """Pack sequences whose lengths come as a list of float tensors."""
    return pack(input, torch.tensor([int(length) for length in lengths]), **options)


def tokenize_sentence(tokenize: Callable[..., list[str]], text: str, **options: Any) -> list[str]:
    """Tokenize a single sentence, which nothing has to split first."""
    return tokenize(text, **{**options, "preserve_line": True})


def load_for_here(
    load: Callable[..., Any], f: Any, map_location: Any = None, pickle_module: Any = None, **options: Any
) -> Any:
    """Load a checkpoint safely; scripts that say no device would stop at one that a GPU has written."""
    if map_location is None and without_cuda():
        map_location = "cpu"
    return load_safely(load, f, map_location=map_location, **options)


def torchvision() -> dict[str, ModuleType]:
    """Make a torchvision that has one loss."""
    focal = make_module("torchvision.ops.focal_loss", sigmoid_focal_loss=sigmoid_focal_loss)
    ops = make_module("torchvision.ops", sigmoid_focal_loss=sigmoid_focal_loss, focal_loss=focal)
    return {each.__name__: each for each in (make_module("torchvision", ops=ops), ops, focal)}


def torchtext() -> dict[str, ModuleType]:
    """Make a torchtext that has GloVe's vectors, from the text file that torchtext keeps them in."""

    def glove() -> SimpleNamespace:
        path = Path(".vector_cache", "glove.6B.300d.txt")
        if not path.is_file():
            raise UserError(f"there is no {path.resolve()}: unpack GloVe's glove.6B.zip there")
        table = load_word_vectors(path)
        vectors = torch.from_numpy(table.vectors)
        return SimpleNamespace(itos=table.words, stoi=table.index, vectors=vectors, dim=table.dim)

    vocab = make_module("torchtext.vocab", pretrained_aliases={"glove.6B.300d": glove})
    return {each.__name__: each for each in (make_module("torchtext", vocab=vocab), vocab)}


def transformers() -> dict[str, ModuleType]:
    """Make a transformers that has an optimizer, with the defaults that it had there, and the linear schedule."""

    def schedule(
        optimizer: torch.optim.Optimizer, num_warmup_steps: float, num_training_steps: int, last_epoch: int = -1
    ) -> LambdaLR:
        warmup = round(num_warmup_steps)
        return LambdaLR(optimizer, lambda step: linear_decay(step, num_training_steps, warmup), last_epoch)

    adamw = functools.partial(torch.optim.AdamW, eps=1e-6, weight_decay=0.0)
    made = make_module("transformers", AdamW=adamw, get_linear_schedule_with_warmup=schedule)
    return {"transformers": made}


# The shims.


CUDA_ON_CPU = Shim(
    name="cuda-on-cpu",
    symptom="AssertionError: Torch not compiled with CUDA enabled, from a .cuda() in transformer.py",
    repair="Tensor.cuda() leaves a tensor where it is",
    needed=without_cuda,
    patches=(Patch("torch", "Tensor.cuda", around(lambda cuda, self, *args, **kwargs: self)),),
)


def configured_device(*modules: str) -> Shim:
    """Return the shim for scripts whose options, in these modules, say on which device they run."""
    return Shim(
        name="configured-device",
        symptom="Torch not compiled with CUDA enabled: a GPU is the default, and the options that a checkpoint's "
        "folder keeps win over the flag",
        repair="there is no GPU here, so it runs on the CPU",
        needed=without_cuda,
        patches=tuple(Patch(name, "BaseOptions.parse", around(parse_for_cpu)) for name in modules),
    )


FLOAT_LENGTHS = Shim(
    name="float-lengths",
    symptom="TypeError: only integer tensors of a single element can be converted to an index, in model/predictor.py",
    repair="the lengths of word sequences, sums of a float mask, are made whole before they are packed",
    needed=lambda: fails(
        lambda: pack_padded_sequence(torch.zeros(1, 1, 1), [torch.tensor(1.0)]),  # type: ignore[list-item]
        RuntimeError,
        TypeError,
    ),
    patches=(Patch("model.predictor", "pack_padded_sequence", around(pack_whole)),),
)
FOCAL_LOSS = Shim(
    name="focal-loss",
    symptom="ModuleNotFoundError: No module named 'torchvision', or one built for another torch, for one loss function",
    repair="a stand-in for torchvision that has sigmoid_focal_loss alone",
    # RuntimeError: one that was built for another torch.
    needed=lambda: fails(lambda: importlib.import_module("torchvision.ops.focal_loss"), ImportError, RuntimeError),
    stand_ins=torchvision,
)
FORK = Shim(
    name="fork",
    symptom="from Python 3.14 on, Linux starts a DataLoader's workers afresh: they import the old code without the "
    "other shims",
    repair="workers are forked, as they were when these repositories were written",
    needed=lambda: sys.platform == "linux" and sys.version_info >= (3, 14),
    patches=(Patch("multiprocessing.context", "_default_context._actual_context", lambda _: get_context("fork")),),
)
PUNKT = Shim(
    name="punkt",
    symptom="LookupError: Resource punkt_tab not found, while EMB makes its data set",
    repair="a query is one sentence: only what splits texts into sentences is left out, words are NLTK's own. "
    "Tokens differ where a period stands inside a query",
    needed=lambda: fails(lambda: importlib.import_module("nltk").word_tokenize("a"), LookupError),
    patches=(Patch("util.data_gen", "word_tokenize", around(tokenize_sentence)),),
)
TORCH_LOAD = Shim(
    name="torch-load",
    symptom="UnpicklingError: Weights only load failed (argparse.Namespace), or weights_only=False, which runs "
    "whatever code a file holds",
    repair="torch.load takes weights, plain data, argparse.Namespace, EasyDict and nncore's Config, and refuses "
    "everything else (before torch 2.4, which has no such choice, it is left as it is)",
    needed=supported,
    patches=(Patch("torch", "load", around(load_for_here)),),
)
TORCHTEXT = Shim(
    name="torchtext",
    symptom="ModuleNotFoundError: No module named 'torchtext', or one built for another torch: it ended with torch 2.3",
    repair="a stand-in for torchtext that reads .vector_cache/glove.6B.300d.txt, which Charades-STA with VGG needs",
    # OSError: one that was built for another torch.
    needed=lambda: fails(lambda: importlib.import_module("torchtext.vocab"), ImportError, OSError, RuntimeError),
    stand_ins=torchtext,
)
TRANSFORMERS_ADAMW = Shim(
    name="transformers-adamw",
    symptom="ImportError: cannot import name 'AdamW' from 'transformers', whose later versions dropped it",
    repair="a stand-in for transformers, with torch's AdamW under the same defaults and the linear schedule",
    needed=lambda: fails(lambda: importlib.import_module("transformers").AdamW, ImportError, AttributeError),
    stand_ins=transformers,
)
