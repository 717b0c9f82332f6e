"""The ``hero-plugin`` command. Each subcommand loads what it needs, so that help comes at once."""

import difflib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import hero_plugin
from hero_plugin.integrations.support import DataError, Interrupted, Rank, UserError, versions
from hero_plugin.integrations.support.flags import SHELLS, asks_for_help, completion_script, heading, help_text, listed
from hero_plugin.integrations.support.process import declared_bases, end_at_once


@dataclass(frozen=True)
class Command:
    """One line of the table of commands.

    Attributes:
        run: MODULE:FUNCTION. The dataclass of the function's argument ``config`` is the flags; a function without one
            reads ``argv`` itself, and one with both gets both. It returns an exit status, or anything else for 0.
        help: What the command does.
        example: What follows its name in an example of its use.
        config: MODULE:CLASS of the flags, where the function does not say it.
        alone: The command writes, and knows nothing of other processes.
        base: The base that it trains, whose settings are the flags.
    """

    run: str
    help: str
    example: str = ""
    config: str = ""
    alone: bool = False
    base: str = ""


QVHIGHLIGHTS = (
    "--annotations-train highlight_train.jsonl --annotations-val highlight_val.jsonl --features slowfast clip "
    "--query-features clip_text"
)
GROUPS = {
    "try": {
        "demo": Command("tools.demo:run", "EMB beside HERO on synthetic data, in minutes on a CPU", alone=True),
        "version": Command("cli:version", "versions of hero-plugin and of what it runs on"),
        "completion": Command("cli:completion", "completion for bash, zsh or fish: print what the shell reads", "bash"),
    },
    "train": {
        "train emb": Command(
            "training.train:run",
            "train EMB, plain or with HERO, into a run folder",
            "--output runs/hero --annotations-train train.json --annotations-val val.json "
            "--annotations-test ood=test_ood.json --features i3d --words glove.npz",
            base="emb",
        ),
        **{
            f"train {short}_detr": Command(
                "training.train:run",
                f"the same with {name}",
                f"--output runs/hero-{short} {QVHIGHLIGHTS}",
                base=f"{short}_detr",
            )
            for short, name in (("moment", "Moment-DETR"), ("qd", "QD-DETR"), ("tr", "TR-DETR"))
        },
        "launch": Command(
            "tools.launch.cli:command",
            "run a cloned repository's own training or evaluation with HERO inside",
            "--repo moment_detr -- bash moment_detr/scripts/train.sh",
            "tools.launch.cli:LaunchConfig",
        ),
        "sweep": Command(
            "tools.sweep:main",
            "train variants over several seeds, score them on further sets, tabulate and draw",
            "--config sweep.json --jobs 2",
            alone=True,
        ),
        "adapt": Command(
            "tools.adapt.adapt:run",
            "teach a HERO run new words with a few labelled queries, the plug-in alone learning",
            "--run runs/hero --annotations new=new_words.json --shots 32 --output runs/adapted",
            alone=True,
        ),
    },
    "use": {
        "ground": Command(
            "tools.video.ground:main",
            "find the moments of a video file that sentences are about",
            'holiday.mp4 "a dog jumps into the water" --run runs/hero',
            alone=True,
        ),
        "app": Command(
            "tools.video.page:serve",
            "a page to ask a run about videos in a browser, with a player",
            "videos --run runs/hero",
            alone=True,
        ),
        "show": Command(
            "tools.video.page:main",
            "a page to look at moments in a browser: annotated, the base's and HERO's",
            "--run runs/hero --base runs/base --output moments.html --videos videos",
            alone=True,
        ),
        "predict": Command(
            "tools.predict.predict:main",
            "answer a large file of queries by a run, in shards that resume",
            "--run runs/hero --queries queries.jsonl --output answers",
        ),
        "predict merge": Command("tools.predict.merge:main", "join the parts of such a prediction", "--output answers"),
        "weights show": Command(
            "tools.weights:show", "what a checkpoint holds: base, levels, config, version, sizes", "runs/hero/best.pt"
        ),
        "weights extract": Command(
            "tools.weights:extract", "take the plug-in out of a checkpoint", "runs/hero/best.pt plugin.safetensors"
        ),
        "weights merge": Command(
            "tools.weights:merge", "put a plug-in on another copy of the base", "plugin.safetensors base.ckpt merged.pt"
        ),
        "weights card": Command(
            "tools.weights:card", "a run as a folder for the Hugging Face hub, with a model card", "runs/hero hub/hero"
        ),
    },
    "data": {
        "data info": Command(
            "data.cli:info", "what annotation files hold, and what is wrong with them", "train.json test.json"
        ),
        "data check": Command(
            "data.cli:check",
            "check annotations, features and words, all problems at once",
            "--annotations train.json test.json --features i3d --words glove.npz",
        ),
        "data convert": Command(
            "data.cli:convert",
            "convert an annotation file into another format",
            "--input charades_sta_train.txt --output train.jsonl --to qvhighlights --durations durations.csv",
        ),
        "data extract": Command(
            "tools.video.extract:main",
            "make features of videos, or of queries, by CLIP and its kin",
            "videos --output features/clip --encoder openai/clip-vit-base-patch32 --download",
            alone=True,
        ),
        "data timelines": Command(
            "tools.timelines.cli:timelines",
            "render clip features from human action timelines",
            "--timelines action_timelines.json --annotations train.json --words glove.npz --output features/timelines",
        ),
        "data descriptions": Command(
            "tools.timelines.cli:descriptions",
            "the same from what one person wrote about a video",
            "--annotations val.json --train train.json --timelines action_timelines.json --words glove.npz "
            "--output features/described --queries described.json",
        ),
        "data timelines-figure": Command(
            "tools.timelines.cli:timelines_figure",
            "draw one such video",
            "--timelines action_timelines.json --annotations train.json --words glove.npz --video 3MSZA "
            "--output 3MSZA.png",
        ),
        "data timelines-oracle": Command(
            "tools.timelines.cli:timelines_oracle",
            "how clear such features are, by noise",
            "--timelines action_timelines.json --annotations train.json --test test.json --words glove.npz",
        ),
        "vocab build": Command(
            "tools.vocab.build:build",
            "reword queries with words that training never had",
            "--input test.json --output reworded.json --train train.json --words glove.npz --source phrasebook",
        ),
        "vocab hold-out": Command(
            "tools.vocab.hold_out:hold_out",
            "take words out of training, for test queries of unseen words that people wrote",
            "--input train.json --output without.json --test test_iid.json test_ood.json",
        ),
        "vocab review": Command(
            "tools.vocab.review:review",
            "a page to review rewordings in a browser",
            "--input reworded.json --output review.html",
        ),
        "vocab apply": Command(
            "tools.vocab.build:apply",
            "apply a reviewer's decisions",
            "--input reworded.json --decisions decisions.json --output final.json --train train.json --words glove.npz",
        ),
        "vocab sample": Command(
            "tools.vocab.review:sample",
            "draw rewordings to label",
            "--input reworded.json --output sample.tsv --number 100",
        ),
        "vocab rate": Command(
            "tools.vocab.review:rate", "how often rewordings are wrong, by such labels", "sample.tsv"
        ),
    },
    "measure": {
        "eval": Command(
            "cli:evaluate", "score a run, or any model's submission by QVHighlights' official figures", alone=True
        ),
        "table": Command(
            "tools.table:main",
            "a table for a paper, of any models' submissions or scores over seeds, with intervals",
            "HERO=h-0.jsonl HERO=h-1.jsonl base=b-0.jsonl base=b-1.jsonl --annotations test.json --format latex",
            alone=True,
        ),
        "vocab stats": Command(
            "tools.vocab.stats:stats",
            "words of test queries that training never had",
            "--train train.json --test test_iid.json test_ood.json",
        ),
        "bench": Command(
            "tools.bench.cli:main",
            "what HERO costs: time, memory, FLOPs, beside the plain base and the literal paper",
            "--bases emb --models plain hero literal --device cpu",
        ),
        "bench eval": Command(
            "tools.bench.upstream:main",
            "speed of QVHighlights' evaluation beside the official script's",
            "--upstream moment_detr",
        ),
    },
}
"""What people come for, and the commands for it, in the order of the help."""
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def groups() -> dict[str, dict[str, Command]]:
    """Return ``GROUPS``, with the training of the bases that other packages declare; these are not loaded yet."""
    installed = {
        f"train {entry.name}": Command(
            "training.train:run", f"the same with {entry.name}, of {entry.module.partition('.')[0]}", base=entry.name
        )
        for entry in declared_bases()
    }
    return {**GROUPS, "train": {**GROUPS["train"], **{n: c for n, c in installed.items() if n not in COMMANDS}}}


