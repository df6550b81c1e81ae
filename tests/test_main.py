"""The entry point srs: flags are a function's parameters, a refusal is one sentence, what a function yields is printed."""

import argparse
import importlib
import inspect

import pytest
import torch

from srs import __main__ as entry
from srs import profiles
from srs.sealed import DamagedFile
from srs.settings import ConfigError, Profile, Run


def act(
    run: Run, *, methods: tuple[str, ...] = (), shard: tuple[int, int] = (0, 1), stop_after: int | None = None,
    level: float = 0.5, fast: bool = False, slow: bool = True,
) -> dict[str, object]:
    """Do something.

    Args:
        run: a trained run.
        methods: names; 5 % of them,
            or all.
        shard: which part.
        fast, slow: how it is done.

    Returns:
        all that was given: as it is.
    """
    return {"run": run.id, "given": (methods, shard, stop_after, level, fast, slow)}


def parser_of(function) -> argparse.ArgumentParser:
    entry.add_flags(parser := argparse.ArgumentParser(), function)
    return parser


def call(function, *words: str) -> dict[str, object]:
    return entry.arguments(function, vars(parser_of(function).parse_args(words)))


def test_flags_are_the_parameters_with_their_types_and_defaults():
    run = profiles.get_run("digits", "SMALL", 0.5)
    standard = {"run": run, "methods": (), "shard": (0, 1), "stop_after": None, "level": 0.5, "fast": False, "slow": True}
    assert call(act) == standard
    words = "--methods A B --shard 1 4 --stop-after 3 --level 1 --fast --no-slow"
    given = {"methods": ("A", "B"), "shard": (1, 4), "stop_after": 3, "level": 1.0, "fast": True, "slow": False}
    assert call(act, *words.split()) == standard | given
    other = "--profile cifar10 --model SMALL --sigma 0.25 --recipe path_independent"
    assert call(act, *other.split())["run"] == profiles.get_run("cifar10", "SMALL", 0.25, "path_independent")


def test_help_texts_are_those_of_the_docstring():
    texts = {action.dest: action.help for action in parser_of(act)._actions}
    assert texts["methods"] == "names; 5 %% of them, or all." and texts["fast"] == texts["slow"] == "how it is done."
    assert "5 % of them" in parser_of(act).format_help() and "Returns" not in parser_of(act).format_help()


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_every_command_is_a_function_whose_parameters_are_flags(name):
    module, _, function = entry.COMMANDS[name][0].partition(":")
    function = getattr(importlib.import_module(module), function)
    chosen = call(function)  # a command runs with the defaults of its flags
    for p in inspect.signature(function).parameters.values():
        assert p.annotation in (Run, Profile) or chosen[p.name] == p.default
    assert [a.dest for a in parser_of(function)._actions if not a.help] == [], "say in Args what it is"


def test_nothing_but_the_chosen_command_is_imported(monkeypatch, capsys):
    monkeypatch.setattr(importlib, "import_module", lambda name: {"srs.profiles": profiles}[name])
    entry.main(["runs", "--profile", "smoke"])
    assert capsys.readouterr().out.split() == [run.id for run in profiles.get_profile("smoke").every_run]


def test_a_refusal_is_one_sentence_and_exit_code_2_and_faults_of_the_program_are_none(monkeypatch, capsys):
    def steps(error):
        def steps():
            """Go on."""
            yield "first"
            raise error

        return steps

    refused = ConfigError("x = 1 is refused"), DamagedFile("a file is damaged"), OSError("the disk is full")
    for error in (*refused, torch.OutOfMemoryError("CUDA out of memory")):
        monkeypatch.setattr(profiles, "list_runs", steps(error))
        with pytest.raises(SystemExit, match="2"):
            entry.main(["runs"])
        printed, told = capsys.readouterr()
        assert printed == "first\n" and told.startswith("srs runs: ")
        assert told.endswith(f": {error}\n") if error in refused else "fewer workers" in told
    monkeypatch.setattr(profiles, "list_runs", steps(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        entry.main(["runs"])
