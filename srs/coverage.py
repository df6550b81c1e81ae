"""What of the paper is regenerated: each of its 28 tables and 12 figures, what makes it, and whether it is there.

The list is plain data. Its order is that of the paper's pages as public (machine-written) summaries of it tell; the
paper's own numbers may differ. Where a caption was not found or allows more than one reading, `known` says so.
"""

import argparse
import re
from dataclasses import dataclass

import pandas as pd

from srs import profiles, settings, shown, tables
from srs.profiles import PROFILES
from srs.settings import Profile
from srs.store.sealed import paths

NOTEBOOK = "80_coverage"
MAIN = ("digits", "cifar10", "paper")
# The profile of the ImageNet tables; the others have the published figures in their place, and a check of the pipeline
# where a sample of ImageNet is at hand.
IMAGENET, CHECK = "imagenet", "imagenet_check"
STANDS_FOR = {"smoke": "digits"}  # the tests' profile goes through the same notebooks

NOT_FOUND = "no: which of K, batch size, alpha, warm-up and convergence is not known; all five are made"
TOGETHER = "yes, but not whether gap and p_m share a figure"
AMBIGUOUS = "ambiguous: the caption found reads like T1's; taken for an ablation with the same rows"


@dataclass(frozen=True)
class Item:
    """One table (T) or figure (F) of the paper and what shows the same here."""

    number: str
    shows: str
    notebook: str
    artefacts: tuple[str, ...]  # names in figures/<profile>/, without ending
    known: str = "yes"
    imagenet: str = ""  # the artefact of 30_certified_accuracy in profile imagenet

    @property
    def kind(self) -> str:
        """What its artefacts' sidecars must say."""
        return {"T": "table", "F": "figure"}[self.number[0]]


def _accuracy(number: str, model: str, sigma: str) -> Item:
    name = f"certified_accuracy_{model}_s{sigma}"
    return Item(number, f"certified accuracy and time, {model}, sigma {sigma}", "30_certified_accuracy", (name,))


def _imagenet(number: str, sigma: str, known: str) -> Item:
    shows = f"ImageNet, SMALL, sigma {sigma}"
    return Item(number, shows, "35_imagenet", ("imagenet_published",), known, f"certified_accuracy_SMALL_s{sigma}")


ITEMS = (
    _accuracy("T1", "LARGE", "0.50"),
    _accuracy("T2", "SMALL", "0.50"),
    _imagenet("T3", "1.00", "yes, but for its sigma: N = 10,000 votes reach its r = 3 at sigma 1 only"),
    Item(
        "T4", "with and without correlation elimination", "32_ablations", ("ablation_elimination",),
        "ambiguous: the caption found reads like T1's; its place is that of the ablation of the certification",
    ),
    Item("T5", "SMALL trained with SmoothAdv", "32_ablations", ("ablation_smoothadv",)),
    Item("T6", "hyper-parameters of the architectures", "05_method", ("settings_architecture",)),
    Item("T7", "with and without Jacobian regularisation", "32_ablations", ("ablation_jacobian",)),
    Item("T8", "hyper-parameters of training", "05_method", ("settings_training",)),
    Item("T9", "against Lipschitz bounds and other smoothing", "80_coverage", ("comparison_smoothing",)),
    _accuracy("T10", "LARGE", "0.12"),
    _accuracy("T11", "LARGE", "0.25"),
    _accuracy("T12", "LARGE", "1.00"),
    _accuracy("T13", "SMALL", "0.12"),
    _accuracy("T14", "SMALL", "0.25"),
    _accuracy("T15", "SMALL", "1.00"),
    _imagenet("T16", "0.25", "yes, but for its sigma"),
    _imagenet("T17", "0.50", "yes, but for its sigma"),
    Item("T18", "ablation of the warm-up", "32_ablations", ("ablation_warmup",), AMBIGUOUS),
    Item("T19", "ablation of the batch size", "32_ablations", ("ablation_batch",), AMBIGUOUS),
    _imagenet("T20", "1.00", "yes, but for its sigma: four tables for three sigmas, so one may be shown twice"),
    Item("T21", "Naive against Anderson, 30 steps", "32_ablations", ("ablation_solver",)),
    Item("T22", "mean RRD per model and solver", "31_consistency", ("mean_rrd",)),
    Item("T23", "against Lipschitz-bounded networks (SLL, LBEN)", "80_coverage", ("comparison_lipschitz",)),
    Item("T24", "start: clean image against previous sample", "32_ablations", ("ablation_start",)),
    Item("T25", "empirical robustness, PGD and Smooth-PGD, LARGE", "33_attacks", ("robust_accuracy_LARGE_s0.50",)),
    Item("T26", "empirical robustness, PGD and Smooth-PGD, SMALL", "33_attacks", ("robust_accuracy_SMALL_s0.50",)),
    Item("T27", "attack success point by point, LARGE", "33_attacks", ("pointwise_LARGE_s0.50",)),
    Item("T28", "attack success point by point, SMALL", "33_attacks", ("pointwise_SMALL_s0.50",)),
    Item("F1", "diagram: standard DEQ against SRS-DEQ", "05_method", ("diagram_srs",)),
    Item("F2", "diagram: conversion of votes", "05_method", ("diagram_votes",)),
    Item("F3", "RRD histograms, LARGE", "31_consistency", ("rrd_hist_LARGE",)),
    Item("F4", "RRD histograms, SMALL", "31_consistency", ("rrd_hist_SMALL",)),
    Item("F5", "gap histograms, LARGE", "31_consistency", ("gap_hist_LARGE",), TOGETHER),
    Item("F6", "p_m histograms, LARGE", "31_consistency", ("p_m_hist_LARGE",), TOGETHER),
    Item("F7", "gap histograms, SMALL", "31_consistency", ("gap_hist_SMALL",), TOGETHER),
    Item("F8", "p_m histograms, SMALL", "31_consistency", ("p_m_hist_SMALL",), TOGETHER),
    Item("F9", "number of samples N, SMALL, 3 steps", "32_ablations", ("ablation_n_figure",)),
    Item("F10", "number of audited samples K", "32_ablations", ("ablation_k_figure",), NOT_FOUND),
    Item("F11", "failure probability alpha", "32_ablations", ("ablation_alpha_figure",), NOT_FOUND),
    Item("F12", "convergence from each start", "00_quickstart", ("quickstart_residuals",), NOT_FOUND),
)  # fmt: skip


