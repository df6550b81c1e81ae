"""Notebook 33: does an attack get past a certificate? Certificates put to the test, and the accuracy that attacks leave."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from srs import settings, store
from srs.analysis import measures, show
from srs.analysis.measures import ROW, RUN
from srs.attacks.settings import Suite
from srs.experiments.certified_accuracy import identity, model_of, name_of, of_run
from srs.smoothing.bounds import ABSTAIN, Rule

FLIP_ALPHA = 1e-6  # of one test: thousands of points are tested, and none of them may be blamed by chance
ALL = "strongest of all"
IMAGE = [*RUN, "idx"]


class FalseCertificate(AssertionError):
    """An attack changed the smoothed classifier's mind within a radius that a sound rule certified."""


def suite_of(profile: settings.Profile) -> Suite:
    """What is attacked in a profile; ConfigError if nothing is."""
    settings.check(profile.attacks is not None, "attacked profile", profile.name, "one with attacks, such as digits")
    return profile.attacks


def runs_of(profile: settings.Profile) -> tuple[settings.Run, ...]:
    """The runs of a profile that are attacked."""
    named, paper = suite_of(profile).runs, (run for run in profile.runs if run.train.recipe == "paper")
    return tuple(run for run in paper if not named or (run.model.name, run.sigma) in named)


def measure(profile: settings.Profile, *, device: str = "cpu", workers: int = 1, scheduler: str = "") -> None:
    """Attack the images of every attacked run; what is stored is not done again."""
    from srs.attacks import attack
    for run in runs_of(profile):
        attack.run_suite(run, suite_of(profile), device=device, workers=workers, scheduler=scheduler)


def read(profile: settings.Profile) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per attacked image and radius, and the images' certificates; ConfigError if a run was not attacked or certified."""
    counted, suite = store.read_counts(profile), suite_of(profile)
    points = pd.concat([store.read_attacks(run).assign(**identity(run)) for run in runs_of(profile)], ignore_index=True)
    points = points.astype({name: counted[name].dtype for name in RUN}).assign(attack=measures.in_order(points["attack"]))
    some = counted[counted["method"].isin(suite.methods)].merge(points[IMAGE].drop_duplicates(), on=IMAGE)
    return points, measures.certificates(some, alpha=profile.alpha)


def shown(profile: settings.Profile) -> list[show.Shown]:
    """The tables of stored attacks; none where a run was not attacked: the table of coverage says that they are not made."""
    stored = [store.find(run, "attacks.csv") for run in runs_of(profile)] if profile.attacks else []
    return tables(*read(profile), profile) if stored and all(stored) else []


def put_to_the_test(points: pd.DataFrame, certified: pd.DataFrame) -> pd.DataFrame:
    """Every point beside every certificate of its image: whether it lies `within` that radius, there proven `flipped`."""
    certificates = certified[[*IMAGE, "method", "rule", "c_a", "predict", "radius"]].rename(columns={"radius": "certified"})
    both = points.merge(certificates, on=IMAGE)
    within = (both["predict"] != ABSTAIN) & (both["distance"] < both["certified"])
    fell = [inside and flipped(votes, c) for inside, votes, c in zip(within, both["further"], both["predict"])]
    return both.assign(within=within, flipped=np.array(fell, bool))


def flipped(further: str, c_a: int, alpha: float = FLIP_ALPHA) -> bool:
    """Whether further votes (for each class, as "0 380 20") prove that c_A is not what the smoothed classifier answers.

    If it were, each other class's votes among its own and c_A's would be at most Binomial(n, 1/2). The two-sided binomial test
    (as in Cohen et al.'s Predict) is taken of the most frequent other class, Bonferroni-corrected for having chosen it.
    """
    if not further:
        return False
    votes = np.array(further.split(), int)
    others = np.delete(votes, c_a)
    top, own = int(others.max()), int(votes[c_a])
    return top > own and binomtest(top, top + own).pvalue * len(others) <= alpha


def soundness(tested: pd.DataFrame) -> pd.DataFrame:
    """How many points lie within a certificate, and how many of those are proven flipped, by run, method and rule."""
    counts = tested.groupby(ROW, observed=True)[["within", "flipped"]].sum()
    return counts.rename(columns={"within": "points within a certified radius"}).reset_index()


def require_sound(tested: pd.DataFrame) -> None:
    """Raise FalseCertificate if a point is flipped under a rule that should hold."""
    if len(false := soundness(tested[tested["rule"] != Rule.RELEASED]).query("flipped > 0")):
        raise FalseCertificate(f"certificates that an attack proved false:\n{false.to_string(index=False)}")


