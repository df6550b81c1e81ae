"""Notebook 80: certified accuracy beside other ways to certify an l2 radius, and what of the paper is regenerated."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from srs import settings, store
from srs.analysis import measures, published, show
from srs.analysis.published import SIGMA
from srs.analysis.show import Shown
from srs.experiments import certified_accuracy
from srs.profiles import PROFILES
from srs.settings import Profile
from srs.smoothing.bounds import Rule

COMPARED = ("MDEQ-30A", "SRS-MDEQ-3A")  # of the paper's rows: its reference and its most accurate SRS
OURS = "this repository"
UNSTATED = "smoothing, as published"  # the paper does not say by which formula
LIPSCHITZ = {"r=0.00": 0.0, **{f"r={k}/255": k / 255 for k in (36, 72, 108)}, "r=1.00": 1.0}  # the radii of that literature
SMOOTHING = {f"r={k / 4:.2f}": k / 4 for k in range(7)}  # the radii that the paper prints
OTHERWISE = {"imagenet": "imagenet", "imagenet-sample": None}  # columns of the list for data sets that show other items
ENDINGS = {"T": ".csv", "F": ".pdf"}  # of the files of tables and figures


def lipschitz(profile: Profile) -> pd.DataFrame:
    """Certified accuracy at the radii of the Lipschitz literature: theirs, the paper's, and ours at every sigma."""
    theirs = published.read("lipschitz").assign(certificate="Lipschitz bound")
    both = pd.concat([theirs, paper_rows(LIPSCHITZ), own_rows(profile, LIPSCHITZ)])
    return both[["method", "certificate", "sigma", "data", *LIPSCHITZ, "source"]]


def smoothing(profile: Profile) -> pd.DataFrame:
    """Certified accuracy and ACR of smoothed classifiers at sigma 0.5: other training methods, the paper's, ours."""
    theirs = published.read("smoothing").assign(certificate=str(Rule.COHEN), sigma=SIGMA)
    both = pd.concat([theirs, paper_rows(SMOOTHING), own_rows(profile, SMOOTHING)])
    return both[both["sigma"] == SIGMA][["method", "certificate", "sigma", "data", *SMOOTHING, "ACR", "source"]]


def paper_rows(radii: Mapping[str, float]) -> pd.DataFrame:
    """The paper's rows on CIFAR-10 at other radii than it prints, see `enclosed`; its SRS rows claim no rule."""
    known = certified_accuracy.published("cifar10").reset_index()
    known = known[known["method"].isin(COMPARED) & known["r=0.00"].notna()]
    rule = np.where(known["method"].str.startswith("SRS"), UNSTATED, Rule.COHEN)
    told = {"method": known["method"] + " " + known["model"], "certificate": rule, "ACR": known["ACR"].map("{:g}".format)}
    cells = {name: known[list(SMOOTHING)].apply(lambda row: enclosed(row, r), axis=1) for name, r in radii.items()}
    return known[["sigma"]].assign(**told, **cells, data=published.PAPER_DATA, source=published.PAPER)


def enclosed(percent: Sequence[float], r: float) -> str:
    """Certified accuracy at r from entries at SMOOTHING: it never rises, so its neighbours bound it ("low to high")."""
    low = next(share for share, at in zip(percent, SMOOTHING.values()) if at >= r)
    high = min(share for share, at in zip(percent, SMOOTHING.values()) if at <= r)
    return f"{low:g}" if r in SMOOTHING.values() else f"{low:g} to {high:g}"


def own_rows(profile: Profile, radii: Mapping[str, float]) -> pd.DataFrame:
    """Each certified run by its reference and by its longest SRS method, under the rules that hold; empty without counts."""
    found = []
    for i, run in enumerate(profile.every_run):
        rows = store.read_run(run)
        if rows is not None:
            longest = sorted((m for m in run.profile.methods if m.needs_audit), key=lambda m: m.steps)[-1:]
            some = rows[rows["method"].isin([run.profile.reference, *(m.name for m in longest)])]
            name = some["method"] + f" {run.model.name}" + f", {run.train.recipe}" * (run.train.recipe != "paper")
            images = f"{store.card(run).get('data', profile.data.name)}, {some['idx'].nunique()} images"
            found.append(some.assign(run=i, method=measures.in_order(name), data=images))
    if not found:
        return pd.DataFrame()
    certified = pd.concat([measures.holding(rows, alpha=profile.alpha) for rows in found])
    by = ["run", "method", "rule", "sigma", "data"]
    table = measures.certified_accuracy(certified, list(radii.values()), by).set_axis([*radii, "ACR"], axis=1)
    return table.reset_index().rename(columns={"rule": "certificate"}).assign(source=OURS)


