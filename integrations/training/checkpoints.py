"""Checkpoints, loaded without running anything in them: those of runs, and those of other code.

Upstream's scripts save their settings with the weights: a pickled ``argparse.Namespace``, in lighthouse an
``easydict.EasyDict``, in FlashVTG with an ``nncore.Config`` inside. Those are let through, as the plain data they are,
and nothing else is.
"""

import importlib.util
import json
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hero_plugin import Adapter, HeroConfig, HeroModel, PluginError, config_of, known_adapters
from hero_plugin.integrations.data.words import Vocabulary
from hero_plugin.integrations.support import UserError, atomic_write
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.plugin import PARTS, SAFETENSORS, Fingerprint, forms, plugin_from, values_of

VERSION = 1
"""Of the checkpoints of runs."""
ALLOWED = ("argparse.Namespace", "easydict.EasyDict", "nncore.utils.config.Config")
"""Classes that checkpoints of other code may hold."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, and what to do about it."""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings and containers of them, at once or not at all."""
    with atomic_write(path, "wb") as file:
        torch.save({"version": VERSION, **state}, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Only plain data is loaded (``weights_only=True``)."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; is this the folder of a run that has trained?")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}); train the run again") from error
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {state.get('version')}, this hero-plugin reads version {VERSION}; "
            "use the version of hero-plugin that the run's config.json names"
        )
    return state


def supported() -> bool:
    """Return whether this torch (2.4 or later) can allow single classes."""
    return hasattr(torch.serialization, "add_safe_globals")


def load_checkpoint_safely(path: str | Path, device: torch.device | str = "cpu") -> Any:
    """Load what ``torch.save`` wrote: tensors, plain data, and the settings of upstream's scripts.

    Settings in an ``EasyDict`` come back as one where easydict is installed, else as a dict; nncore's as a dict.

    Raises:
        CheckpointError: The file is missing, or no checkpoint, or holds a class that is not allowed: then the message
            names it, and nothing of it was executed.
    """
    path = Path(path)
    if path.is_dir():
        held = [name for name in ("plugin.safetensors", "plugin.pt", "best.pt") if (path / name).is_file()]
        advice = f"name {path / held[0]}" if held else "name the file of weights in it; of shards, make one file first"
        raise CheckpointError(f"{path}: is a folder; {advice}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return load_safely(torch.load, path, map_location=device)


def load_safely(load: Callable[..., Any], file: Any, **options: Any) -> Any:
    """Call ``torch.load``, passed as ``load``, with its other options, as ``load_checkpoint_safely`` does."""
    with allowed() as found:
        try:
            content = load(file, **{**options, "weights_only": True})
        except FileNotFoundError:
            raise
        except Exception as error:
            raise CheckpointError(refusal(file, error)) from error
    return as_easydict(content, {id(each) for each in found}) if found else content


@contextmanager
def allowed() -> Iterator[list[Any]]:
    """Let torch read the classes in ``ALLOWED`` while the block runs; yield the list that the EasyDicts go to.

    An ``EasyDict`` or a ``Config`` is read as an ``OrderedDict``, which torch fills in without calling any code of the
    class.
    """
    found: list[Any] = []

    def new(cls: type) -> Any:
        found.append(OrderedDict())
        return found[-1]

    easydict = type("EasyDict", (), {"__module__": "easydict", "__new__": new})
    nncore = type("Config", (), {"__module__": "nncore.utils.config", "__new__": lambda cls: OrderedDict()})
    if not supported():
        yield found
        return
    # torch 2.4 has no context manager for this yet.
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([Namespace, easydict, nncore])
    try:
        yield found
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def refusal(path: Any, error: Exception) -> str:
    """Say why a file was not read, naming every class that is not allowed."""
    refused = refused_classes(path, error)
    if "TorchScript" in str(error):
        return (
            f"{path}: TorchScript, a program, which is not run; save the weights: torch.save(model.state_dict(), ...)"
        )
    if not refused:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, UnpicklingError | EOFError):  # torch would advise to load anything at all
            reason = "nothing that torch.save wrote: another kind of file, a web page, or a pointer of Git LFS?"
        return f"{path}: not a checkpoint that can be read ({reason}); copy or download it again"
    if set(refused) <= set(ALLOWED):  # torch before 2.4
        return (
            f"{path}: holds {', '.join(refused)}, which this torch ({torch.__version__}) cannot let through alone. "
            "Nothing in the file was executed. Upgrade to torch 2.4 or later: there it loads"
        )
    return (
        f"{path}: holds {', '.join(refused)}, and loading it could run any code. Nothing in it was executed. "
        f"Allowed are tensors, plain data, {' and '.join(ALLOWED)}. If you trust the file, save its weights alone "
        "where it was made: torch.save({'state_dict': model.state_dict()}, 'weights.pt')"
    )


def refused_classes(path: Any, error: Exception) -> list[str]:
    """List the classes and functions in the file that are not allowed; from the error where torch cannot list them."""
    list_them = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if list_them is not None:
        with suppress(Exception), allowed():
            refused = sorted(set(list_them(path)) - set(ALLOWED))
            if refused:
                return refused
    found = re.search(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", str(error))
    return [found.group(1)] if found else []


def as_easydict(value: Any, found: set[int]) -> Any:
    """Return ``value`` with what was read in place of an EasyDict as one, or as a dict without easydict."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        items = {key: as_easydict(item, found) for key, item in value.items()}
        if id(value) in found:
            return easydict_class()(items)
        return items if type(value) is dict else value  # the weights: an OrderedDict with a version in its attributes
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(as_easydict(item, found) for item in value)
    return value


