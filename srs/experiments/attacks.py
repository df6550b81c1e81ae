"""Notebook 33: does an attack get past a certificate? Certificates put to the test, and the accuracy that attacks leave."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

from srs import profiles, settings, store
from srs.analysis import measures, plots, show
from srs.analysis.measures import ROW, RUN
from srs.analysis.show import Shown
from srs.attacks.settings import Suite
from srs.experiments.certified_accuracy import identity, name_of, of_run
from srs.settings import Profile, Run
from srs.smoothing.bounds import ABSTAIN, Rule

FLIP_ALPHA = 1e-6  # of one test: thousands of points are tested, and none of them may be blamed by chance
ALL = "strongest of all"
BASE = "base classifier"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
POINT = [*RUN, "method", "idx"]


class FalseCertificate(AssertionError):
    """An attack changed the smoothed classifier's mind within a radius that a sound rule certified."""


class Attacked(NamedTuple):
    """What was stored of a profile's attacks."""

    points: pd.DataFrame  # a row per attacked image, radius and method
    certified: pd.DataFrame  # the certificates of the same images by the same methods, under every rule
    tested: pd.DataFrame  # a row per point and certificate, see `put_to_the_test`


def suite_of(profile: Profile) -> Suite:
    """What is attacked in a profile; ConfigError if nothing is."""
    attacked = [p.name for p in profiles.PROFILES.values() if p.attacks]
    settings.check(profile.attacks is not None, "attacked profile", profile.name, settings.one_of(attacked))
    return profile.attacks


def runs_of(profile: Profile) -> tuple[Run, ...]:
    """The runs of a profile that are attacked."""
    named = suite_of(profile).runs
    paper = (run for run in profile.runs if run.train.recipe == "paper")
    return tuple(run for run in paper if not named or (run.model.name, run.sigma) in named)


def measure(profile: Profile, *, device: str = "cpu") -> None:
    """Attack the images of every attacked run; what is stored is not done again.

    Args:
        profile: whose runs.
        device: a torch device.
    """
    from srs.attacks import attack

    for run in runs_of(profile):
        attack.run_suite(run, suite_of(profile), device=device)


def read(profile: Profile) -> Attacked:
    """The stored attacks of a profile beside the certificates they try.

    Raises:
        ConfigError: a run was not attacked or not certified.
        ValueError: a run was certified anew since it was attacked.
    """
    counted = store.read_counts(profile)
    points = pd.concat([store.read_attacks(run).assign(**identity(run)) for run in runs_of(profile)], ignore_index=True)
    points = points.astype({name: counted[name].dtype for name in RUN})  # groups come out in the profile's order
    points = points.assign(**{name: measures.in_order(points[name]) for name in ("attack", "method")})
    certified = measures.certificates(counted, alpha=profile.alpha).merge(points[POINT].drop_duplicates(), on=POINT)
    certified["method"] = pd.Categorical(certified["method"], points["method"].cat.categories, ordered=True)
    return Attacked(points, certified, put_to_the_test(points, certified, profile.data.classes))


# ------------------------------------------------------------------------------------------------ soundness


