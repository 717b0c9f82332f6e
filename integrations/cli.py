"""The ``hero-plugin`` command. Each subcommand loads what it needs, so that help comes at once."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

COMMANDS = {
    "train emb": ("commands:train", "train EMB, plain or with HERO, into a run folder"),
    "train moment_detr": ("commands:train", "the same with Moment-DETR"),
    "train qd_detr": ("commands:train", "the same with QD-DETR"),
    "train tr_detr": ("commands:train", "the same with TR-DETR"),
    "eval": ("eval_cli:evaluate", "score a run, or any model's submission by QVHighlights' official figures"),
    "predict": ("predict.cli:predict", "answer a large file of queries by a run, in shards that resume"),
    "predict merge": ("predict.cli:merge", "join the parts of such a prediction"),
    "adapt": ("commands:adapt", "teach a HERO run new words with a few labelled queries, the plug-in alone learning"),
    "launch": ("launch.cli:command", "run a cloned repository's own training or evaluation with HERO inside"),
    "sweep": ("commands:sweep", "train variants over several seeds, score them on further sets, tabulate and draw"),
    "demo": ("commands:demo", "EMB beside HERO on synthetic data, in minutes on a CPU"),
    "data": ("data_cli:command", "convert annotations, check and render features"),
    "weights show": ("weights_cli:show", "what a checkpoint holds: base, levels, config, version, sizes"),
    "weights extract": ("weights_cli:extract", "take the plug-in out of a checkpoint"),
    "weights merge": ("weights_cli:merge", "put a plug-in on another copy of the base"),
    "vocab": ("vocab.cli:command", "words that training never had: measure them, build and review queries with them"),
    "bench": ("bench.cli:main", "what HERO costs: time, memory, FLOPs, beside the plain base and the literal paper"),
    "bench eval": ("bench_eval:main", "speed of QVHighlights' evaluation beside the official script's"),
    "version": ("cli:version", "versions of hero-plugin and of what it runs on"),
}
ALONE = ("eval", "adapt", "sweep", "demo")
"""Commands that write, and know nothing of other processes."""
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
        return _complain(_unknown(words))
    missing = [module for module in EXTRA if importlib.util.find_spec(module) is None]
    if missing and name != "version":
        return _complain(
            f'hero-plugin {name} needs {", ".join(missing)}: pip install "hero-plugin[train]"\n'
            "(the library itself, `from hero_plugin import wrap_model`, works without)"
        )
    return _run(name, words[len(name.split()) :])


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
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
    from hero_plugin.integrations.run_folder import versions

    for name, number in versions().items():
        print(f"{name:<12} {number}")


def _command(words: list[str]) -> str | None:
    for length in (2, 1):
        name = " ".join(words[:length]).replace("-", "_")
        if name in COMMANDS:
            return name
    return None


def _unknown(words: list[str]) -> str:
    below = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if below:
        return f"hero-plugin {words[0]}: say which: " + ", ".join(f"hero-plugin {name}" for name in below)
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    near = difflib.get_close_matches(typed, COMMANDS, n=1) or difflib.get_close_matches(
        words[0], [name.split()[0] for name in COMMANDS], n=1
    )
    hint = f"; did you mean `hero-plugin {near[0]}`?" if near else ""
    return f"hero-plugin: no command {words[0]!r}{hint}\n\n{usage()}"


def _load(name: str) -> Callable[[Sequence[str]], int | None]:
    module, function = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(f"hero_plugin.integrations.{module}"), function)
    return partial(command, base=name.split()[1]) if name.startswith("train ") else command


def _run(name: str, argv: list[str]) -> int:
    from hero_plugin.integrations.errors import UserError, end_at_once
    from hero_plugin.integrations.interrupts import Interrupted
    from hero_plugin.integrations.problems import DataError
    from hero_plugin.integrations.ranks import Rank

    rank = Rank()
    try:
        rank = Rank.of_this_process()
        if name in ALONE and rank.size > 1:
            raise UserError(f"hero-plugin {name} runs as one process: start it without torchrun")
        return _load(name)(argv) or 0
    except (UserError, DataError, FileNotFoundError) as error:
        status = _complain(rank.told(str(error)))
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
        return _complain(rank.told(f"{where}: {error.strerror}" if where and error.strerror else str(error)))


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
