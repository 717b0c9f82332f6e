"""``hero-plugin weights ...``: say what a checkpoint holds, take the plug-in out of one, put it on another."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table
from torch import Tensor

from hero_plugin import HeroConfig, Plugin, PluginError
from hero_plugin.config import with_config_note
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import atomic_write, check_free
from hero_plugin.integrations.support.settings import parse_named_paths, read_settings
from hero_plugin.integrations.support.tables import markdown_table
from hero_plugin.integrations.training.bases import base_of
from hero_plugin.integrations.training.checkpoints import Contents, read_contents
from hero_plugin.integrations.training.run_folder import FREE_TO_CHANGE, RunFolder
from hero_plugin.plugin import SAFETENSORS, write_folder
from hero_plugin.wrap import check_base


@dataclass
class ConfigHints:
    """What weights do not say. Only needed where neither the checkpoint nor its run folder holds the config."""

    num_heads: int | None = None
    """Attention heads of the text encoder."""
    norm: Literal["pre", "post"] | None = None
    """Where the encoder normalises."""
    positions: bool | None = None
    """Whether its attention knows where a word stands."""
    gate: Literal["residual", "sigmoid", "none"] | None = None
    """SGVF's gate; none: the model was trained without SGVF. A sigmoid gate has no weights to tell it by."""


File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
PluginFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PLUGIN")]
BaseFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BASE_CHECKPOINT")]
Output = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
OF_THE_TRAINING = ("optimizer", "scaler", "optimizer_state_dict", "optimizer_states", "progress")
"""Entries of a checkpoint that belong to the training of its own parameters."""


@dataclass
class ShowConfig:
    """Say what a checkpoint holds: one of hero-plugin, or of EMB, Moment-DETR, QD-DETR, TR-DETR, lighthouse."""

    file: File
    """The checkpoint. Nothing in it is executed."""
    json: bool = False
    """Print it as JSON."""


@dataclass
class ExtractConfig:
    """Take the plug-in out of a checkpoint of a wrapped model."""

    file: File
    """The checkpoint."""
    output: Output
    """The plug-in's; a name in .safetensors makes it one."""
    config: Path | None = None
    """HeroConfig as JSON or TOML, where the checkpoint does not hold it."""
    hints: tyro.conf.OmitArgPrefixes[ConfigHints] = field(default_factory=ConfigHints)
    overwrite: bool = False
    """Replace OUTPUT."""


@dataclass
class MergeConfig:
    """Put a plug-in on another copy of the base: a checkpoint of the layout that BASE_CHECKPOINT has."""

    plugin: PluginFile
    """The plug-in's checkpoint."""
    base_checkpoint: BaseFile
    """A checkpoint of the base, plain or wrapped."""
    output: Output
    """The base's weights under base., the plug-in's under hero.: what a wrapped model loads."""
    strict: bool = True
    """Refuse a base of another class; with --no-strict it is a warning."""
    overwrite: bool = False
    """Replace OUTPUT."""


def show(config: ShowConfig) -> None:
    """Run ``hero-plugin weights show``."""
    facts = facts_of(read_contents(config.file))
    if config.json:
        print(json.dumps(facts, indent=2))
    else:
        screen = Screen()
        screen.say(str(config.file))
        screen.show(facts_table(facts))


def extract(config: ExtractConfig) -> None:
    """Run ``hero-plugin weights extract``."""
    contents = read_contents(config.file)
    if not contents.hero and contents.config is None:
        raise UserError(f"{config.file}: {contents.described}: there is no plug-in in it to take out")
    if not contents.hero and contents.config is not None and contents.config.active:
        raise UserError(
            f"{config.file}: says that HERO was on, but no weights of a plug-in were found in it: names with `hero.`"
        )
    made = chosen_config(contents, config)
    plugin = Plugin(contents.hero, made, contents.fingerprint, contents.version or "unknown")
    check_free(config.output, config.overwrite, config.file)
    plugin.save(config.output)
    parts = ", ".join(f"{name} {number:,}" for name, number in sizes(plugin.hero).items()) or "no weights: HERO is off"
    Screen().say(f"{config.output}: plug-in of {plugin.base.class_name or 'an unknown base'} ({parts})")