def soundness_finding(tested: pd.DataFrame) -> str:
    """How many points tested the certificates that hold, and how many of them fell."""
    sound, released = (tested[tested["within"] & ((tested["rule"] == Rule.RELEASED) == so)] for so in (False, True))
    told = f"{len(sound)} times, by a point within the radius of one: {sound['flipped'].sum()} points are flipped"
    unsound = f"Of '{show.RULE_LABELS[Rule.RELEASED]}', {released['flipped'].sum()} of {len(released)} tests are flipped."
    return f"Certificates of the sound rules were tested {told}. {unsound}"


def of_radii(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's attacks: without the one that is none, and the one at each image's own radius."""
    return table[(table["attack"] != "none") & ~table["attack"].str.startswith("at the edge")]


def robust_accuracy(points: pd.DataFrame, certified: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Certified accuracy beside the accuracy that each attack leaves of the reference, in percent of the attacked images."""
    right = points.assign(right=points["own"] == points["label"])
    before = right[right["attack"] == "none"].pivot(index=IMAGE, columns="radius", values="right")
    after = of_radii(right).pivot(index=["attack", *IMAGE], columns="radius", values="right")
    left = before.join(after).mul(before[0.0], axis=0).reorder_levels(["attack", *IMAGE])
    left = pd.concat([left, pd.concat({ALL: left.groupby(level=IMAGE, observed=True).min().cummin(axis=1)}, names=["attack"])])
    wide = 100 * left.groupby(level=["attack", *RUN], observed=True, sort=False).mean()
    held = measures.certified_accuracy(measures.under_its_rule(certified), list(wide)).reset_index()
    held["classifier"] = held["method"].astype(str) + ", " + held["rule"].astype(str).map(show.RULE_LABELS)
    wide = wide.rename(columns="r={:.2f}".format)
    table = pd.concat([held.assign(attack="certified"), wide.reset_index().assign(classifier=reference)])
    return table[[*RUN, "attack", "classifier", *wide]].sort_values(RUN, kind="stable").reset_index(drop=True)


def pointwise(tested: pd.DataFrame, method: str) -> pd.DataFrame:
    """How many attacked images are flipped, those certified at the radius apart from those that are not, by run and attack."""
    own, line = of_radii(measures.under_its_rule(tested[tested["method"] == method])), [*RUN, "attack"]
    held, parts = (own["predict"] != ABSTAIN) & (own["certified"] >= own["radius"]), []
    for name, some in (("certified", held), ("not certified", ~held)):
        rows = own.assign(of=some, flips=(own["own"] != own["c_a"]) & some).groupby([*line, "radius"], observed=True)
        counts = rows[["flips", "of"]].sum().astype(str)
        cells = (counts["flips"] + " of " + counts["of"]).unstack("radius").rename(columns="r={:.2f}".format)
        parts.append(cells.assign(images=name).set_index("images", append=True))
    return pd.concat(parts).sort_index(level=line, kind="stable", sort_remaining=False).reset_index()


def tables(points: pd.DataFrame, certified: pd.DataFrame, profile: settings.Profile) -> list[show.Shown]:
    """The test of all certificates, and what attacks leave of each run; then FalseCertificate if one of a sound rule fell."""
    suite, reference, tested = suite_of(profile), profile.reference, put_to_the_test(points, certified)
    shown = [show.table(profile, "attack_soundness", soundness(tested), (
        "Attacked images nearer to the original than the certified radius, and how many of them are proven to be flipped: the "
        f"first {suite.n} votes of {reference} choose another class, and of {suite.confirm} more another class "
        f"has significantly more of them (two-sided binomial test at {FLIP_ALPHA:g}, corrected for the choice of the class)."
    ))]  # fmt: skip
    left = f"Accuracy in percent under attacks of l2 radius r ({suite.attacks[-1].steps} steps of {suite.attacks[-1].step:g}, "
    left += f"not clipped). 'certified': from the stored votes. Otherwise the most frequent of {suite.n} fresh votes "
    left += f"classifies the attacked image. '{ALL}': right before and after all attacks of radius up to r."
    flips = f"How many images an attack of radius r flips, of those that {reference} certifies there and of those that it does "
    flips += f"not. Flipped: {suite.n} fresh votes are for another class than the stored ones, perhaps by chance."
    made = {"robust_accuracy": (robust_accuracy(points, certified, reference), left)}
    made |= {"pointwise": (pointwise(tested, reference), flips)}
    for run in runs_of(profile):
        for kind, (frame, told) in made.items():
            own, told = of_run(frame, run).drop(columns=RUN), f"{told} {model_of(run)}, {suite.images} test images."
            shown.append(show.table(profile, name_of(kind, run), own, told))
    require_sound(tested)
    return shown
