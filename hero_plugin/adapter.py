"""Adapters: how a known base is recognised and served."""

from __future__ import annotations

import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn

from hero_plugin.aggregation import Kind
from hero_plugin.protocol import Grounder, Grounding, Pair
from hero_plugin.tensors import is_compiling, plain

_registered: list[type[Adapter]] = []


class Adapter(ABC):
    """Base class of adapters: a ``Grounder`` made of an instance of a known base.

    A subclass names the classes it serves and the attributes it uses, and implements ``dim``, ``embed``, ``ground`` and
    ``relate``. It keeps nothing from one call to the next but the base.
    Register it with ``register_adapter``, or from a package of your own by an entry point in the group
    ``hero_plugin.adapters``. ``docs/guide/own_base.md`` writes one from scratch.
    """

    class_names: ClassVar[tuple[str, ...]] = ()
    """Names of the classes this adapter serves; subclasses of those are served too."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Attribute paths that the base must have."""
    weight_prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes of parameters' names that mark a checkpoint as this base's: each must be there."""
    width_parameter: ClassVar[str] = ""
    """Name of a parameter whose last axis is D."""
    kinds: ClassVar[Mapping[str, Kind]] = {}
    """How each output combines over levels."""
    optional_outputs: ClassVar[tuple[str, ...]] = ()
    """Names in ``kinds`` that are not among the outputs of every such base, or of every forward."""
    part_of_batch: ClassVar[tuple[str, ...]] = ()
    """Outputs with a row for some of the samples only, in their order (negatives of those that have one)."""
    relevance_ranks: ClassVar[bool] = False
    """Whether the base's clip score is trained to rank clips alone, so that its zero means nothing."""
    recommended: ClassVar[Mapping[str, Any]] = {}
    """Choices of ``HeroConfig`` that measured no worse on this base than the defaults, and cost less; ``print`` of a
    wrapped model names them."""
    methods: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    """Methods of the base that HERO extends, as functions of the wrapped model: a base that computes its losses."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for earlier, name in (("marks", "weight_prefixes"), ("width", "width_parameter")):
            if earlier in vars(cls):
                setattr(cls, name, vars(cls)[earlier])

    def __new__(cls, *args: Any, **kwargs: Any) -> Adapter:
        """Refuse a subclass that lacks a required method, and say what to do: Python's own message does not."""
        if missing := sorted(cls.__abstractmethods__):
            raise TypeError(
                f"{cls.__name__} must define {', '.join(missing)}: "
                "docs/guide/own_base.md writes an adapter from scratch"
            )
        return super().__new__(cls)

    def __init__(self, base: nn.Module) -> None:
        self.base: Any = base

    @classmethod
    def recognises(cls, base: nn.Module) -> bool:
        """Return whether ``base`` is of this family, by the names of its class and of that class's ancestors."""
        return any(ancestor.__name__ in cls.class_names for ancestor in type(base).__mro__)

    @classmethod
    def check(cls, base: nn.Module) -> None:
        """Raise ``TypeError``, which names it, where ``base`` lacks an attribute of ``requires``."""
        for path in cls.requires:
            try:
                operator.attrgetter(path)(base)
            except AttributeError:
                raise TypeError(
                    f"{type(base).__name__} was recognised by {cls.__name__}, but it has no attribute {path!r}. "
                    f"A fork that renamed it needs its own adapter: subclass {cls.__name__}, see docs/guide/own_base.md"
                ) from None

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, the hidden size of the pair."""

    @abstractmethod
    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """Return the pair after the input projections, from the arguments of the base's forward."""

    @abstractmethod
    def ground(self, pair: Pair) -> Grounding:
        """Fuse and predict."""

    @abstractmethod
    def relate(self, pair: Pair) -> Tensor:
        """Fuse only, and return relevance logits (B, T)."""

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Return the combined outputs, changed as needed, given the pair as ``embed`` made it, before HERO.

        For outputs that a base makes of a modality before it meets the other (for a loss that aligns the two, say):
        after HERO's filter the clips have met the query already, and such a loss has nothing left to do.
        """
        return outputs


def register_adapter(adapter: type[Adapter]) -> type[Adapter]:
    """Make ``wrap_model`` know an adapter; usable as a decorator. The latest registered comes first."""
    if adapter not in _registered:
        _registered.insert(0, adapter)
    return adapter


def known_adapters() -> list[type[Adapter]]:
    """Return all adapters: registered ones first, then those that installed packages declare."""
    return [*_registered, *_installed_adapters()]


@lru_cache(maxsize=1)
def _installed_adapters() -> tuple[type[Adapter], ...]:
    found = []
    for entry in sorted(entry_points(group="hero_plugin.adapters"), key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except Exception as error:  # somebody's broken package must not stop all other bases
            package = f" of {entry.dist.name}" if entry.dist else ""
            warnings.warn(f"the adapter {entry.value}{package} cannot be imported: {error!r}", stacklevel=4)
    return tuple(found)


def adapter_for(base: nn.Module) -> Callable[[nn.Module], Grounder]:
    """Return the adapter that serves ``base``; a base that is a grounder itself is its own.

    Raises:
        TypeError: no adapter recognises the base, or an attribute that its adapter uses is missing.
    """
    for adapter in known_adapters():
        if adapter.recognises(base):
            adapter.check(base)
            return adapter
    if isinstance(base, Grounder):
        return own_grounder
    names = sorted({name for adapter in known_adapters() for name in adapter.class_names})
    raise TypeError(
        f"no adapter knows {type(base).__name__}. Known bases: {', '.join(names) or 'none are installed'}. "
        f"{_relatives(base)}"
        "To use another base, build it as hero_plugin.TwoStage(fuser, predictor, dim), or subclass hero_plugin.Adapter "
        "and pass it, adapter=YourAdapter, or register it: docs/guide/own_base.md shows both on a page"
    )


def _relatives(base: nn.Module) -> str:
    """Return a sentence on the adapter whose subclasses find all that they need in an unknown base, or nothing."""
    fitting = []
    for adapter in known_adapters():
        with suppress(TypeError):
            adapter.check(base)
            fitting += [adapter] if adapter.requires else []
    mro: Sequence[Any] = fitting[0].__mro__ if fitting else ()
    shared = [each for each in mro if all(issubclass(one, each) for one in fitting)]
    if not shared or shared[0] is Adapter or shared[0].class_names:
        return ""
    name, module = shared[0].__name__, shared[0].__module__
    return (
        f"It is built as {' and '.join(one.class_names[0] for one in fitting[:2])} are: wrap_model(base, "
        f"adapter={name}), from {module}, serves it if it also means the same by what it returns. "
    )


def own_grounder(base: nn.Module) -> Any:
    """Return ``base``, which is a grounder already."""
    return base


def expect_no_parameters(grounder: Grounder, base: nn.Module) -> None:
    """Raise ``ValueError`` where a grounder holds parameters that are not the base's: nothing trains or saves them."""
    parts: dict[str, Any] = {"": grounder} if isinstance(grounder, nn.Module) else getattr(grounder, "__dict__", {})
    known = {id(parameter) for parameter in base.parameters()}
    for name, part in parts.items():
        held = part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else [part]
        inside = [p for each in held for p in (each.parameters() if isinstance(each, nn.Module) else [each])]
        if any(isinstance(p, nn.Parameter) and p.requires_grad and id(p) not in known for p in inside):
            raise ValueError(
                f"{type(grounder).__name__} holds parameters of its own{name and f' ({name})'}, which nothing would "
                "train, save or move: make them part of the base; for a clip score, there is relevance='pair'"
            )