def commands() -> dict[str, Command]:
    """Return the commands by name, those of ``groups``."""
    return {name: command for group in groups().values() for name, command in group.items()}


EVALUATIONS = {
    "--submission": Command(
        "evaluation.official:main",
        "what any model predicted, by QVHighlights' official evaluation; with --train by unseen words, too",
        "--submission predictions.jsonl --annotations highlight_val_release.jsonl",
    ),
    "--run": Command(
        "evaluation.evaluate:main",
        "runs of this package, on any annotations, side by side where there are several",
        "--run runs/base runs/hero --annotations ood=test_ood.json --figures figures",
    ),
}
"""The two commands named eval, by the flag that each needs."""
EXTRA = ("tyro", "pydantic", "rich", "matplotlib", "tensorboard", "h5py")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 2 for a mistake in the input, 130 when stopped, 141 unread."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # `| head` has read enough; Python would complain again when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(usage(), flush=True)
        return 0
    if words[0] in ("-V", "--version"):
        print(f"hero-plugin {hero_plugin.__version__}")
        return 0
    name = _named(words, COMMANDS) or _named(words, commands())  # to ask what is installed takes its time
    if name is None:
        if _group(words[0]) and not {"-h", "--help"}.isdisjoint(words[1:]):
            print(usage(words[0]), flush=True)
            return 0
        return _complain(_unknown(words))
    missing = [module for module in EXTRA if importlib.util.find_spec(module) is None]
    if missing and name not in ("version", "completion"):
        return _complain(
            f'hero-plugin {name} needs {", ".join(missing)}: pip install "hero-plugin[train]"\n'
            "(the library itself, `from hero_plugin import wrap_model`, works without)"
        )
    return _run(name, words[len(name.split()) :])


