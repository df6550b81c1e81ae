"""One entry point, `python -m srs COMMAND` or `srs COMMAND`: each command is a function, its flags are its parameters."""

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable

from srs import profiles, settings

COMMANDS = {  # what is run, by module and function; only the chosen one is imported
    "train": ("srs.training.train:train", "train one model"),
    "certify": ("srs.smoothing.certify:certify", "draw and count the votes of one run's images"),
    "tune": ("srs.experiments.own_model:tune_folder", "say which method should certify your model"),
    "attack": ("srs.experiments.attacks:measure", "attack the images of a profile's runs"),
    "bench": ("srs.experiments.speed:bench", "time one run's methods against the released code's cost"),
    "ablate": ("srs.experiments.ablations:measure", "draw and count what the ablations show"),
    "show": ("srs.experiments.remake:remake", "make every table and figure from stored results"),
    "report": ("srs.experiments.report:build", "join the executed notebooks into one page"),
    "coverage": ("srs.experiments.coverage:require_complete", "fail unless everything that a profile should show is there"),
    "readme": ("srs.experiments.summary:refresh", "fill the README's tables from shipped results"),
    "scaling": ("srs.experiments.scaling:measure", "measure what a certification on many cores costs"),
    "verify": ("srs.experiments.verify:verify", "compute rows of stored counts anew and compare"),
    "doctor": ("srs.experiments.verify:doctor", "what this machine has and what of a profile is computed"),
    "ship": ("srs.store:ship", "track the finished runs of a profile"),
    "runs": ("srs.profiles:list_runs", "names of a profile's runs"),
}
OWN = {"certify": "srs.experiments.own_model:certify_folder"}  # with --images: for a model of the user's own
MORE = " With --images FOLDER and --model FILE.py:FUNCTION: a model of your own; `srs certify --images . --help` tells how."
RUN_FLAGS = {"profile": "digits", "model": "SMALL", "sigma": 0.5, "recipe": "paper"}
COMMON = {  # help texts, where a docstring has no other
    "device": "a torch device", "progress": "whether to show how far it is", "workers": "processes that share the work",
    "scheduler": "tcp://host:port of a running Dask scheduler, or a YAML file of dask-jobqueue",
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Run the command that a command line names; a refusal is one sentence and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="srs", description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=COMMANDS, help="; ".join(f"{name}: {told}" for name, (_, told) in COMMANDS.items()))
    name = parser.parse_args(argv[:1]).command
    own = name in OWN and any(word.partition("=")[0] == "--images" or ".py:" in word for word in argv)
    module, _, function = (OWN[name] if own else COMMANDS[name][0]).partition(":")
    function = getattr(importlib.import_module(module), function)
    what = inspect.getdoc(function).partition("\n")[0] + MORE * (name in OWN and not own)
    flags = argparse.ArgumentParser(prog=f"srs {name}", description=what, allow_abbrev=False)
    add_flags(flags, function)
    try:
        result = function(**arguments(function, vars(flags.parse_args(argv[1:]))))
        if isinstance(result, str) or not isinstance(result, Iterable):
            result = [] if result is None else [result]
        for line in result:  # a function that yields works, and may refuse, while its lines are printed
            print(line, flush=True)
    except KeyboardInterrupt:
        flags.exit(130, f"srs {name}: stopped\n")
    except (settings.ConfigError, OSError, RuntimeError) as error:
        full = type(error).__name__ == "OutOfMemoryError"  # torch's, which not every command imports
        if type(error).__module__.partition(".")[0] != "srs" and not isinstance(error, OSError) and not full:
            raise
        told = "the device's memory is full: want fewer workers, or smaller batches"
        flags.exit(2, f"srs {name}: {told if full else error}\n")


def add_flags(parser: argparse.ArgumentParser, function: Callable) -> None:
    """Give a parser a flag for each parameter of a function, with its type, its default and the help text of its docstring."""
    # What a Google docstring says of each argument, in one line each.
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", f"{inspect.getdoc(function)}\n", re.M)
    found = re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", section[1] if section else "", re.M)
    texts = {name: " ".join(text.split()).replace("%", "%%") for names, text in found for name in names.split(", ")}
    for p in inspect.signature(function).parameters.values():
        if p.annotation in (settings.Run, settings.Profile):
            for flag, default in list(RUN_FLAGS.items())[: None if p.annotation is settings.Run else 1]:
                parser.add_argument(f"--{flag}", default=default, type=type(default), help=f"default: {default}")
            continue
        kinds = [k for k in getattr(p.annotation, "__args__", (p.annotation,)) if k is not type(None)]
        required = p.default is p.empty
        given = {"help": (COMMON | texts).get(p.name, ""), "required": required, "default": None if required else p.default}
        if str(p.annotation).startswith("tuple"):
            given["nargs"] = "*" if kinds[-1] is Ellipsis else len(kinds)
        given |= {"action": argparse.BooleanOptionalAction} if p.annotation is bool else {"type": kinds[0]}
        parser.add_argument(f"--{p.name.replace('_', '-')}", **given)


def arguments(function: Callable, given: dict[str, object]) -> dict[str, object]:
    """The function's arguments from parsed flags: a run or a profile is looked up by its names."""
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for p in inspect.signature(function).parameters.values():
        if p.annotation is settings.Run:
            chosen[p.name] = profiles.get_run(*(chosen.pop(flag) for flag in RUN_FLAGS))
        elif p.annotation is settings.Profile:
            chosen[p.name] = profiles.get_profile(chosen.pop("profile"))
    return chosen


if __name__ == "__main__":
    main()