def merge(config: MergeConfig) -> None:
    """Run ``hero-plugin weights merge``."""
    screen = Screen()
    if config.output.suffix == SAFETENSORS:
        raise UserError(f"{config.output}: a merged checkpoint is what torch.save writes: give it a name in .pt")
    content, notes = merged(config)
    check_free(config.output, config.overwrite, config.plugin, config.base_checkpoint)
    with atomic_write(config.output, "wb") as stream:
        torch.save(content, stream)
    for note in notes:
        screen.say(f"note: {note}")
    screen.say(f"{config.output}: {config.plugin.name} on the base of {config.base_checkpoint.name}")


def chosen_config(contents: Contents, config: ExtractConfig) -> HeroConfig:
    """Return the checkpoint's own config, else that of ``--config``, else what its weights and the flags say."""
    if contents.config is not None:
        given = [f"--{name.replace('_', '-')}" for name, value in vars(config.hints).items() if value is not None]
        if given := [*given, *(["--config"] if config.config else [])]:
            raise UserError(
                f"{config.file}: its config is known from {contents.config_from}; leave out {', '.join(given)}"
            )
        return contents.config
    if config.config is None:
        return infer_config(contents.hero, config.hints, str(config.file))
    try:
        made = HeroConfig.from_dict(read_settings(config.config))
    except (ValueError, TypeError) as error:
        raise UserError(f"{config.config}: {error}") from error
    wrong = [
        f"{name} is {getattr(made, name)!r} in it, {value!r} in the weights"
        for name, value in visible_fields(contents.hero).items()
        if name in made.architecture(contents.fingerprint.dim or 0)
        and name != "feedforward"
        and getattr(made, name) != value
    ]
    if wrong:
        raise UserError(f"{config.config}: not the config of {config.file}: {'; '.join(wrong)}")
    return made


def merged(config: MergeConfig) -> tuple[Any, list[str]]:
    """Return the checkpoint of a wrapped model, and what is worth saying about it."""
    contents = read_contents(config.plugin)
    if contents.kind != "plug-in" or contents.config is None:
        raise UserError(
            f"{config.plugin}: {contents.described}, not a plug-in's checkpoint; "
            "`hero-plugin weights extract` makes one of it"
        )
    plugin = Plugin(contents.hero, contents.config, contents.fingerprint, contents.version or "unknown")
    target = read_contents(config.base_checkpoint)
    if not target.base:
        raise UserError(
            f"{config.base_checkpoint}: {target.described}, without the weights of a base to put a plug-in on"
        )
    with warnings.catch_warnings(record=True) as differences:
        warnings.simplefilter("always")
        try:
            check_base(target.fingerprint, plugin.base, str(config.plugin), strict=config.strict)
        except PluginError as error:
            raise UserError(str(error).replace("strict=False", "--no-strict")) from error
    notes = [str(each.message) for each in differences]
    state = with_config_note(
        {**{f"base.{name}": value for name, value in target.base.items()}, **plugin.hero}, plugin.config
    )
    if target.entry is None:
        return state, notes
    if type(target.outer.get("opt")) is dict:
        raise UserError(
            f"{config.base_checkpoint}: its settings are an EasyDict: pip install easydict to write them again"
        )
    dropped = [name for name in OF_THE_TRAINING if name in target.outer]
    if dropped:
        notes.append(f"left out, because made in training the base alone: {', '.join(dropped)}")
    if "metrics" in target.outer:
        notes.append("left out, because measured of the model before: metrics")
    kept = {name: value for name, value in target.outer.items() if name not in (*dropped, "metrics")}
    return {**kept, target.entry: state, "hero": plugin.record()}, notes


