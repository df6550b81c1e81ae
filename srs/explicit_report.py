"""The explicit baseline beside the DEQs: what standard RS certifies with a residual network on the same images and noise.

`python -m srs.explicit_report --profile digits`
"""

from dataclasses import replace
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from srs import figures, metrics, published_others, settings, shown, tables
from srs.figures import Curve
from srs.published_others import Result, SMOOTHING_RADII, SMOOTHING_SIGMA
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds, certify
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, shipped
from srs.store.shipped import Tallies
from srs.training import train

NOTEBOOK = "36_explicit"
LOG = "cohen_resnet110_cifar10_sigma0.50.tsv"
PAPER_LABEL, LOG_LABEL = "as published (paper, CIFAR-10)", "as published (log of Cohen et al. 2019, CIFAR-10)"


def prepare(profile: Profile, *, device: str = "cpu", workers: int = 1) -> None:
    """Train and certify the baselines that have no tallies here or among what is shipped; the others stay as they are."""
    for run in profile.explicit.runs:
        if not any(place(run, settings.EXPLICIT).is_file() for place in (paths.tallies, paths.shipped_tallies)):
            train.train(run, device=device)
            certify.certify(run, device=device, workers=workers)


def load(profile: Profile) -> Tallies:
    """The stored tallies of the DEQs and of the explicit baselines.

    Raises:
        config.ConfigError: there are none of the DEQs or none of the baselines.
        ValueError: they were not evaluated on the same images.
    """
    tallies = tables.load(profile) | tables.load(profile.explicit)
    first = next(iter(tallies.values()))
    for one in tallies.values():
        metrics.require_same_images(first, one)
    return tallies


def compared(profile: Profile, sigma: float, tallies: Tallies) -> list[tuple[Run, Method, Rule]]:
    """What is set side by side: the baselines, then each DEQ by the full solve and by the SRS method of most steps."""
    explicit, deqs = (shipped.certified(p, tallies) for p in (profile.explicit, profile))
    found = [(run, run.profile.methods[0], Rule.COHEN) for run in explicit if run.sigma == sigma]
    for run in (run for run in deqs if run.sigma == sigma):
        found.append((run, profile.method(profile.reference), Rule.COHEN))
        most = sorted(tables.serialized(profile), key=lambda method: method.steps)[-1:]
        found += [(run, method, Rule.AUDIT) for method in most]
    return found


def label(run: Run, method: Method) -> str:
    """What a line is called: the explicit network, or how the DEQ voted and which DEQ it is."""
    if isinstance(run.model, settings.ResNet):
        return f"ResNet-{run.model.depth}"
    recipe = "" if run.train.recipe == "paper" else f" {run.train.recipe}"
    return f"{method.name} {run.model.name}{recipe}"


def cohen_log() -> Curve | None:
    """(correct, radius) of the 500 images of Cohen et al.'s public log of ResNet-110; None where SRS_DATA has no copy."""
    path = paths.golden(LOG)
    if not path.is_file():
        return None
    log = np.genfromtxt(path, names=True, usecols=("predict", "radius", "correct"))
    return (log["correct"] == 1) & (log["predict"] != bounds.ABSTAIN), log["radius"]


def known() -> dict[str, Result]:
    """What was published of ResNet-110, by label; the log's computed anew where there is a copy of it."""
    rows, log = {PAPER_LABEL: published_others.RESNET110, LOG_LABEL: published_others.COHEN_LOG}, cohen_log()
    if log is not None:
        percent = (100 * metrics.certified_accuracy(*log, SMOOTHING_RADII)).round(1).tolist()
        acr = metrics.average_certified_radius(*log)
        rows[LOG_LABEL] = replace(rows[LOG_LABEL], percent=tuple(percent), acr=acr)
    return rows


def baseline(profile: Profile, tallies: Tallies) -> pd.DataFrame:
    """Certified accuracy, size and cost of the baselines and of the DEQs at each sigma, and what was published."""
    quality = pd.concat(map(tables.model_quality, (profile, profile.explicit))).set_index(["model", "recipe", "sigma"])
    rows = []
    for sigma in profile.sigmas:
        rows += [_measured(*line, tallies, quality) for line in compared(profile, sigma, tallies)]
        if sigma == SMOOTHING_SIGMA:
            rows += [_known(profile, name, row) for name, row in known().items()]
    return pd.DataFrame(rows).fillna("")


