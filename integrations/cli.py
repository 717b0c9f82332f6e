"""The ``hero-plugin`` command. Each subcommand loads what it needs, so that help comes at once."""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Command:
    """One line of the table of commands.

    Attributes:
        run: MODULE:FUNCTION. The dataclass of the function's argument ``config`` is the flags; a function without one
            reads ``argv`` itself, and one with both gets both. It returns an exit status, or anything else for 0.
        help: What the command does.
        config: MODULE:CLASS of the flags, where it is narrower than the function's own.
        alone: The command writes, and knows nothing of other processes.
    """

    run: str
    help: str
    config: str = ""
    alone: bool = False


COMMANDS = {
    "train emb": Command(
        "training.train:run", "train EMB, plain or with HERO, into a run folder", "training.emb:EmbTrainConfig"
    ),
    "train moment_detr": Command(
        "training.train:run", "the same with Moment-DETR", "training.detr:MomentDETRTrainConfig"
    ),
    "train qd_detr": Command("training.train:run", "the same with QD-DETR", "training.detr:QDDETRTrainConfig"),
    "train tr_detr": Command("training.train:run", "the same with TR-DETR", "training.detr:TRDETRTrainConfig"),
    "eval": Command(
        "cli:evaluate", "score a run, or any model's submission by QVHighlights' official figures", alone=True
    ),
    "predict": Command("tools.predict.predict:main", "answer a large file of queries by a run, in shards that resume"),
    "predict merge": Command("tools.predict.merge:main", "join the parts of such a prediction"),
    "adapt": Command(
        "tools.adapt.adapt:run",
        "teach a HERO run new words with a few labelled queries, the plug-in alone learning",
        alone=True,
    ),
    "launch": Command(
        "tools.launch.cli:command", "run a cloned repository's own training or evaluation with HERO inside"
    ),
    "sweep": Command(
        "tools.sweep.sweep:main",
        "train variants over several seeds, score them on further sets, tabulate and draw",
        alone=True,
    ),
    "demo": Command("tools.demo:run", "EMB beside HERO on synthetic data, in minutes on a CPU", alone=True),
    "data convert": Command("data.cli:convert", "convert an annotation file into another format"),
    "data check": Command("data.cli:check", "check annotations, features and words, all problems at once"),
    "data info": Command("data.cli:info", "what annotation files hold, and what is wrong with them"),
    "data timelines": Command("tools.timelines.cli:timelines", "render clip features from human action timelines"),
    "data descriptions": Command(
        "tools.timelines.cli:descriptions", "the same from what one person wrote about a video"
    ),
    "data timelines-figure": Command("tools.timelines.cli:timelines_figure", "draw one such video"),
    "data timelines-oracle": Command("tools.timelines.cli:timelines_oracle", "how clear such features are, by noise"),
    "weights show": Command("training.weights:show", "what a checkpoint holds: base, levels, config, version, sizes"),
    "weights extract": Command("training.weights:extract", "take the plug-in out of a checkpoint"),
    "weights merge": Command("training.weights:merge", "put a plug-in on another copy of the base"),
    "vocab stats": Command("tools.vocab.stats:stats", "words of test queries that training never had"),
    "vocab build": Command("tools.vocab.build:build", "reword queries with words that training never had"),
    "vocab review": Command("tools.vocab.review:review", "a page to review rewordings in a browser"),
    "vocab apply": Command("tools.vocab.build:apply", "apply a reviewer's decisions"),
    "vocab sample": Command("tools.vocab.review:sample", "draw rewordings to label"),
    "vocab rate": Command("tools.vocab.review:rate", "how often rewordings are wrong, by such labels"),
    "bench": Command(
        "tools.bench.cli:main", "what HERO costs: time, memory, FLOPs, beside the plain base and the literal paper"
    ),
    "bench eval": Command(
        "tools.bench.evaluation:main", "speed of QVHighlights' evaluation beside the official script's"
    ),
    "version": Command("cli:version", "versions of hero-plugin and of what it runs on"),
}
EVALUATIONS = {"--submission": "evaluation.official:main", "--run": "evaluation.evaluate:main"}
"""The two commands named eval, by the flag that each needs."""
EVAL_USAGE = """hero-plugin eval scores one of two things:

  hero-plugin eval --run FOLDER
      runs of this package, on any annotations, side by side where there are several
  hero-plugin eval --submission FILE --annotations FILE
      what any model predicted, by QVHighlights' official evaluation; with --train by unseen words, too
"""
EXTRA = ("tyro", "pydantic", "rich", "matplotlib", "tensorboard", "h5py")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 for a mistake in the input, 130 when stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        words[0] = "version"
    name = _command(words)
    if name is None:
        if _group(words[0]) and not {"-h", "--help"}.isdisjoint(words[1:]):
            print(usage(_group(words[0])))
            return 0
        return _complain(_unknown(words))
    missing = [module for module in EXTRA if importlib.util.find_spec(module) is None]
    if missing and name != "version":
        return _complain(
            f'hero-plugin {name} needs {", ".join(missing)}: pip install "hero-plugin[train]"\n'
            "(the library itself, `from hero_plugin import wrap_model`, works without)"
        )
    return _run(name, words[len(name.split()) :])


