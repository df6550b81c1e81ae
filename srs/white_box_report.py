"""Gradients through a DEQ's solver, compared: tables and a figure from stored cosines and attacks only; no torch.

`python -m srs.white_box_report --profile digits`
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from srs import config, figures, paths, points, shipped, shown, tables, threats
from srs.config import Run
from srs.points import Point
from srs.tables import number, percent
from srs.threats import READY, Attack, WhiteBox

NOTEBOOK = "34_white_box"
RESIDUAL = "residual"  # as in `white_box`, which stores it
NAMES = {"paper": "as trained for smoothing", "adversarial": "and adversarially trained"}


def both(run: Run) -> tuple[Run, Run]:
    """The run and its hardened one."""
    return run, replace(run, train=threats.white_box(run).hardening)


def named(run: Run) -> str:
    """How a run's model is called in the tables."""
    return NAMES.get(run.train.recipe, run.train.recipe)


def load_cosines(run: Run) -> pd.DataFrame:
    """The stored cosines and residuals of a run: columns idx, state, gradient, cosine.

    Raises:
        config.ConfigError: they were not measured.
    """
    path = points.folder(run) / "cosines.tsv"
    return tables.read_csv(path, by="srs.white_box", separator="\t")


# ------------------------------------------------------------------------------------------------ tables


def models(runs: tuple[Run, ...]) -> pd.DataFrame:
    """What the model cards say of accuracy, convergence and training."""
    rows = []
    for run in runs:
        card = shipped.card(run)
        rows.append({
            "model": named(run), "clean accuracy %": number(100 * card["clean_accuracy"], 1),
            "noisy accuracy %": number(100 * card["noisy_accuracy"], 1),
            **{f"residual after {k}": f"{card['residual'][str(k)]:.1e}" for k in (1, 5, 10, 30)},
            "training steps": str(card["steps"]), "training seconds": number(card["seconds"], 0),
        })  # fmt: skip
    return pd.DataFrame(rows)


def cosine_table(cosines: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean cosine to the exact gradient per state and gradient, and the mean relative residual there, by model."""
    rows = []
    for model, found in cosines.items():
        mean = found.groupby(["gradient", "state"], sort=False)["cosine"].mean()
        for gradient in found["gradient"].unique():
            digits = (lambda v: f"{v:.1e}") if gradient == RESIDUAL else (lambda v: number(v, 3))
            rows.append({"model": model, "gradient": gradient, **{f"z_{n}": digits(v) for n, v in mean[gradient].items()}})
    return pd.DataFrame(rows)


def success(stored: Mapping[str, list[Point]], attacks: tuple[Attack, ...]) -> pd.DataFrame:
    """Attack success on the base classifier: flipped of the images that it had right, per radius, by model and gradient.

    `alone` counts the (image, radius) pairs that this attack flips and the ready-made one does not, and the reverse.
    """
    rows = []
    for model, some in stored.items():
        right = {p.idx for p in some if p.radius == 0 and p.base == p.label}
        flipped = {
            attack.name: {(p.idx, p.radius) for p in some if p.attack == attack.name and p.idx in right and p.base != p.label}
            for attack in attacks
        }
        for attack in (a for a in attacks if a.steps):
            own = flipped[attack.name]
            counts = {r: sum(radius == r for _, radius in own) for r in attack.radii}
            rows.append({
                "model": model, "gradient": attack.name, "steps": str(attack.steps),
                "evaluations": str(attack.steps * attack.gradient.cost), "images": str(len(right)),
                **{f"r={r:.2f}": percent(n, len(right)) for r, n in counts.items()},
                "all radii": percent(len(own), len(right) * len(attack.radii)),
                "it alone": str(len(own - flipped[READY])), "ready-made alone": str(len(flipped[READY] - own)),
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> str:
    """Whether an intermediate-state gradient beats the ready-made exact one on the hardened DEQ, and by how much."""
    own = table[table["model"] == NAMES["adversarial"]].set_index("gradient")
    rate = own["all radii"].replace("", "0").astype(float)
    ready, others = rate[READY], rate[[name for name in rate.index if not name.startswith("exact")]]
    best, lead = others.idxmax(), others.max() - ready
    wins = "beats" if lead > 0 else "equals" if lead == 0 else "does not beat"
    return (
        f"On the adversarially trained DEQ the best intermediate-state gradient ('{best}', {others.max():.1f} % of image-radius "
        f"pairs flipped) {wins} the ready-made exact one ({ready:.1f} %) at equal cost: by {lead:+.1f} points; it alone flips "
        f"{own.loc[best, 'it alone']} pairs, the ready-made one alone {own.loc[best, 'ready-made alone']}."
    )


# ------------------------------------------------------------------------------------------------ figure


def cosine_curves(cosines: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean cosine to the exact gradient, with the middle 80 % of images, against the state: a panel per model."""
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 2.5), layout="constrained")
        axes = fig.subplots(1, len(cosines), sharey=True, squeeze=False).ravel()
        for i, (ax, (model, found)) in enumerate(zip(axes, cosines.items())):
            found = found[found["gradient"] != RESIDUAL]
            colours = figures.colours(found["gradient"].unique())
            for (name, some), line, marker in zip(found.groupby("gradient", sort=False), LINES, "os^Dv"):
                by_state = some.groupby("state")["cosine"]
                states = np.array(list(by_state.groups))
                ax.plot(
                    states, by_state.mean(), color=colours[name], linestyle=line, marker=marker, markersize=2.5, label=name
                )
                ax.fill_between(
                    states, by_state.quantile(0.1), by_state.quantile(0.9), color=colours[name], alpha=0.12, linewidth=0
                )
            ax.set(title=model, xscale="log", xlabel="evaluations of f, n")
            ax.set_xticks(sorted(found["state"].unique()), labels=[str(n) for n in sorted(found["state"].unique())])
            ax.minorticks_off()
            if i == 0:
                ax.set_ylabel("cosine to the exact gradient")
        figures.legend_below(fig, 2)
    return fig