def comparison(profile: Profile) -> list[Shown]:
    """Both tables of comparison; without counts they hold the published rows alone."""
    ours = (
        f"Rows of '{OURS}' are the models of profile '{profile.name}' (N = {profile.n}, alpha = {profile.alpha:g}), measured "
        "on 'data'. Published SRS rows do not say by which formula."
    )
    captions = {
        lipschitz: "Certified accuracy in percent at l2 radius r beside networks with a bounded Lipschitz constant, whose "
        "certificates are deterministic. 'a to b': the source gives other radii, and certified accuracy never rises with r.",
        smoothing: f"Certified accuracy in percent and ACR at sigma {SIGMA}, beside ResNet-110 trained otherwise, N = 100,000.",
    }
    made = ((make, make(profile), f"{told} {ours}") for make, told in captions.items())
    return [show.table(profile, f"comparison_{make.__name__}", frame, caption) for make, frame, caption in made]


def lipschitz_finding(table: pd.DataFrame) -> str:
    """Where the best network with a bounded Lipschitz constant is ahead of the paper's best row, and where it is behind."""
    best = table[table["certificate"] == "Lipschitz bound"][list(LIPSCHITZ)].apply(pd.to_numeric).max()
    cells = table[table["source"] == published.PAPER][list(LIPSCHITZ)]
    low, high = (cells.map(lambda cell: float(cell.split(" to ")[end])).max() for end in (0, -1))
    ahead, behind = best > high, best < low
    where = {"is ahead at": ahead, "is behind at": behind, "cannot be told from it by printed entries at": ~(ahead | behind)}
    told = ", ".join(f"{verb} {', '.join(at[at].index)}" for verb, at in where.items() if at.any())
    return f"The best network with a bounded Lipschitz constant, set against the paper's best row at sigma = {SIGMA}, {told}."


def smoothing_finding(table: pd.DataFrame) -> str:
    """Our largest ACR with and without serialized votes, beside the published row of the same training."""
    ours = table[table["source"] == OURS]
    if ours.empty:
        return f"This profile has no counts at sigma = {SIGMA}."
    best = ours.assign(ACR=ours["ACR"].astype(float)).sort_values("ACR", ascending=False).drop_duplicates("certificate")
    labels = best["certificate"].map(show.RULE_LABELS)
    told = [f"{show.round_down(acr)} ({method}, {label})" for acr, method, label in zip(best["ACR"], best["method"], labels)]
    gaussian = table.set_index("method").loc["Gaussian", "ACR"]
    return (
        f"Our largest ACR at sigma = {SIGMA} is {' and '.join(told)} on {best['data'].iloc[0]}; the published row 'Gaussian' "
        f"has {gaussian} on CIFAR-10."
    )


def wanted(profile: Profile, item: pd.Series) -> str:
    """The table or figure that a profile should have of an item; empty if it has not the model, the sigma or the data."""
    column = OTHERWISE.get(profile.data.name, "artefact")
    name = item[column] if column else ""
    parts = set(name.split("_"))
    model, sigma = parts & {"SMALL", "LARGE"}, {part for part in parts if re.fullmatch(r"s\d\.\d\d", part)}
    runs = (run for run in profile.runs if run.train.recipe == "paper")
    return name if any(model <= {run.model.name} and sigma <= {f"s{run.sigma:.2f}"} for run in runs) else ""


def items(profile: Profile) -> pd.DataFrame:
    """A line per item of the paper: what it shows, what makes it in which profiles, whether it is made in this one."""

    def state(item: pd.Series) -> str:
        name = wanted(profile, item)
        if not name or not store.shown(profile, name + ENDINGS[item["item"][0]]).is_file():
            return f"not made: {name}" if name else "not in this profile"
        return "published figures only" if item["imagenet"] not in ("", name) else "yes"

    paper = published.read("items").rename(columns={"known": "content known", "notebook": "made by"})
    artefact = paper["artefact"] + paper["imagenet"].map(lambda name: f", {name}" if name else "")
    where = paper.apply(lambda item: ", ".join(name for name, p in PROFILES.items() if wanted(p, item)), axis=1)
    told = {"as": artefact, "in profiles": where, f"in {profile.name} now": paper.apply(state, axis=1)}
    return paper[["item", "shows", "content known", "made by"]].assign(**told)


def finding(table: pd.DataFrame) -> str:
    """How many of the items that a profile should have are there, and which are not; a table of `items`."""
    now = table.iloc[:, -1]
    own, lacking = (now != "not in this profile").sum(), table["item"][now.str.startswith("not made")]
    told = "; ".join(f"{item} ({now[i].removeprefix('not made: ')})" for i, item in lacking.items())
    there = f"this profile should have {own}, and {own - len(lacking)} are there"
    return f"Of the paper's {len(table)} tables and figures {there}{f'; not made: {told}' if told else ''}."


def coverage(profile: Profile) -> Shown:
    """The table of coverage, to be made after everything that it looks for."""
    frame = items(profile)
    caption = f"The paper's tables (T) and figures (F), in the order of its pages, and what shows the same. {finding(frame)}"
    return show.table(profile, "coverage", frame, caption)


def require_complete(profile: Profile) -> None:
    """Refuse a profile that lacks any table or figure that it should have (ConfigError)."""
    told = finding(items(profile))
    settings.check("not made" not in told, f"coverage of {profile.name}", told, "everything that the profile should have")
