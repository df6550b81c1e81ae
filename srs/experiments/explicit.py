"""Notebook 36: what standard RS certifies with an explicit residual network, beside the DEQs on the same images and noise."""

import pandas as pd

from srs import settings, store
from srs.analysis import measures, plots, published, show
from srs.analysis.show import Shown
from srs.experiments.certified_accuracy import family_name, model_quality, of_run
from srs.settings import Profile, ResNet
from srs.smoothing import certify
from srs.training import train

PAPER_LABEL, LOG_LABEL = "as published (paper, CIFAR-10)", "as published (log of Cohen et al. 2019, CIFAR-10)"
LINE = ["sigma", "network"]
QUALITY = ["parameters", "noisy accuracy %"]


def measure(profile: Profile, *, device: str = "cpu", workers: int = 1, scheduler: str = "") -> None:
    """Train and certify the explicit networks that have no counts here or among what is shipped; the others stay as they are."""
    for run in profile.explicit:
        if store.read_run(run) is None:
            train.train(run, device=device)
            certify.certify(run, device=device, workers=workers, scheduler=scheduler)


def read(profile: Profile) -> pd.DataFrame:
    """Certificates under the rules that hold: explicit networks', then each DEQ's by the full solve and the longest SRS method.

    `network` names a line of the tables. Empty for a profile without explicit networks.
    """
    srs = sorted((m for m in profile.methods if m.serialized), key=lambda m: m.steps)
    chosen, found = [settings.EXPLICIT.name, profile.reference, *(m.name for m in srs[-1:])], []
    for runs in (profile.explicit, profile.runs) if profile.explicit else ():
        counted = store.read_counts(profile, runs).astype({"model": str, "recipe": str, "sigma": float, "method": str})
        for run in runs:
            rows, family = of_run(counted, run), family_name(run.model.name, run.train.recipe)
            deq = rows["method"] + f" {family.replace('_', ' ')}"
            network = f"ResNet-{run.model.depth}" if isinstance(run.model, ResNet) else deq
            quality = {name: cell for name, cell in model_quality(run).items() if name in QUALITY}
            found.append(rows[rows["method"].isin(chosen)].assign(network=network, family=family, **quality))
    if not found:
        return pd.DataFrame()
    own = pd.concat(found, ignore_index=True)
    return measures.holding(own.assign(network=measures.in_order(own["network"])), alpha=profile.alpha)


def known() -> pd.DataFrame:
    """What was published of ResNet-110, a row per label: the paper's row, and Cohen et al.'s log at 500 images."""
    paper = published.read("smoothing").set_index(["method", "source"]).loc[("ResNet-110", published.PAPER)]
    return pd.DataFrame([paper, published.read("cohen_log").iloc[0]], index=pd.Index([PAPER_LABEL, LOG_LABEL], name="rule"))


def accuracy(certified: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy and ACR of every line at each sigma, and what was published."""
    table = measures.certified_accuracy(certified, profile.radii, [*LINE, "rule"]).reset_index()
    table = table.astype({"network": str, "rule": str})
    if published.SIGMA in profile.sigmas:
        theirs = known().reset_index().assign(sigma=published.SIGMA, network="ResNet-110")
        table = pd.concat([table, theirs.reindex(columns=table.columns).fillna("")])
    return table.sort_values("sigma", kind="stable").reset_index(drop=True)


def cost(certified: pd.DataFrame) -> pd.DataFrame:
    """Size of every line, accuracy without a certificate, and what a certificate costs."""
    spent = measures.cost(certified, LINE)[["NFE/image", "seconds/image"]]
    return certified.groupby(LINE, observed=True)[QUALITY].first().join(spent).reset_index()


def shown(certified: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Two tables, certified accuracy and cost, and the curves; none for a profile without explicit networks."""
    if certified.empty:
        return []
    where = f"{profile.data.name}, the same {profile.images} test images and noise, N = {profile.n}, alpha = {profile.alpha:g}"
    other = f" They are of other data than {profile.data.name}." * (profile.data.name != "cifar10")
    plain = certified["method"] == settings.EXPLICIT.name
    deqs = [(family, plain | (certified["family"] == family)) for family in dict.fromkeys(certified.loc[~plain, "family"])]
    rows = pd.concat([certified[own].assign(family=family) for family, own in deqs]).sort_values("sigma", kind="stable")
    panel = measures.in_order(rows["family"] + rows["sigma"].map(r", $\sigma$ = {:.2f}".format))
    rows = rows.assign(panel=panel, method=measures.in_order(rows["method"]))
    drawn = plots.accuracy_curves(rows, hue="method", panel="panel", title=str)
    return [
        show.table(profile, "explicit_baseline", accuracy(certified, profile), (
            f"Explicit residual networks under standard RS beside the DEQs ({where}): certified accuracy in percent at radius r. "
            f"Rows 'as published' are ResNet-110 on CIFAR-10 at sigma = {published.SIGMA:g}: the paper's row, and 500 images of "
            f"the public log of Cohen et al. (2019).{other}"
        )),
        show.table(profile, "explicit_cost", cost(certified), (
            f"Size and cost of the same networks ({where}). An evaluation of f (NFE) is a pass of the whole network for a ResNet "
            "and of one layer for a DEQ, so compare seconds. 'noisy accuracy' is that of the base classifier."
        )),
        show.figure(profile, "explicit_curves", drawn, (
            "Certified accuracy of the explicit network (RS, 'cohen'), of the DEQ's full solve (the same) and of SRS (broken "
            f"lines, 'audit'), a panel per size of the DEQ and noise level ({where}). Grey: 95 % interval of the black line."
        )),
    ]  # fmt: skip


def finding(certified: pd.DataFrame) -> str:
    """Where the explicit network certifies most, what its certificates cost, and how far the published rows differ."""
    if certified.empty:
        return "This profile has no explicit network."
    acr = measures.certified_accuracy(certified, [0.0], LINE)["ACR"].unstack("network")
    explicit, seconds = acr.columns[0], measures.cost(certified, ["network"])["seconds/image"]
    times = ", ".join(f"{seconds[explicit] / seconds[name]:.2f} times the seconds of {name}" for name in acr.columns[1:])
    differ = known().filter(like="r=").astype(float).diff().abs().max(axis=None)
    return (
        f"{explicit} has the largest ACR at {int((acr.idxmax(axis=1) == explicit).sum())} of {len(acr)} noise levels. Its "
        f"certificate takes {times}. The two published rows of ResNet-110 differ by at most {differ:.1f} points."
    )