def easydict_class() -> Any:
    """Return ``easydict.EasyDict`` where it is installed, else ``dict``."""
    if importlib.util.find_spec("easydict") is None:
        return dict
    from easydict import EasyDict

    return EasyDict


Kind = Literal["plug-in", "run", "checkpoint", "weights"]
ENTRIES = ("model", "state_dict", "model_state_dict", "module", "net")
"""Keys under which training scripts save the weights: the DETRs', Lightning's, the tutorials', DeepSpeed's, others'."""
AROUND = ("module.", "_orig_mod.")
"""Prefixes of every name, where ``DataParallel`` or ``torch.compile`` wrapped a base that no adapter knows."""


@dataclass(frozen=True)
class Contents:
    """A checkpoint, taken apart."""

    path: Path
    kind: Kind
    """Of a plug-in; of a run of this package; of another training script; or weights alone."""
    outer: Any
    """Everything that was read."""
    entry: str | None
    """The key in ``outer`` that the weights are under; None where they are not under one."""
    base: Mapping[str, Tensor]
    """The base's weights, by its own names."""
    hero: Mapping[str, Tensor]
    """The plug-in's, under ``hero.``."""
    fingerprint: Fingerprint
    """Of the base: as recorded, else as its weights show."""
    config: HeroConfig | None
    """None where the file does not say."""
    config_from: str
    """Where the config was found."""
    version: str | None
    """Of the hero_plugin that wrote it, where that is known."""

    @property
    def described(self) -> str:
        """Return a description in words."""
        if self.kind == "plug-in":
            return "a plug-in's checkpoint"
        of = "a wrapped model" if self.hero and self.base else "a plug-in" if self.hero else "the plain base"
        if self.kind == "run":
            return f"{self.path.name} of a hero-plugin run, {of}"
        what = "weights alone (a state_dict)" if self.kind == "weights" else "a training script's checkpoint"
        return f"{what}, {of}"

    @property
    def other_entries(self) -> list[str]:
        """Return the names of what is in it beside the weights."""
        if not isinstance(self.outer, Mapping) or self.entry is None:
            return []
        return [str(name) for name in self.outer if name != self.entry]


def read_contents(path: Path) -> Contents:
    """Recognise a checkpoint; ``CheckpointError`` if it cannot be read safely, or holds no weights of a model."""
    try:
        return _contents(path)
    except PluginError as error:
        raise CheckpointError(str(error)) from error