def possible(profile: Profile, artefact: str) -> bool:
    """Whether the profile has a run of the model and the sigma that an artefact's name holds."""
    parts = set(artefact.split("_"))
    model, sigma = parts & {"SMALL", "LARGE"}, {part for part in parts if re.fullmatch(r"s\d\.\d\d", part)}
    runs = (run for run in profile.runs if run.train.recipe == "paper")
    return any(model <= {run.model.name} and sigma <= {f"s{run.sigma:.2f}"} for run in runs)


def made_in(item: Item) -> list[str]:
    """The profiles whose notebooks make the item."""
    able = [name for name in MAIN if all(possible(PROFILES[name], artefact) for artefact in item.artefacts)]
    return able + [IMAGENET] * bool(item.imagenet)


def wanted(profile: Profile, item: Item) -> tuple[str, ...]:
    """The artefacts that the profile should have of an item; none if it has not the model or the sigma."""
    if profile.name == IMAGENET:
        return (item.imagenet,) if item.imagenet else ()
    able = STANDS_FOR.get(profile.name, profile.name) in MAIN and all(possible(profile, a) for a in item.artefacts)
    return item.artefacts if able else ()


def missing(profile: Profile) -> dict[str, list[str]]:
    """What the profile should show of each item, and what of that has no sidecar of the right kind in its folder."""
    there = shown.listed(paths.shown(profile, "coverage").parent)
    return {
        item.number: [name for name in names if name not in there or there[name].kind != item.kind]
        for item in ITEMS
        if (names := wanted(profile, item))
    }


def coverage(profile: Profile) -> pd.DataFrame:
    """A line per item: what it shows, what makes it in which profiles, and whether it lies in this profile's folder."""
    lacking, rows = missing(profile), []
    checked = CHECK in shown.listed(paths.shown(profile, "coverage").parent)
    instead = "published figures" + (", pipeline check" if checked else " only")
    for item in ITEMS:
        absent = lacking.get(item.number)
        there = instead if item.imagenet and profile.name != IMAGENET else "yes"
        state = "not in this profile" if absent is None else f"not made: {', '.join(absent)}" if absent else there
        rows.append({
            "item": item.number, "shows": item.shows, "content known": item.known, "made by": item.notebook,
            "as": ", ".join(filter(None, (*item.artefacts, item.imagenet))), "in profiles": ", ".join(made_in(item)),
            f"in {profile.name} now": state,
        })  # fmt: skip
    return pd.DataFrame(rows)


def make_coverage(profile: Profile) -> pd.DataFrame:
    """Make and save the table of coverage, after everything that it looks for."""
    lacking = missing(profile)
    done = sum(not absent for absent in lacking.values())
    caption = (
        "The paper's 28 tables (T) and 12 figures (F) and what shows the same here. Of the "
        f"{len(lacking)} that profile '{profile.name}' should have, {done} are there. They stand in the order of the "
        "paper's pages as public summaries tell it, which need not be the paper's numbering; 'content known' says "
        "where a caption was not found or can be read in more than one way."
    )
    frame = coverage(profile)
    tables.save(frame, paths.shown(profile, "coverage"), caption=caption, made_by=NOTEBOOK)
    return frame


def main(argv: list[str] | None = None) -> None:
    """Make the table of coverage; fail if something is missing and `--complete` is given."""
    parser = argparse.ArgumentParser(prog="python -m srs.coverage", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=settings.one_of(PROFILES))
    parser.add_argument("--complete", action="store_true", help="exit with an error unless everything is there")
    args = parser.parse_args(argv)
    try:
        profile = profiles.get_profile(args.profile)
    except settings.ConfigError as error:
        parser.error(str(error))
    make_coverage(profile)
    lacking = [f"{number} ({', '.join(names)})" for number, names in missing(profile).items() if names]
    if lacking:
        print(f"{profile.name}: not made: {'; '.join(lacking)}")
        if args.complete:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