class Seam:
    """A base's own forward, entered after its input projections.

    ``Seam(base, input_vid_proj=PassThrough(), input_txt_proj=PassThrough())`` calls the base's forward on features that
    are already projected: exact for any base, whatever happens after its projections. It works on a view of the base
    that shares everything but the replaced parts, so the base keeps its modules, its ``state_dict`` and its forward.
    A number, text or None that the forward sets on itself (a counter), or a tensor of one number (a loss of all
    levels), is set on the base; all else that it sets (the last attention) stays with the view, as does what a part
    inside sets that has parts replaced.

    Args:
        base: the base.
        **replacements: what stands in for the parts of these names: a module for a submodule, any other callable for
            a method. A part of a part has a dotted name: ``Seam(base, **{"transformer.decoder": PassThrough()})``.
            ``training=True`` runs the forward as in training, whatever mode the base and its parts are in.

    Raises:
        AttributeError: the base has no such part. Replaced all the same, it would leave the forward as it is.
        TypeError: somebody put a function in place of the base's forward, which would call it past the replaced parts.
    """

    def __init__(self, base: nn.Module, **replacements: Any) -> None:
        for path in replacements:
            try:
                operator.attrgetter(path)(base)
            except AttributeError as error:
                raise AttributeError(f"{type(base).__name__} has no part {path!r} to replace: {error}") from None
        self.base = base
        self.replacements = replacements
        self.view = _share(base, replacements)
        self.names = set(base.__dict__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the base's forward on projected features."""
        own, attributes = self.base.__dict__, self.view.__dict__
        for name in self.names - own.keys():  # attributes may have been taken off the base since, or set
            attributes.pop(name, None)
        self.names = set(own)
        _share(self.base, self.replacements, self.view)
        self.view.training = self.replacements.get("training", self.base.training)
        before = dict(attributes)
        outputs = self.view.forward(*args, **kwargs)
        if not is_compiling():
            changed = {name: value for name, value in attributes.items() if value is not before.get(name, before)}
            own.update((name, each) for name, each in plain(changed).items() if name not in self.replacements)
        return outputs


class PassThrough(nn.Module):
    """Stand-in for a projection whose work is already done: returns its first argument."""

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """Return ``value``."""
        return value


First = PassThrough  # the earlier name


def _share(module: nn.Module, replacements: Mapping[str, Any], view: nn.Module | None = None) -> nn.Module:
    """Return a view of ``module``: all that it is, but for the replacements; into ``view``, where there is one.

    The view gets the entries of the module's ``__dict__``, so it holds the very same parameter and buffer dicts,
    hooks and attributes. Only ``_modules`` is a new dict, or a replacement would show up in the base.
    """
    if view is None:  # without __init__, which would make new parameters and whose arguments nobody knows here
        view = object.__new__(type(module))
    parts: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, part in replacements.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = part
        else:
            parts[name] = part
    parts.update({name: _share(getattr(module, name), deeper) for name, deeper in inner.items()})
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    # In the view's own __dict__, a replaced method is found before that of the class.
    methods = {name: part for name, part in parts.items() if name not in modules}
    forward = module.__dict__.get("forward")
    ours = getattr(forward, "__self__", None) is module or getattr(forward, "__module__", "") == "hero_plugin.model"
    if forward is not None and "forward" not in parts and not ours:
        raise TypeError(
            f"the forward of this {type(module).__name__} is a function that was set on it, and calls the module past "
            "what HERO puts into it. Take it off (del module.forward), wrap_model, and then hook the wrapped model; "
            "torch's own hooks (register_forward_hook) may stay"
        )
    # A bound method among them calls the view's parts, too.
    shared = {
        name: MethodType(value.__func__, view) if isinstance(value, MethodType) and value.__self__ is module else value
        for name, value in module.__dict__.items()
        if name != "_modules"
    }
    view.__dict__.update(shared, _modules={**module._modules, **modules}, **methods)
    return view