def _contents(path: Path) -> Contents:
    outer = _load_safetensors(path) if path.suffix == SAFETENSORS else load_checkpoint_safely(path)
    if isinstance(outer, Mapping) and all(part in outer for part in PARTS):
        plugin = plugin_from(outer, str(path))
        known = (plugin.base, plugin.config, "the checkpoint", plugin.version)
        return Contents(path, "plug-in", outer, None, {}, plugin.hero, *known)
    states = [name for name, value in outer.items() if _is_state(value)] if isinstance(outer, Mapping) else []
    entry = next((name for name in ENTRIES if name in states), states[0] if len(states) == 1 else None)
    state = outer if entry is None else outer[entry]
    if not _is_state(state):
        held = ", ".join(map(str, outer)) if isinstance(outer, Mapping) else type(outer).__name__
        raise CheckpointError(
            f"{path}: no weights of a model found. Expected a state_dict, alone or as the one entry that is such, or "
            f"a plug-in's checkpoint; found {held or 'nothing'}"
        )
    base, hero = split(state, str(path))
    is_run = (
        entry == "model" and isinstance(outer.get("version"), int) and not {"metrics", "progress"}.isdisjoint(outer)
    )
    kind: Kind = "run" if is_run else "weights" if entry is None else "checkpoint"
    config, version, fingerprint = None, None, None
    record = outer.get("hero") if entry is not None else None
    if isinstance(record, Mapping) and "config" in record:  # what a wrapped model says of itself
        plugin = plugin_from({"hero": {}, "version": "unknown", "base": {}, **record}, str(path))
        config, version, fingerprint = plugin.config, plugin.version, plugin.base
    config = config or _noted(state, path)
    source = "the checkpoint" if config else ""
    if is_run and (found := _run_settings(path)) is not None:
        settings, written_by = found
        if config is None and hero:
            config, source = settings.hero, "its run's config.json"
        version = version or written_by
    fingerprint = fingerprint or of_weights(base, hero)
    return Contents(path, kind, outer, entry, base, hero, fingerprint, config, source, version)


def _load_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a file; with what a plug-in's file says of itself, where it is one."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(f"{path}: needs safetensors: pip install safetensors") from error
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            facts = {name: text for name, text in (file.metadata() or {}).items() if name in PARTS}
            return {"hero": tensors, **{name: json.loads(text) for name, text in facts.items()}} if facts else tensors
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a file of safetensors that can be read ({error})") from error


