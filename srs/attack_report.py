"""Do attacks get past the certificates? Tables and figures from stored attacks and tallies only; no torch.

`python -m srs.attack_report --profile digits`
"""

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from srs import bounds, figures, metrics, paths, points, shown, tables, threats
from srs.bounds import ABSTAIN, Rule
from srs.config import Profile, Run
from srs.points import Point
from srs.tables import RULE_LABELS, Tallies, percent
from srs.threats import Battery

NOTEBOOK = "33_attacks"
FLIP_ALPHA = 1e-6  # of one test: thousands of points are tested, and none of them may be blamed by chance
ALL = "strongest of all"


class FalseCertificate(AssertionError):
    """An attack changed the smoothed classifier's mind within a radius that a sound rule certified."""


def flipped(n_c_a: int, n_rival: int, classes: int, alpha: float = FLIP_ALPHA) -> bool:
    """Whether votes prove that c_A is not what the smoothed classifier answers at a point.

    If it were, no other class would be likelier than c_A, so that each one's votes among its own and c_A's would be at
    most Binomial(n, 1/2). The two-sided binomial test (Hung and Fithian 2019, as in Cohen et al.'s Predict) is taken of
    the most frequent other class, Bonferroni-corrected for having chosen it.
    """
    if n_rival <= n_c_a:
        return False
    return bool(binomtest(n_rival, n_rival + n_c_a, 0.5).pvalue * (classes - 1) <= alpha)


class Certified(NamedTuple):
    """What a method's certificates under a rule say, by image."""

    method: str
    rule: Rule
    predict: dict[int, int]
    radius: dict[int, float]


def certified(run: Run, battery: Battery, tallies: Tallies, *, sound: bool) -> list[Certified]:
    """The certificates of the attacked images, of every method of the battery under its first rule or under all."""
    found = []
    for method in map(run.profile.method, battery.methods):
        idx = tallies[run.id, method.name]["idx"].tolist()
        rules = bounds.rules_for(method.serialized)
        for rule in rules[:1] if sound else rules:
            made = tables.certify(run, method, tallies, rule)
            by_image = (dict(zip(idx, values.tolist())) for values in made)
            found.append(Certified(method.name, rule, *by_image))
    return found


def load(run: Run, battery: Battery) -> list[Point]:
    """The stored points of a run's attacks.

    Raises:
        config.ConfigError: an attack was not run.
    """
    return [point for attack in battery.attacks for point in points.read(points.points_file(run, attack))]


# ------------------------------------------------------------------------------------------------ soundness