def facts_of(contents: Contents) -> dict[str, Any]:
    """Return what ``weights show`` says, as JSON values; null where the file does not say."""
    weights = [*contents.base.values(), *contents.hero.values()]
    config = contents.config
    seen = None if config or not contents.hero else visible_fields(contents.hero)
    return {
        "file": str(contents.path),
        "kind": contents.kind,
        "described": contents.described,
        "base": contents.fingerprint.class_name,
        "hidden_size": contents.fingerprint.dim,
        "fingerprint": contents.fingerprint.digest,
        "levels": config.levels if config else seen["levels"] if seen else None,
        "config": config.to_dict() if config else None,
        "config_from": contents.config_from or None,
        "seen_in_the_weights": seen,
        "version": contents.version,
        "parameters": {"base": sum(value.numel() for value in contents.base.values()), **sizes(contents.hero)},
        "bytes_of_weights": sum(value.numel() * value.element_size() for value in weights),
        "bytes_of_file": contents.path.stat().st_size,
        "beside_the_weights": contents.other_entries,
    }


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Return the same for people; of the config only what differs from the defaults."""
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    rows = [
        ("what", facts["described"]),
        ("base", facts["base"] or "unknown: no adapter knows these names of parameters"),
        ("hidden size", facts["hidden_size"]),
        ("fingerprint", facts["fingerprint"]),
        ("levels", facts["levels"]),
        ("config", _config_line(facts)),
        ("hero-plugin", facts["version"]),
        ("parameters", "\n".join(f"{name} {number:,}" for name, number in facts["parameters"].items() if number)),
        ("size", f"{facts['bytes_of_weights'] / 1e6:.1f} MB of weights, {facts['bytes_of_file'] / 1e6:.1f} MB in all"),
        ("beside them", ", ".join(facts["beside_the_weights"])),
    ]
    for name, value in rows:
        if value not in (None, ""):
            table.add_row(name, str(value))
    return table


def sizes(hero: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the numbers in each part of the plug-in: hem, sgvf, cmtr, aggregation, relevance."""
    counts: dict[str, int] = {}
    for name, value in hero.items():
        part = name.split(".")[1]
        counts[part] = counts.get(part, 0) + value.numel()
    return counts


def _config_line(facts: Mapping[str, Any]) -> str | None:
    if facts["config"] is None:
        seen = facts["seen_in_the_weights"]
        if seen is None:
            return None
        return "not in the file; its weights show " + ", ".join(f"{name}={value}" for name, value in seen.items())
    defaults = HeroConfig().to_dict()
    changed = [f"{name}={value!r}" for name, value in facts["config"].items() if value != defaults[name]]
    return f"{', '.join(changed) or 'the defaults'} (from {facts['config_from']})"