def usage(names: Sequence[str] = tuple(COMMANDS)) -> str:
    """Return what commands there are, one line each."""
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name].help}" for name in names]
    return "\n".join(
        [
            "usage: hero-plugin COMMAND [flags]",
            "",
            *lines,
            "",
            "hero-plugin COMMAND --help shows the flags of a command.",
        ]
    )


def version(argv: Sequence[str]) -> None:
    """Print what a bug report needs."""
    from hero_plugin.integrations.support.process import versions

    for name, number in versions().items():
        print(f"{name:<12} {number}")


def evaluate(argv: Sequence[str]) -> None:
    """Run the evaluation that the flags are for. Without either, ``--help`` shows both."""
    from hero_plugin.integrations.support.errors import UserError

    given = {word.partition("=")[0] for word in argv}
    for flag, function in EVALUATIONS.items():
        if flag in given:
            return _call(_load(function), "eval", argv)
    if given.isdisjoint({"-h", "--help"}):
        raise UserError(f"{EVAL_USAGE}\nhero-plugin eval --help shows the flags of both.")
    print(EVAL_USAGE)
    for function in reversed(EVALUATIONS.values()):
        with suppress(SystemExit):  # how the parser ends its help
            _call(_load(function), "eval", argv)


def _command(words: list[str]) -> str | None:
    known = {name.replace("-", "_"): name for name in COMMANDS}
    for length in (2, 1):
        name = " ".join(words[:length]).replace("-", "_")
        if name in known:
            return known[name]
    return None


def _group(word: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(word + " ")]


def _unknown(words: list[str]) -> str:
    if below := _group(words[0]):
        near = difflib.get_close_matches(" ".join(words[:2]), below, n=1) if len(words) > 1 else []
        hint = f"did you mean `hero-plugin {near[0]}`? " if near else ""
        return f"hero-plugin {words[0]}: {hint}say which: " + ", ".join(f"hero-plugin {name}" for name in below)
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    near = difflib.get_close_matches(typed, COMMANDS, n=1) or difflib.get_close_matches(
        words[0], [name.split()[0] for name in COMMANDS], n=1
    )
    hint = f"; did you mean `hero-plugin {near[0]}`?" if near else ""
    return f"hero-plugin: no command {words[0]!r}{hint}\n\n{usage()}"


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(f"hero_plugin.integrations.{module}"), name)


def _call(function: Callable[..., Any], name: str, argv: Sequence[str], kind: type | None = None) -> Any:
    """Call a command's function with its flags as a config, with the words themselves, or with both."""
    hints = get_type_hints(function)
    given: dict[str, Any] = {"argv": argv} if "argv" in hints else {}
    if kind := kind or hints.get("config"):
        from hero_plugin.integrations.support.settings import parse

        given["config"] = parse(kind, name, argv)
    return function(**given)


def _run(name: str, argv: list[str]) -> int:
    from hero_plugin.integrations.support.errors import DataError, UserError
    from hero_plugin.integrations.support.process import Interrupted, Rank, end_at_once

    rank = Rank()
    try:
        rank = Rank.of_this_process()
        command = COMMANDS[name]
        if command.alone and rank.size > 1:
            raise UserError(f"hero-plugin {name} runs as one process: start it without torchrun")
        status = _call(_load(command.run), name, argv, _load(command.config) if command.config else None)
        return status if isinstance(status, int) else 0
    except (UserError, DataError, FileNotFoundError) as error:
        status = _complain(rank.message(str(error)))
        if isinstance(error, UserError) and error.hard:
            end_at_once(status)
        return status
    except Interrupted as stopped:
        if rank.leads:
            print(f"\n{stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        if rank.leads:
            print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough; Python would complain again when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a folder where a file should be, a full disk, no permission
        where = error.filename2 or error.filename
        return _complain(rank.message(f"{where}: {error.strerror}" if where and error.strerror else str(error)))


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