def usage(first: str = "") -> str:
    """Return what commands there are, by group; only those named ``first`` something, if given."""
    if first:
        parts = [f"usage: hero-plugin {first} COMMAND [flags]"]
        parts.append(listed({name: commands()[name].help for name in _group(first)}))
    else:
        parts = ["usage: hero-plugin COMMAND [flags]"]
        for title, group in groups().items():
            parts.append(f"{heading(title)}\n{listed({name: command.help for name, command in group.items()})}")
    return "\n\n".join([*parts, "hero-plugin COMMAND --help shows an example and the flags of a command."])


def version(argv: Sequence[str]) -> None:
    """Print what a bug report needs."""
    for name, number in versions().items():
        print(f"{name:<12} {number}")


def completion(argv: Sequence[str]) -> None:
    """Print what a shell reads to complete commands and flags."""
    shells = ", ".join(SHELLS)
    if asks_for_help(argv):
        print(COMPLETION)
    elif len(argv) != 1 or argv[0] not in SHELLS:
        raise UserError(f"hero-plugin completion takes a shell, one of {shells}; got {' '.join(argv) or 'none'}")
    else:
        print(completion_script(argv[0], commands()), end="")


COMPLETION = """usage: hero-plugin completion {bash,zsh,fish}

Print what the shell reads to complete commands and flags.

In bash, in ~/.bashrc:                  source <(hero-plugin completion bash)
In zsh, in ~/.zshrc, behind compinit:   source <(hero-plugin completion zsh)
In fish:  hero-plugin completion fish > ~/.config/fish/completions/hero-plugin.fish

The first TAB behind a command takes as long as its --help."""