def infer_config(hero: Mapping[str, Tensor], hints: ConfigHints, source: str) -> HeroConfig:
    """Return the config that weights under ``hero.`` were made with; what only training reads has its default.

    Raises ``UserError`` where the hints lack choices that the weights do not show (it names the flags), or contradict
    them.
    """
    missing = [flag for flag in open_choices(hero) if getattr(hints, flag) is None]
    if missing:
        flags = {name: f"--{name.replace('_', '-')}" for name in missing}
        defaults = " ".join(f"{flag} {getattr(HeroConfig(), name)}" for name, flag in flags.items())
        raise UserError(
            f"{source}: holds no config, and the weights do not say "
            + ", ".join(name.replace("_", " ") for name in missing)
            + f". Give {' '.join(flags.values())}"
            + f" as the model was trained (the defaults of HeroConfig: {defaults}), or --config FILE"
        )
    fields = visible_fields(hero)
    seen = visible_gate(hero)
    if seen and hints.gate not in (None, seen):
        raise UserError(f"{source}: --gate {hints.gate} contradicts the weights, which have a {seen} gate's")
    gate = seen or hints.gate or "none"
    fields["sgvf"] = gate != "none"
    if gate != "none":
        fields["gate"] = gate
    if "num_heads" in open_choices(hero):
        fields |= {"num_heads": hints.num_heads, "norm": hints.norm, "positions": hints.positions}
        fields["identity_start"] = hints.norm != "post"
    try:
        return HeroConfig(**fields)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def visible_fields(hero: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields that shapes and names of the weights decide."""
    fields: dict[str, Any] = {"levels": 1, "cmtr": "hero.cmtr.mask_token" in hero}
    if "hero.aggregation.templates" in hero:
        fields["levels"], fields["aggregation_dim"] = hero["hero.aggregation.templates"].shape
        fields["normalize"] = "hero.aggregation.mlp.2.bias" not in hero
        fields["level_weights"] = "query" if "hero.aggregation.query.weight" in hero else "learned"
    layers = {name.split(".")[3] for name in hero if name.startswith("hero.hem.layers.")}
    if fields["levels"] > 1 and not layers:
        fields["levels_from"] = "input"
    if layers:
        fields["stride"] = len(layers) // (fields["levels"] - 1)
        hidden, dim = hero["hero.hem.layers.0.expand.weight"].shape
        fields["feedforward"] = None if hidden == 4 * dim else hidden
    fields["projections"] = "hero.sgvf.projections" in hero
    fields["calibrate"] = "hero.ranked.offset" in hero  # of no consequence where the base's score is a logit
    fields["relevance"] = "pair" if any(name.startswith("hero.relevance.") for name in hero) else "base"
    return fields


def open_choices(hero: Mapping[str, Tensor]) -> list[str]:
    """Return the fields of ``ConfigHints`` that these weights leave open."""
    encoder = any(name.startswith("hero.hem.") for name in hero)
    return [*(["num_heads", "norm", "positions"] if encoder else []), *([] if visible_gate(hero) else ["gate"])]


def visible_gate(hero: Mapping[str, Tensor]) -> str | None:
    """Return SGVF's gate where the weights show it: only a residual one has a strength."""
    if "hero.sgvf.strength" in hero:
        return "residual"
    return "sigmoid" if "hero.sgvf.projections" in hero else None


FILES = (
    *("annotations_train", "annotations_val", "annotations_reworded", "annotations_test"),
    *("features", "words", "query_features", "durations"),
)
SETTINGS = ("seed", "epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "amp")
"""What every card says; of all other settings it says those that are not the defaults of the base's recipe."""
UNTOLD = (
    *FILES,
    *("base", "hero", "base_only", "init_base", "freeze_base"),  # told elsewhere on the card
    *FREE_TO_CHANGE,
    *("threads", "storage", "memory", "eval_batch_size"),  # of the machine
)
"""Settings that are no rows of their own in the table of the training."""
NOT_OF_ADAPTING = ("epochs", "swap_words", "choose_level", "eval_every", "annotations_reworded")
"""Settings of the run that an adaptation started from, which it kept and did not read."""


@dataclass
class CardConfig:
    """Write a folder that from_pretrained reads and the Hugging Face hub takes: plug-in, base, model card."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A finished run folder."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """The folder to write: plugin.safetensors, base.safetensors, README.md."""
    without_base: bool = False
    """Leave the base's weights out, as those of a frozen base are."""
    overwrite: bool = False
    """Replace what is in OUTPUT of an earlier call."""


def card(config: CardConfig) -> None:
    """Run ``hero-plugin weights card``."""
    run = RunFolder.open(config.run)
    if not run.finished:
        raise UserError(f"{config.run}: not finished, it has no results.json: --resume its training, then write a card")
    settings, results = run.config(), run.results()
    contents = read_contents(run.path / "best.pt")
    if not contents.hero or contents.config is None:
        raise UserError(f"{config.run}: trained without HERO: there is no plug-in to write a card for")
    # A base that was frozen is that of --init-base, which others have; but an adapted run's is of another run.
    published = settings["freeze_base"] and settings.get("init_base") and "adapted" not in settings
    base = None if config.without_base or published else contents.base
    plugin = Plugin(contents.hero, contents.config, contents.fingerprint, contents.version or "unknown")
    try:
        write_folder(config.output, plugin, base, sections(settings, results), config.overwrite)
    except PluginError as error:
        raise UserError(str(error).replace("pass overwrite=True", "add --overwrite")) from error
    Screen().say(f"{config.output}: {', '.join(sorted(path.name for path in config.output.iterdir()))}")


def sections(settings: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections that a run adds to a model card, Markdown by heading: figures, data, training.

    Of files the names alone are told, and not where they lie.
    """
    best: Mapping[str, Mapping[str, Any]] = results["best"]
    names = list(dict.fromkeys(name for scores in best.values() for name in scores))
    figures = [[where, *(_number(scores.get(name)) for name in names)] for where, scores in best.items()]
    kept = "the last" if (chosen_on := results["selected_on"]) is None else f"the best on {chosen_on}"
    chosen = f"Of epoch {results['best_epoch']}, {kept}; one training, so no intervals."
    adapted = settings.get("adapted")
    if adapted is not None:
        chosen = "After the adaptation; one, so no intervals."
        settings = {name: value for name, value in settings.items() if name not in NOT_OF_ADAPTING}
    files = [[name.replace("_", " "), _files(name, settings[name])] for name in FILES if settings.get(name)]
    training = [[name.replace("_", " "), _value(settings[name])] for name in told_settings(settings)]
    start = f" from {Path(settings['init_base']).name}" if settings.get("init_base") else ""
    base = f"{settings['base']}, {'frozen' if settings['freeze_base'] else 'trained'}{start}"
    if adapted is not None:
        if earlier := adapted.get("past"):
            files.insert(1, ["annotations of earlier trainings", _files("past", earlier)])
        training = [*_adaptation(adapted), *training]
        base = f"{settings['base']}, frozen as the run before left it"
    training.append(["base", base])
    versions = ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items())
    return {
        "Figures": f"{chosen}\n\n{markdown_table(('set', *names), figures)}",
        "Data": markdown_table(("part", "files"), files, text=("files",)),
        "Training": f"{markdown_table(('setting', 'value'), training, text=('value',))}\n\nTrained with {versions}.",
    }


def told_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings to tell: ``SETTINGS``, and those that are not the defaults of the base's recipe.

    What the training did not read is left out, such as the weight decay, which adam does not take.
    """
    usual = base_of(settings, "the run").config().to_json()
    other = [name for name, value in settings.items() if name in usual and value != usual[name] and name not in UNTOLD]
    unread = set[str]()
    if settings.get("optimizer", usual["optimizer"]) == "adam":
        unread.add("weight_decay")
    if settings.get("schedule", usual["schedule"]) != "step":
        unread.add("lr_drop")
    return [name for name in dict.fromkeys([*SETTINGS, *other]) if name in settings and name not in unread]


def _adaptation(adapted: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of an adapted run on its adaptation, from the run's record of it."""
    rows = [["adapted from", f"the run {Path(adapted['run']).name}, its best checkpoint"]] if "run" in adapted else []
    names = [name for name, _ in parse_named_paths(adapted.get("annotations", ()))]
    if adapted.get("stage") in names:
        rows.append(["new words, one set after the other", ", ".join(names[: names.index(adapted["stage"]) + 1])])
    if "shots" in adapted:
        rows.append(["shots of each", str(adapted["shots"] or "all")])
    if "steps" in adapted:
        rows.append(["steps for each", str(adapted["steps"])])
    same = ("distillation", "rehearsal", "interpolation")
    return rows + [[name, str(adapted[name])] for name in same if name in adapted]


def _value(value: Any) -> str:
    """Return a setting as text, of a path the name alone: where files lie on this machine says nothing."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else ""


def _files(name: str, value: Any) -> str:
    if name == "annotations_test":
        return ", ".join(f"{known_as}={path.name}" for known_as, path in parse_named_paths(value))
    return ", ".join(Path(path).name for path in ([value] if isinstance(value, str) else value))