def _measured(run: Run, method: Method, rule: Rule, tallies: Tallies, quality: pd.DataFrame) -> dict[str, str]:
    own, held = tallies[run.id, method.name], _certificates(run, method, rule, tallies)
    counts, cost = metrics.certified_counts(*held, run.profile.radii), metrics.cost(own)
    card = quality.loc[tuple(tables.identity(run).values())]
    return {
        "sigma": f"{run.sigma:.2f}",
        "network": label(run, method),
        "rule": tables.RULE_LABELS[rule],
        "parameters": card["parameters"],
        "noisy accuracy %": card["noisy accuracy %"],
        **{f"r={r:.2f}": tables.percent(count, len(own)) for r, count in zip(run.profile.radii, counts)},
        "ACR": tables.radius(metrics.average_certified_radius(*held)),
        "NFE/image": tables.number(cost.nfe, 0),
        "seconds/image": tables.number(cost.seconds, 3),
    }


def _known(profile: Profile, name: str, row: Result) -> dict[str, str]:
    at = dict(zip(SMOOTHING_RADII, row.percent))
    percent = {f"r={r:.2f}": str(at.get(r, "")) for r in profile.radii}
    identity = {"sigma": f"{SMOOTHING_SIGMA:.2f}", "network": row.name, "rule": name}
    return identity | percent | {"ACR": tables.number(row.acr, 3)}


def _certificates(run: Run, method: Method, rule: Rule, tallies: Tallies) -> Curve:
    certificates = tables.certify(run, method, tallies, rule)
    return metrics.correct(certificates, tallies[run.id, method.name]["label"]), certificates.radius


def curves(profile: Profile, tallies: Tallies) -> Figure:
    """Certified accuracy against radius of the baselines and the DEQs, a panel per sigma."""
    panels = {}
    for sigma in profile.sigmas:
        lines = compared(profile, sigma, tallies)
        panels[figures.panel_title(lines[0][0])] = {
            label(run, method).replace("MDEQ-", ""): _certificates(run, method, rule, tallies) for run, method, rule in lines
        }
    return figures.accuracy_curves(panels)


def make(profile: Profile) -> tuple[dict[str, pd.DataFrame], dict[str, Figure]]:
    """Make and save the table and the figure of the baselines; both empty for a profile without any."""
    if not profile.baselines:
        return {}, {}
    tallies = load(profile)
    where = f"{profile.data.name}, the same {profile.images} test images and the same noise for all, N = {profile.n}"
    caption = (
        f"Explicit residual networks under standard RS beside the DEQs ({where}, alpha = {profile.alpha:g}): certified "
        "accuracy in percent at l2 radius r. An evaluation of f (NFE) is a pass of the whole network for a ResNet and of "
        f"its one layer for a DEQ, so seconds compare what NFE do not. Rows 'as published' are ResNet-110 on CIFAR-10 at "
        f"sigma = {SMOOTHING_SIGMA:g}: the paper's own row, and the public log of Cohen et al. (2019), "
        + ("recomputed here from its 500 images" if cohen_log() else "as known from its 500 images; no copy of it is at hand")
        + ("." if profile.data.name == "cifar10" else f". Those are of other data than {profile.data.name}.")
    )
    curves_caption = (
        f"Certified accuracy against l2 radius of explicit residual networks (standard RS, rule 'cohen'), of the DEQs' full "
        f"solve (the same) and of SRS (broken lines, rule 'audit'), a panel per noise level ({where})."
    )
    table, figure = baseline(profile, tallies), curves(profile, tallies)
    tables.save(table, paths.shown(profile, "explicit_baseline"), caption=caption, made_by=NOTEBOOK)
    figures.save(figure, paths.shown(profile, "explicit_curves"), caption=curves_caption, made_by=NOTEBOOK)
    return {"explicit_baseline": table}, {"explicit_curves": figure}


if __name__ == "__main__":
    chosen = shown.profile_argument("python -m srs.explicit_report", "Train, certify and show the explicit baselines.")
    prepare(chosen)
    for made in make(chosen):
        print(*made)