def evaluate(argv: Sequence[str]) -> None:
    """Run the evaluation that the flags are for. Without either, ``--help`` shows both."""
    given = {word.partition("=")[0] for word in argv}
    for flag, command in EVALUATIONS.items():
        if flag in given:
            return _call(command, "eval", argv)
    meanings = listed({flag: command.help for flag, command in reversed(EVALUATIONS.items())})
    both = f"hero-plugin eval scores one of two things, by the flag that is given:\n\n{meanings}"
    if not asks_for_help(argv):
        raise UserError(f"{both}\n\nhero-plugin eval --help shows the flags of both.")
    print("\n\n\n".join([both, *(_help(command, "eval") for command in reversed(EVALUATIONS.values()))]))


def _named(words: list[str], known: Iterable[str]) -> str | None:
    names = {name.replace("-", "_"): name for name in known}
    spellings = (" ".join(words[:length]).replace("-", "_") for length in (2, 1))
    return next((names[spelling] for spelling in spellings if spelling in names), None)


def _group(word: str) -> list[str]:
    return [name for name in commands() if name.startswith(word + " ")]


def _unknown(words: list[str]) -> str:
    if below := _group(words[0]):
        near = difflib.get_close_matches(" ".join(words[:2]), below, n=1) if len(words) > 1 else []
        hint = f"did you mean `hero-plugin {near[0]}`? " if near else ""
        return f"hero-plugin {words[0]}: {hint}say which: " + ", ".join(f"hero-plugin {name}" for name in below)
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    near = difflib.get_close_matches(typed, commands(), n=1) or difflib.get_close_matches(
        words[0], [name.split()[0] for name in COMMANDS], n=1
    )
    hint = f"; did you mean `hero-plugin {near[0]}`?" if near else ""
    return f"hero-plugin: no command {words[0]!r}{hint}\n\n{usage()}"


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(f"hero_plugin.integrations.{module}"), name)


def _flags(command: Command) -> Any:
    """Return the dataclass of a command's flags; None for a command without any."""
    if command.base:
        return _load("training.bases:BASES")[command.base].config
    return _load(command.config) if command.config else get_type_hints(_load(command.run)).get("config")


def _help(command: Command, name: str) -> str:
    return help_text(_flags(command), name, command.example)


def _call(command: Command, name: str, argv: Sequence[str]) -> Any:
    """Call a command's function with its flags as a config, with the words themselves, or with both."""
    function, kind = _load(command.run), _flags(command)
    if kind and asks_for_help(argv):
        return print(_help(command, name)) if Rank.of_this_process().leads else None
    taken = inspect.signature(function).parameters
    given: dict[str, Any] = {"argv": argv} if "argv" in taken else {}
    if kind and "config" in taken:
        from hero_plugin.integrations.support.settings import parse  # loads pydantic

        given["config"] = parse(kind, name, argv)
    return function(**given)


def _run(name: str, argv: list[str]) -> int:
    rank = Rank()
    try:
        rank = Rank.of_this_process()
        command = COMMANDS.get(name) or commands()[name]
        if command.alone and rank.size > 1:
            raise UserError(f"hero-plugin {name} runs as one process: start it without torchrun")
        status = _call(command, name, argv)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return status if isinstance(status, int) else 0
    except (UserError, DataError, FileNotFoundError) as error:
        status = _complain(rank.message(str(error)))
        if isinstance(error, UserError) and error.hard:
            end_at_once(status)
        return status
    except (Interrupted, KeyboardInterrupt) as stopped:
        if rank.leads:
            print(f"\n{str(stopped) or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise  # for main
    except OSError as error:  # a folder where a file should be, a full disk, no permission
        where = error.filename2 or error.filename
        return _complain(rank.message(f"{where}: {error.strerror}" if where and error.strerror else str(error)))


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