def split(state: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a model's weights into the base's, by its own names, and the plug-in's, under ``hero.``.

    The model may lie inside others, whose prefix every name of it has: ``module.``, Lightning's ``model.``. What lies
    beside it, a count of averages or a teacher, is left out. Several wrapped models in it are a ``CheckpointError``.
    """
    bare = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    inside = {found[1] for name in bare if (found := _OF_HERO.match(name))}
    if len(inside) > 1:
        raise CheckpointError(
            f"{source}: holds several wrapped models, under {', '.join(map(repr, sorted(inside)))}: save one of them"
        )
    if not inside:
        bare = _below(bare, _prefix_of_base(bare))
        wrapped = bare and all(name.startswith("base.") for name in bare)  # with HERO off there is nothing under hero.
        return (_below(bare, "base.") if wrapped else bare), {}
    bare = _below(bare, inside.pop())
    hero = {name: value for name, value in bare.items() if name.startswith("hero.")}
    return _below(bare, "base."), hero


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _prefix_of_base(bare: Mapping[str, Tensor]) -> str:
    """Return the prefix under which a known base lies; else that of torch's wrappers, if all names have one."""
    prefixes = sorted({name[:end] for name in bare for end in _ends(name)}, key=lambda prefix: prefix.count("."))
    known = next((prefix for prefix in prefixes if adapter_by_weights(_below(bare, prefix))), None)
    if known is not None:
        return known
    shared = ""
    while prefix := next((each for each in AROUND if all(name.startswith(shared + each) for name in bare)), ""):
        shared += prefix
    return shared


def _ends(name: str) -> list[int]:
    """Return where the first prefixes of a name end: no model lies deeper in another than that."""
    ends = [0]
    while len(ends) < 4 and (dot := name.find(".", ends[-1])) > 0:
        ends.append(dot + 1)
    return ends


_OF_HERO = re.compile(r"((?:\w+\.)*?)hero\.(?:hem|sgvf|cmtr|aggregation|relevance|ranked)\.")


def of_weights(base: Mapping[str, Tensor], hero: Mapping[str, Tensor]) -> Fingerprint:
    """Return a base's fingerprint, as far as its weights and the plug-in's show it."""
    adapter = adapter_by_weights(base)
    dim = next((value.shape[-1] for name, value in hero.items() if name in _AS_WIDE), None)
    if dim is None and adapter is not None and adapter.width_parameter in base:
        dim = base[adapter.width_parameter].shape[-1]
    return Fingerprint(adapter.class_names[0] if adapter else None, dim, forms(base), values_of(base))


_AS_WIDE = ("hero.cmtr.mask_token", "hero.sgvf.strength", "hero.sgvf.projections", "hero.hem.layers.0.value.weight")


def _noted(state: Any, path: Path) -> HeroConfig | None:
    """Return the config that the weights of a wrapped model note themselves."""
    try:
        return config_of(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _run_settings(path: Path) -> tuple[TrainConfig, str | None] | None:
    """Return the settings of the run that a file lies in, and its hero_plugin's version; None where there is no run."""
    with suppress(UserError):
        run = RunFolder.open(path.parent)
        return run.settings(), run.config().get("versions", {}).get("hero_plugin")
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and any(isinstance(each, Tensor) for each in value.values())


def start_from(
    model: nn.Module,
    path: Path,
    own: Collection[str] = (),
    check_words: Callable[[Vocabulary, Mapping[str, Tensor]], None] = lambda known, weights: None,
    config: TrainConfig | None = None,
) -> str:
    """Give a base, plain or wrapped, the weights of a checkpoint; return a message for the user.

    Parameters of the names ``own`` keep their values because the data decides them, such as a vocabulary's.
    ``check_words`` refuses another word table than that of the run, if any, which the checkpoint lies in; ``config`` is
    compared with that run's, for the message. Where the checkpoint holds no base, or another one, or is of other words,
    a ``UserError`` says what differs.
    """
    contents = read_contents(path)
    if not contents.base:
        raise UserError(f"--init-base {path}: {contents.described}, without the weights of a base")
    base = model.base if isinstance(model, HeroModel) else model
    state = {name: value for name, value in base.state_dict().items() if name not in own}
    check_same_base(state, contents, own)
    if contents.kind == "run" and (run := RunFolder(path.parent)).vocabulary_file.is_file():
        try:
            check_words(Vocabulary.from_json(run.vocabulary()), contents.base)
        except UserError as error:
            raise UserError(f"--init-base {path}: {error}") from error
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(contents.base[name])
    message = f"starts from the base in {path} ({contents.described})"
    if isinstance(model, HeroModel) and not model.config.starts_as_base:
        message += "\nnote: the predictions do not start as that base's: " + "; ".join(model.config.departures)
    if config is None or contents.kind != "run" or (found := _run_settings(path)) is None:
        return message
    if changed := config.fed_otherwise(found[0]):
        message += f"\nnote: here it is given other inputs than there: {', '.join(changed)}"
    return message


def adapter_by_weights(names: Iterable[str]) -> type[Adapter] | None:
    """Return the adapter whose prefixes are all in a state_dict's names: of several, that with the most; or None."""
    names = list(names)
    fitting = [
        adapter
        for adapter in known_adapters()
        if adapter.weight_prefixes
        and all(any(name.startswith(mark) for name in names) for mark in adapter.weight_prefixes)
    ]
    return max(fitting, key=lambda adapter: len(adapter.weight_prefixes), default=None)


def check_same_base(state: dict[str, torch.Tensor], contents: Contents, own: Collection[str]) -> None:
    """Raise ``UserError`` unless a checkpoint's base is of the class and sizes of this one."""
    adapter = adapter_by_weights([*state, *own])
    here = Fingerprint(adapter.class_names[0] if adapter else None, None, forms(state))
    tensors = {name: form for name, form in contents.fingerprint.tensors.items() if name not in own}
    there = Fingerprint(contents.fingerprint.class_name, None, tensors)
    lines = [*here.obstacles(there), *here.differences(there)]
    if lines:
        raise UserError(
            f"--init-base {contents.path}: not a checkpoint of this base:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nGive features, word vectors and sizes as it was trained with, or another checkpoint"
        )