LINES = (figures.SOLID, *figures.BROKEN, (0, (2, 1, 1, 1)))


# ------------------------------------------------------------------------------------------------ files


def make_white_box(run: Run) -> tuple[dict[str, pd.DataFrame], dict[str, Figure]]:
    """Make and save the tables and the figure of one run's comparison; returns them by name.

    Raises:
        config.ConfigError: something was not measured.
    """
    setting, pair, profile = threats.white_box(run), both(run), run.profile
    cosines = {named(one): load_cosines(one) for one in pair}
    attacks = setting.battery.attacks
    stored = {named(one): [p for a in attacks for p in points.read(points.points_file(one, a))] for one in pair}
    where = f"MDEQ-{run.model.name}, {profile.data.name}, trained at sigma = {run.sigma:.2f}"
    captions = _captions(setting, where)
    made = {
        "white_box_models": models(pair), "white_box_cosines": cosine_table(cosines),
        "white_box_success": success(stored, attacks),
    }  # fmt: skip
    captions["white_box_success"] += " " + verdict(made["white_box_success"])
    for name, frame in made.items():
        tables.save(frame, paths.shown(profile, name), caption=captions[name], made_by=NOTEBOOK)
    drawn = {"white_box_cosine_curves": cosine_curves(cosines)}
    for name, fig in drawn.items():
        figures.save(fig, paths.shown(profile, name), caption=captions[name], made_by=NOTEBOOK)
    return made, drawn


def _captions(setting: WhiteBox, where: str) -> dict[str, str]:
    images, adversarial = setting.battery.images, setting.hardening.adversarial
    attack = next(a for a in setting.battery.attacks if a.name == READY)
    compared = (
        f"to the exact gradient (implicit function theorem, {setting.exact.state} evaluations of f and {setting.exact.backward} "
        f"vector-Jacobian products) of the cross-entropy at {images} clean test images ({where}), when the gradient is taken at "
        "the solver's state z_n after n evaluations of f: exact by Broyden's method with n steps for each pass, by unrolling one "
        "or three more steps, or by the simultaneous adjoint iteration (Yang, Pang, Liu 2022)"
    )
    return {
        "white_box_models": (
            f"The DEQ before and after adversarial training ({where}): {setting.hardening.epochs} more epochs on images that "
            f"PGD-l2 of radius {adversarial.radius:g} in {adversarial.steps} steps attacked through gradients unrolled from "
            f"z_{adversarial.gradient.state}. Residuals are relative, on noisy test images, after k evaluations of f."
        ),
        "white_box_cosines": f"Mean cosine {compared}. 'residual' is the relative residual of z_n.",
        "white_box_cosine_curves": f"Mean cosine, and the middle 80 % of the images, {compared}.",
        "white_box_success": (
            f"How many of the images that the base classifier has right are flipped by PGD-l2 of radius r, in percent, by the "
            f"gradient that drives it ({where}; the first {images} evaluated images; steps of {attack.step:g}). '{READY}' is the "
            f"exact gradient by Broyden's method with {attack.gradient.state} forward and {attack.gradient.backward} backward "
            "steps, as the model was trained. Every attack but 'exact, converged' may spend what the ready-made one spends in "
            "evaluations of f and vector-Jacobian products, so a cheaper gradient takes more steps. The last two columns count "
            "image-radius pairs that one attack flips and the other does not."
        ),
    }


def main() -> None:
    """Make the tables and the figure of a profile's white-box comparison."""
    profile = shown.profile_argument("python -m srs.white_box_report", main.__doc__)
    sigma = 0.12 if 0.12 in profile.sigmas else profile.sigmas[0]
    for name in sum(map(list, make_white_box(config.get_run(profile.name, "SMALL", sigma))), []):
        print(name)


if __name__ == "__main__":
    main()
