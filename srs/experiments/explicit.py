"""Notebook 36: what standard RS certifies with an explicit residual network, beside the DEQs on the same images and noise."""

import pandas as pd

from srs import settings, store
from srs.analysis import measures, show
from srs.experiments.certified_accuracy import main_certificates
from srs.smoothing import certify
from srs.training import train

LINE = ["sigma", "network"]


def measure(profile: settings.Profile, *, device: str = "cpu", workers: int = 1, scheduler: str = "") -> None:
    """Train and certify the explicit networks that have no counts here or among what is shipped; others stay as they are."""
    for run in profile.explicit:
        if store.read_run(run) is None:
            train.train(run, device=device)
            certify.certify(run, device=device, workers=workers, scheduler=scheduler)


def read(profile: settings.Profile) -> pd.DataFrame:
    """The main certificates of the explicit networks, then of the DEQs; empty for a profile without explicit networks."""
    return main_certificates(profile.explicit + profile.runs if profile.explicit else ())


def shown(certified: pd.DataFrame, profile: settings.Profile) -> list[show.Shown]:
    """The table of certified accuracy; none for a profile without explicit networks."""
    if certified.empty:
        return []
    return [show.table(profile, "explicit_baseline", measures.certified_accuracy(certified, profile.radii, [*LINE, "rule"]), (
        "Explicit residual networks under standard RS beside the DEQs: certified accuracy in percent at radius r, on the same "
        f"{profile.images} test images of {profile.data.name} and the same noise, N = {profile.n}, alpha = {profile.alpha:g}."
    ))]  # fmt: skip


def finding(certified: pd.DataFrame) -> str:
    """Where the explicit network certifies most, and what its certificates cost."""
    if certified.empty:
        return "This profile has no explicit network."
    acr = measures.certified_accuracy(certified, [0.0], LINE)["ACR"].unstack("network")
    explicit, seconds = acr.columns[0], measures.cost(certified, ["network"])["seconds/image"]
    times = ", ".join(f"{seconds[explicit] / seconds[name]:.2f} times the seconds of {name}" for name in acr.columns[1:])
    most = int((acr.idxmax(axis=1) == explicit).sum())
    return f"{explicit} has the largest ACR at {most} of {len(acr)} noise levels. Its certificate takes {times}."
