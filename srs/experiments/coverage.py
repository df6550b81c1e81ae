"""Notebook 80: certified accuracy beside other ways to certify an l2 radius, and what of the paper is regenerated.

What others published is tracked as data/published/*.csv: cells as their source prints them, empty where it prints none. SLL's
row in `lipschitz` is the survey's; a later correction is said to have 64.8 at 36/255.
"""

import re
from fractions import Fraction

import numpy as np
import pandas as pd

from srs import profiles, settings, store
from srs.analysis import measures, show
from srs.experiments import certified_accuracy
from srs.smoothing.bounds import Rule

COMPARED = ("MDEQ-30A", "SRS-MDEQ-3A")  # of the paper's rows: its reference and its most accurate SRS
OURS, PAPER = "this repository", "Gao et al. 2024 (2411.00899), OpenReview thread"
UNSTATED = "smoothing, as published"  # the paper does not say by which formula
SIGMA = 0.5  # of the published rows of smoothed classifiers
CERTIFICATES = {"lipschitz": "Lipschitz bound", "smoothing": str(Rule.COHEN)}  # of the published rows of each comparison
OTHERWISE = {"imagenet": "imagenet", "imagenet-sample": None}  # columns of the list for data sets that show other items


def read(name: str) -> pd.DataFrame:
    """What others published, as text; the columns `r=...` hold certified accuracy in percent, `source` says whose."""
    return pd.read_csv(store.published(name), dtype=str, keep_default_na=False)


def compare(profile: settings.Profile, name: str) -> pd.DataFrame:
    """Certified accuracy as others published it under a name, the paper's at those radii that it prints, and ours."""
    theirs = read(name)
    columns = [column for column in theirs if column.startswith("r=") or column == "ACR"]
    paper = certified_accuracy.published("cifar10").reset_index()
    paper = paper[paper["method"].isin(COMPARED) & paper["r=0.00"].notna()]
    rule = np.where(paper["method"].str.startswith("SRS"), UNSTATED, Rule.COHEN)
    cells = paper.filter(columns).map("{:g}".format)
    paper = paper[["sigma"]].assign(method=paper["method"] + " " + paper["model"], certificate=rule, **cells)
    theirs = theirs.assign(certificate=CERTIFICATES[name], sigma=SIGMA if name == "smoothing" else None)
    parts = [theirs, paper.assign(data="CIFAR-10, 500 images", source=PAPER)]
    if len(certified := certified_accuracy.main_certificates(profile.every_run)):
        radii = {name: float(Fraction(name[2:])) for name in columns if name != "ACR"}
        ours = measures.certified_accuracy(certified, list(radii.values()), ["run", "network", "rule", "sigma", "data"])
        ours = ours.set_axis([*radii, "ACR"], axis=1).reset_index().assign(source=OURS)
        parts.append(ours.rename(columns={"network": "method", "rule": "certificate"}))
    both = pd.concat(parts, ignore_index=True)[["method", "certificate", "sigma", "data", *columns, "source"]]
    return both if name == "lipschitz" else both[both["sigma"] == SIGMA]


def comparison(profile: settings.Profile) -> list[show.Shown]:
    """Both tables of comparison; without counts they hold the published rows alone."""
    ours = f"Rows of '{OURS}' are the models of profile '{profile.name}' (N = {profile.n}, alpha = {profile.alpha:g}), "
    ours += "measured on 'data'. Published SRS rows do not say by which formula."
    lipschitz = "Certified accuracy in percent at l2 radius r beside networks with a bounded Lipschitz constant, whose "
    lipschitz += "certificates are deterministic. Empty: the source does not print that radius."
    smoothing = f"Certified accuracy in percent and ACR at sigma {SIGMA}, beside ResNet-110 trained in other ways, N = 100,000."
    told = {"lipschitz": lipschitz, "smoothing": smoothing}
    return [show.table(profile, f"comparison_{name}", compare(profile, name), f"{text} {ours}") for name, text in told.items()]


def wanted(profile: settings.Profile, item: pd.Series) -> str:
    """The table or figure that a profile should have of an item; empty if it has not the model, the sigma or the data."""
    name = item[column] if (column := OTHERWISE.get(profile.data.name, "artefact")) else ""
    parts = set(name.split("_"))
    model, sigma = parts & {"SMALL", "LARGE"}, {part for part in parts if re.fullmatch(r"s\d\.\d\d", part)}
    runs = (run for run in profile.runs if run.train.recipe == "paper")
    return name if any(model <= {run.model.name} and sigma <= {f"s{run.sigma:.2f}"} for run in runs) else ""


def items(profile: settings.Profile) -> pd.DataFrame:
    """A line per item of the paper: what it shows, what makes it in which profiles, whether it is made in this one."""
    def state(item: pd.Series) -> str:
        name = wanted(profile, item)
        if not name or not store.shown(profile, name + (".csv" if item["item"].startswith("T") else ".pdf")).is_file():
            return f"not made: {name}" if name else "not in this profile"
        return "published figures only" if item["imagenet"] not in ("", name) else "yes"

    paper = read("items").rename(columns={"known": "content known", "notebook": "made by"})
    artefact = paper["artefact"] + paper["imagenet"].map(lambda name: f", {name}" if name else "")
    where = paper.apply(lambda item: ", ".join(name for name, p in profiles.PROFILES.items() if wanted(p, item)), axis=1)
    told = {"as": artefact, "in profiles": where, f"in {profile.name} now": paper.apply(state, axis=1)}
    return paper[["item", "shows", "content known", "made by"]].assign(**told)


def finding(table: pd.DataFrame) -> str:
    """How many of the items that a profile should have are there, and which are not; a table of `items`."""
    now = table.iloc[:, -1]
    own, lacking = (now != "not in this profile").sum(), table["item"][now.str.startswith("not made")]
    told = "; ".join(f"{item} ({now[i].removeprefix('not made: ')})" for i, item in lacking.items())
    there = f"this profile should have {own}, and {own - len(lacking)} are there"
    return f"Of the paper's {len(table)} tables and figures {there}{f'; not made: {told}' if told else ''}."


def coverage(profile: settings.Profile) -> show.Shown:
    """The table of coverage, to be made after everything that it looks for."""
    frame = items(profile)
    caption = f"The paper's tables (T) and figures (F), in the order of its pages, and what shows the same. {finding(frame)}"
    return show.table(profile, "coverage", frame, caption)


def require_complete(profile: settings.Profile) -> None:
    """Refuse a profile that lacks any table or figure that it should have (ConfigError)."""
    told = finding(items(profile))
    settings.check("not made" not in told, f"coverage of {profile.name}", told, "everything that the profile should have")