def put_to_the_test(points: pd.DataFrame, certified: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Every point beside every certificate of its image by its method: columns `within`, `flipped`, `changed`.

    `within`: its distance is less than the certified radius. `flipped`: so it is, and the further votes, which were drawn
    wherever the reference method's first ones spoke against a certificate, prove that the class is another. `changed`: the
    method's own votes are for another class than c_A.
    """
    certificates = certified[[*POINT, "rule", "predict", "radius"]].rename(columns={"radius": "certified"})
    both = points.merge(certificates, on=POINT).astype({"method": points["method"].dtype})
    both["within"] = (both["predict"] != ABSTAIN) & (both["distance"] < both["certified"])
    stale = both[both["within"] & (both["predict"] != both["c_a"])]
    if len(stale):
        raise ValueError(f"image {stale['idx'].iloc[0]}: it was attacked before it was certified for another class: attack again")
    both["flipped"] = both["within"] & flipped(both["n_c_a"], both["n_rival"], classes)
    return both.assign(changed=both["own"] != both["c_a"])


def flipped(n_c_a: np.ndarray, n_rival: np.ndarray, classes: int, alpha: float = FLIP_ALPHA) -> np.ndarray:
    """Whether votes prove that c_A is not what the smoothed classifier answers at a point.

    If it were, no other class would be likelier than c_A, so that each one's votes among its own and c_A's would be at
    most Binomial(n, 1/2). The two-sided binomial test (Hung and Fithian 2019, as in Cohen et al.'s Predict) is taken of
    the most frequent other class, Bonferroni-corrected for having chosen it.
    """
    n_c_a, n_rival = np.asarray(n_c_a), np.asarray(n_rival)
    return (n_rival > n_c_a) & (2 * binom.sf(n_rival - 1, n_rival + n_c_a, 0.5) * (classes - 1) <= alpha)


def soundness(tested: pd.DataFrame) -> pd.DataFrame:
    """How many points lie within a certificate, and how many of those are proven flipped, by run, method and rule."""
    images, confirmed = tested["idx"].where(tested["predict"] != ABSTAIN), tested["within"] & (tested["n_confirm"] > 0)
    return tested.assign(images=images, confirmed=confirmed).groupby(ROW, observed=True).agg(**{
        "certified images": ("images", "nunique"), "points within a certified radius": ("within", "sum"),
        "tested with further votes": ("confirmed", "sum"), "flipped": ("flipped", "sum"),
    }).reset_index()  # fmt: skip


def require_sound(tested: pd.DataFrame) -> None:
    """Raise FalseCertificate if a point is flipped under a rule that should hold."""
    false = soundness(tested[tested["rule"] != Rule.RELEASED]).query("flipped > 0")
    if len(false):
        raise FalseCertificate(f"certificates that an attack proved false:\n{false.to_string(index=False)}")


def soundness_finding(tested: pd.DataFrame) -> str:
    """How many points tested the certificates that hold, and how many of them fell."""
    sound, released = (tested[tested["within"] & ((tested["rule"] == Rule.RELEASED) == so)] for so in (False, True))
    return (
        f"Certificates of the sound rules were tested {len(sound)} times, by a point within the radius of one: "
        f"{sound['flipped'].sum()} points are flipped. Further votes decided {(sound['n_confirm'] > 0).sum()} times. Of "
        f"'{show.RULE_LABELS[Rule.RELEASED]}', {released['flipped'].sum()} of {len(released)} tests are flipped."
    )


# ------------------------------------------------------------------------------------------------ accuracy that is left


def survivors(points: pd.DataFrame, answer: str = "own") -> pd.DataFrame:
    """Whether each image is right before an attack and after it (`left`); radius 0 of every attack is the image as it is.

    Rows of the attack ALL say whether it is right after all attacks of radius up to r. The attack at the edge, whose radii are
    each image's own, is left out.
    """
    points = points.assign(left=points[answer] == points["label"])
    names = [name for name in points["attack"].cat.categories if name != "none" and not name.startswith("at the edge")]
    before, after = (points.loc[points["attack"].isin(some), [*POINT, "attack", "radius", "left"]] for some in (["none"], names))
    after = after.merge(before[[*POINT, "left"]], on=POINT, suffixes=("", "_before"))
    after["left"] &= after["left_before"]
    every = pd.concat([*(before.assign(attack=name) for name in names), after])
    worst = every.groupby([*POINT, "radius"], observed=True)["left"].min().groupby(POINT, observed=True).cummin()
    both = pd.concat([every, worst.reset_index().assign(attack=ALL)], ignore_index=True)
    return both.assign(attack=pd.Categorical(both["attack"], [*names, ALL], ordered=True))


def robust_accuracy(points: pd.DataFrame, certified: pd.DataFrame) -> pd.DataFrame:
    """Certified accuracy beside the accuracy that is left under each attack, in percent of the attacked images."""
    by, methods = [*RUN, "attack", "classifier"], points["method"].cat.categories
    base = survivors(points[points["method"] == methods[0]], "base").query("attack != @ALL").assign(classifier=BASE)
    left = pd.concat([base, survivors(points).assign(classifier=lambda own: own["method"])])
    left["classifier"] = pd.Categorical(left["classifier"], [BASE, *methods], ordered=True)
    wide = by_radius(100 * left.groupby([*by, "radius"], observed=True)["left"].mean())
    held = measures.certified_accuracy(first_rule(certified), sorted(set(left["radius"]))).reset_index()
    held["classifier"] = held["method"].astype(str) + ", " + held["rule"].astype(str).map(show.RULE_LABELS)
    table = pd.concat([held.assign(attack="certified"), wide.reset_index()])[[*by, *wide.columns]]
    return table.sort_values(RUN, kind="stable").reset_index(drop=True)


def by_radius(values: pd.Series) -> pd.DataFrame:
    """The values with a column per radius."""
    return values.unstack("radius").rename(columns="r={:.2f}".format)


def first_rule(table: pd.DataFrame) -> pd.DataFrame:
    """The rows under the rule that each method's certificates are shown by: cohen or audit."""
    return table[table["rule"].isin([Rule.COHEN, Rule.AUDIT])]


def pointwise(tested: pd.DataFrame) -> pd.DataFrame:
    """Flipped of attacked images, those certified at the radius apart from those that are not (the paper's point-wise tables).

    An image is flipped if a method's own votes on the attacked image are for another class than before.
    """
    own = first_rule(tested)
    own = own[(own["attack"] != "none") & ~own["attack"].str.startswith("at the edge")]
    held = (own["predict"] != ABSTAIN) & (own["certified"] >= own["radius"])
    groups = own.assign(images=np.where(held, "certified", "not certified")).groupby(
        [*ROW, "attack", "images", "radius"], observed=True)["changed"].agg(["sum", "size"])  # fmt: skip
    # Both kinds of images, even where all are of one.
    wide = by_radius(groups["sum"].astype(str) + " of " + groups["size"].astype(str)).unstack("images")
    kinds = pd.MultiIndex.from_product([wide.columns.levels[0], ["certified", "not certified"]], names=[None, "images"])
    return wide.reindex(columns=kinds).astype(object).fillna("0 of 0").stack("images", future_stack=True).reset_index()


def room_finding(attacked: Attacked, profile: Profile) -> str:
    """How much room there is between what is certified and what the strongest attack leaves, for the reference method."""
    table, own = robust_accuracy(attacked.points, attacked.certified), profile.reference
    rows = table[table["classifier"].str.startswith(own)].groupby("attack")[list(table.filter(like="r="))].mean()
    certified, left = rows.loc["certified"], rows.loc[ALL]
    widest = (left - certified).idxmax()
    return (
        f"Over all attacked models {own} is certified for {certified[widest]:.1f} % of the images and keeps {left[widest]:.1f} % "
        f"under all attacks together at {widest.replace('=', ' = ')}, where the room between the two is widest."
    )


# ------------------------------------------------------------------------------------------------ what is shown


def curves(attacked: Attacked, profile: Profile) -> list[Shown]:
    """Certified accuracy (steps) and what attacks leave of the reference's (markers) against the radius, for every model size."""
    suite, shown = suite_of(profile), []
    every = survivors(attacked.points[attacked.points["method"] == profile.reference]).query("attack != @ALL")
    certified = first_rule(attacked.certified)
    certified = certified[certified["method"].isin([profile.reference, suite.methods[-1]])]
    for model, own in certified.groupby("model", observed=True):
        fig, left = plots.accuracy_curves(own, hue="method"), every[every["model"] == model]
        with plots.style():
            for ax, (_, some) in zip(fig.axes, left.groupby("sigma", observed=True)):
                for i, (name, answers) in enumerate(some.groupby("attack", observed=True)):
                    share = 100 * answers.groupby("radius")["left"].mean()
                    # Hollow, one size in another: markers at the same place are all seen.
                    look = {"color": plots.look(name, list(left["attack"].cat.categories))[0], "fillstyle": "none", "label": name}
                    ax.plot(share.index, share, MARKERS[i], markersize=7 - i, markeredgewidth=0.8, **look)
                ax.set(xlim=(0, max(ax.get_xlim()[1], 1.05 * left["radius"].max())), ylim=(-5, 107))
            fig.supylabel("accuracy (%)", fontsize=7)
            fig.legends[0].remove()
            plots.add_legend(fig, 2)
        shown.append(show.figure(profile, f"robust_curves_{model}", fig, (
            f"Certified accuracy (steps) and accuracy of {profile.reference} after attacks (markers, {suite.n} votes per image) "
            f"of the same {suite.images} images (MDEQ-{model} on {profile.data.name}). Grey: 95 % interval of the black line."
        )))  # fmt: skip
    return shown


def tables(attacked: Attacked, profile: Profile) -> list[Shown]:
    """For each run the accuracy that attacks leave, and the point-wise tables; for all the test of the certificates.

    Raises:
        FalseCertificate: an attack proved a certificate of a sound rule false; everything has been saved.
    """
    suite, reference = suite_of(profile), profile.reference
    accuracy, points, strong = robust_accuracy(attacked.points, attacked.certified), pointwise(attacked.tested), suite.attacks[-1]
    shown = [show.table(profile, "attack_soundness", soundness(attacked.tested), (
        "Attacked images nearer to the original than the certified radius, and how many of them are proven to be flipped: where "
        f"the first {suite.n} standard votes are not for the certified class, {suite.confirm} more are drawn by {reference}, and "
        f"another class has significantly more of them (two-sided binomial test at {FLIP_ALPHA:g}, corrected for the choice of "
        "the class)."
    ))]  # fmt: skip
    for run in runs_of(profile):
        where = f"MDEQ-{run.model.name}, {profile.data.name}, sigma = {run.sigma:.2f}, {suite.images} test images"
        own = of_run(accuracy, run).drop(columns=RUN)
        main = own["attack"].isin(["certified", ALL]) | (own["classifier"] == reference)
        caption = (
            f"Accuracy in percent under l2 attacks of radius r ({where}; {strong.steps} steps of {strong.step:g}, not clipped to "
            "[0, 1]). 'certified': from the stored votes. Otherwise the attacked image is classified by the base classifier or "
            f"by the most frequent of {suite.n} fresh votes of the method. '{ALL}': right before and after all attacks of radius "
            "up to r."
        )
        shown.append(show.table(profile, name_of("robust_accuracy", run), own[main], caption))
        shown.append(show.table(profile, name_of("robust_accuracy_others", run), own[~main], f"The other classifiers. {caption}"))
        for (method, rule), rows in of_run(points, run).drop(columns=RUN).groupby(["method", "rule"], observed=True):
            kind = "pointwise" + f"_{method}" * (method != reference)
            shown.append(show.table(profile, name_of(kind, run), rows.drop(columns=["method", "rule"]), (
                f"How many images an attack of radius r flips ({where}), of those that {method} certifies there under "
                f"'{show.RULE_LABELS[rule]}' and of those that it does not. Flipped: {suite.n} fresh votes of the method are for "
                "another class than its stored ones. So few votes may err by chance; what is proven is in the table "
                "attack_soundness."
            )))  # fmt: skip
    require_sound(attacked.tested)
    return shown