def soundness(some: list[Point], certificates: list[Certified], classes: int) -> pd.DataFrame:
    """How many attacked points lie within a certificate, and how many of those are proven to be flipped.

    A point counts for a certificate if its distance from the original is less than the certified radius. It is flipped
    if `flipped` says so of the further votes, which were drawn wherever the reference method's first votes spoke against
    a certificate.
    """
    rows = []
    for one in certificates:
        own = [p for p in some if p.method == one.method and one.predict.get(p.idx, ABSTAIN) != ABSTAIN]
        within = [p for p in own if p.distance < one.radius[p.idx]]
        false = [p for p in within if flipped(*_against(p, one.predict[p.idx]), classes)]
        rows.append({
            "method": one.method, "rule": RULE_LABELS[one.rule], "certified images": str(len({p.idx for p in own})),
            "points within a certified radius": str(len(within)),
            "tested with further votes": str(sum(p.n_confirm > 0 for p in within)), "flipped": str(len(false)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _against(p: Point, predict: int) -> tuple[int, int]:
    """Further votes for the certified class and for its rival; the stored counts are of the class c_a, so check it."""
    if p.c_a != predict:
        raise ValueError(f"image {p.idx}: the attack was stored for class {p.c_a}, the certificate is for {predict}: attack again")
    return p.n_c_a, p.n_rival


def require_sound(table: pd.DataFrame) -> None:
    """Raise FalseCertificate if a table of `soundness` shows a flip under a rule that should hold."""
    sound = table[~table["rule"].eq(RULE_LABELS[Rule.RELEASED])]
    false = sound[sound["flipped"].astype(int) > 0]
    if len(false):
        raise FalseCertificate(f"certificates that an attack proved false:\n{false.to_string(index=False)}")


# ------------------------------------------------------------------------------------------------ tables


def _at(r: float) -> str:
    return f"r={r:.2f}"


def _radii(battery: Battery) -> tuple[float, ...]:
    return max((attack.radii for attack in battery.attacks), key=len)


def _named(battery: Battery) -> list[str]:
    """The attacks at the battery's radii, which tables show one by one."""
    return [attack.name for attack in battery.attacks if attack.radii == _radii(battery)]


def robust_accuracy(run: Run, battery: Battery, some: list[Point], certificates: list[Certified], tallies: Tallies) -> pd.DataFrame:
    """Certified accuracy beside the accuracy that is left under each attack, in percent of the attacked images."""
    radii, rows = (0.0, *_radii(battery)), []
    images = {p.idx: p.label for p in some}
    for one in certificates:
        right = np.array([one.predict[i] == label for i, label in images.items()])
        held = metrics.certified_counts(right, np.array([one.radius[i] for i in images]), radii)
        rows.append(("certified", f"{one.method}, {RULE_LABELS[one.rule]}", held))
    for attack in _named(battery):
        rows.append((attack, "base classifier", _left(some, battery.methods[0], (attack,), radii, base=True)))
        rows += [(attack, method, _left(some, method, (attack,), radii)) for method in battery.methods]
    rows += [(ALL, method, _left(some, method, tuple(_named(battery)), radii)) for method in battery.methods]
    return pd.DataFrame([
        {"attack": attack, "classifier": who, **{_at(r): percent(n, len(images)) for r, n in zip(radii, counts)}}
        for attack, who, counts in rows
    ])


def _left(some: list[Point], method: str, attacks: tuple[str, ...], radii: tuple[float, ...], base: bool = False) -> list[int]:
    """How many images are right before and after attacks of each radius; of several attacks, up to each radius."""
    wrong = defaultdict(set)  # by radius
    for p in some:
        if p.method == method and (p.base if base else p.own) != p.label and (p.attack in attacks or p.radius == 0):
            wrong[p.radius].add(p.idx)
    images = {p.idx for p in some}
    return [
        len(images - set().union(*(wrong[s] for s in radii if s in (0, r) or len(attacks) > 1 and s <= r))) for r in radii
    ]


def pointwise(run: Run, battery: Battery, some: list[Point], certificates: list[Certified]) -> pd.DataFrame:
    """Flipped of attacked images, those certified at the radius apart from those that are not (the paper's point-wise tables).

    An image is flipped if a method's own votes on the attacked image are for another class than before.
    """
    radii, rows = _radii(battery), []
    for one in certificates:
        for attack in _named(battery):
            counts = {True: [], False: []}
            for r in radii:
                own = [p for p in some if (p.method, p.attack, p.radius) == (one.method, attack, r)]
                for kind in counts:
                    those = [p for p in own if kind == (one.predict[p.idx] != ABSTAIN and one.radius[p.idx] >= r)]
                    counts[kind].append(f"{sum(p.own != p.c_a for p in those)} of {len(those)}")
            for kind, name in ((True, "certified"), (False, "not certified")):
                at = {_at(r): text for r, text in zip(radii, counts[kind])}
                rows.append({"method": one.method, "rule": RULE_LABELS[one.rule], "attack": attack, "images": name, **at})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ figure


MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def robust_curves(panels: dict[str, tuple[dict[str, figures.Curve], dict[str, list[int]], tuple[float, ...], int]]) -> Figure:
    """Certified accuracy (steps) and what attacks leave of it (markers) against the radius, a panel per noise level.

    Args:
        panels: per title, certified curves by name, counts of right images per radius by attack, the radii, and the
            number of images.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 1.5 * rows + 0.7), layout="constrained")
        axes = fig.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (title, (curves, left, radii, images))) in enumerate(zip(axes, panels.items())):
            for (name, curve), line in zip(curves.items(), (figures.SOLID, *figures.BROKEN)):
                ax.step(*figures._steps(*curve), where="pre", color="black", linestyle=line, label=f"certified: {name}")
            for (name, counts), marker in zip(left.items(), MARKERS):
                colour = figures.colours(left)[name]
                ax.plot(radii, 100 * np.array(counts) / images, marker=marker, markersize=2.5, linewidth=0.6, color=colour, label=name)
            ax.set(title=title, ylim=(-2, 104), xlim=(0, None), xlabel=r"$\ell_2$ radius ([0, 1] pixels)")
            if i % columns == 0:
                ax.set_ylabel("accuracy (%)")
        figures.legend_below(fig, 2)
    return fig


# ------------------------------------------------------------------------------------------------ files


ROBUST_CAPTION = (
    "Accuracy in percent of {images} test images under l2 attacks of radius r ({where}). 'certified': certified accuracy "
    "from the stored votes. Otherwise the attacked image is classified anew: by the base classifier without noise, or by "
    "the most frequent of {n} fresh votes, drawn as the method draws them. PGD attacks the base classifier through exact "
    "gradients, driven by the adversarial-robustness-toolbox; Smooth-PGD the mean softmax of m noisy copies; {steps} steps "
    "of {step:g}, not clipped to [0, 1]. '{all}': right before and after all attacks of radius up to r."
)
POINTWISE_CAPTION = (
    "How many of the images that are certified at radius r, and of those that are not, an attack of that radius flips: "
    "{n} fresh votes of the method are for another class than its certificate's, or than its selection votes where it has "
    "none ({where}; {images} images). So few votes may err by chance near the edge of a certificate; what is proven is in "
    "the table attack_soundness."
)
SOUNDNESS_CAPTION = (
    "Attacked images whose distance from the original is below the certified radius, over all attacks and radii run, and "
    "how many of them are proven to be flipped. Where the first {n} standard votes at such a point are not for the certified "
    "class, {confirm} further votes are drawn there by {reference}; it is flipped if another class has significantly more "
    "of them than the certified one (two-sided binomial test at {alpha:g}, corrected for the choice of the class). A sound "
    "certificate may itself fail with probability {fail:g}. 'released (unsound)' is the authors' formula."
)
CURVES_CAPTION = (
    "Certified accuracy (steps) and accuracy of {reference}'s smoothed classifier after attacks (markers, {n} votes per "
    "image) of the same images, against the l2 radius (MDEQ-{family} on {data}). Markers lie above the steps if certificates hold, "
    "but for the chance in so few votes."
)


def make_attacks(profile: Profile) -> tuple[dict[str, pd.DataFrame], dict[str, Figure]]:
    """Make and save every table and figure of a profile's attacks; returns them by name.

    Raises:
        FalseCertificate: an attack proved a certificate of a sound rule false; everything has been saved.
    """
    battery, runs = threats.BATTERIES[profile.name], threats.attacked_runs(profile)
    strong = battery.attacks[-1]
    made, drawn, proof, panels = {}, {}, [], defaultdict(dict)
    for run in runs:
        some = load(run, battery)
        tallies = tables.load(replace(profile, models=((run.model, run.train),), sigmas=(run.sigma,)))
        held = certified(run, battery, tallies, sound=True)
        where = f"MDEQ-{run.model.name}, {profile.data.name}, sigma = {run.sigma:.2f}"
        facts = dict(images=battery.images, where=where, n=battery.n, steps=strong.steps, step=strong.step, all=ALL)
        made[tables.name_of("robust_accuracy", run)] = (
            robust_accuracy(run, battery, some, held, tallies), ROBUST_CAPTION.format(**facts))
        made[tables.name_of("pointwise", run)] = (pointwise(run, battery, some, held), POINTWISE_CAPTION.format(**facts))
        every = soundness(some, certified(run, battery, tallies, sound=False), profile.data.classes)
        proof.append(pd.concat([pd.DataFrame([tables.identity(run)] * len(every)), every], axis=1))
        panels[run.model.name][f"sigma = {run.sigma:.2f}"] = _panel(run, battery, some, held)
    made["attack_soundness"] = (pd.concat(proof, ignore_index=True), SOUNDNESS_CAPTION.format(
        n=battery.n, confirm=battery.confirm, reference=profile.reference, alpha=FLIP_ALPHA, fail=profile.alpha))
    for name, (frame, caption) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    for family, some in panels.items():
        name, fig = f"robust_curves_{family}", robust_curves(some)
        caption = CURVES_CAPTION.format(reference=profile.reference, n=battery.n, family=family, data=profile.data.name)
        figures.save(fig, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
        drawn[name] = fig
    require_sound(made["attack_soundness"][0])
    return {name: frame for name, (frame, _) in made.items()}, drawn


def _panel(run: Run, battery: Battery, some: list[Point], held: list[Certified]):
    radii, images = (0.0, *_radii(battery)), {p.idx: p.label for p in some}
    curves = {}
    for one in (held[0], held[-1]):
        right = np.array([one.predict[i] == label for i, label in images.items()])
        curves[f"{one.method}"] = (right, np.array([one.radius[i] for i in images]))
    left = {name: _left(some, run.profile.reference, (name,), radii) for name in _named(battery)}
    return curves, left, radii, len(images)


if __name__ == "__main__":
    for name in sum(map(list, make_attacks(shown.profile_argument("python -m srs.attack_report", __doc__.splitlines()[0]))), []):
        print(name)
