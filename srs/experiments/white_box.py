"""Notebook 34: do a DEQ's gradients mislead the attacker? Intermediate-state against exact ones (Yang, Pang, Liu 2022)."""

from dataclasses import replace

import pandas as pd

from srs import settings, store
from srs.analysis import measures, show
from srs.attacks.settings import Adversarial, Attack, Gradient, hardened, NO_ATTACK, Suite
from srs.experiments.certified_accuracy import model_of

READY, CONVERGED = "exact, ready-made", "exact, converged"
PLAIN, HARD = "as trained for smoothing", "and adversarially trained"
KEY = ["model", "gradient"]


def both(run: settings.Run) -> dict[str, settings.Run]:
    """The run and, trained on for a quarter of its epochs with attacks through intermediate states, its hardened one."""
    again = dict(init_from=run.train, epochs=max(1, run.train.epochs // 4), pretrain_steps=0, lr=run.train.lr / 2)
    return {PLAIN: run, HARD: replace(run, train=hardened(run.train, "adversarial", Adversarial(vectors=1), **again))}


def suite_of(run: settings.Run, *, steps: int = 20, radii: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)) -> Suite:
    """PGD with one gradient or another, each as long as `steps` steps of the ready-made one cost (converged: as many steps)."""
    ready = Gradient("implicit", run.train.forward_steps, "broyden", run.train.backward_steps)  # as the recipe trains with it
    chosen = {READY: ready, CONVERGED: Gradient("implicit", 30, "anderson", 30)}
    chosen |= {f"unrolled from z_{n}": Gradient("unrolled", n, unroll=3) for n in (2, 5)}
    budget = {name: steps if name == CONVERGED else max(1, round(steps * ready.cost / g.cost)) for name, g in chosen.items()}
    attacks = (Attack(name, 0, g, budget[name], radii=radii) for name, g in chosen.items())
    return Suite((NO_ATTACK, *attacks), images=min(run.profile.images, 25), n=0)


def measure(run: settings.Run, suite: Suite, *, device: str = "cpu", progress: bool = True) -> None:
    """Train the hardened DEQ and attack both; what is there is not done again."""
    from srs.attacks import attack
    from srs.training import train
    for one in both(run).values():
        train.train(one, device=device, progress=progress)
        attack.run_suite(one, suite, "white_box", device=device, progress=progress)


def read(run: settings.Run) -> pd.DataFrame:
    """A row per attack (`gradient`) on either model, radius and image that it had right: `flipped` is 100 or 0."""
    parts = [store.read_attacks(one, "white_box").assign(model=name) for name, one in both(run).items()]
    points = pd.concat(parts, ignore_index=True).rename(columns={"attack": "gradient"})
    points = points.assign(flipped=100.0 * (points["base"] != points["label"]))
    points = points.assign(**{name: measures.in_order(points[name]) for name in KEY})
    had = points[(points["gradient"] == NO_ATTACK.name) & (points["flipped"] == 0)][["model", "idx"]]
    return points[points["steps"] > 0].merge(had, on=["model", "idx"])


def success(points: pd.DataFrame) -> pd.DataFrame:
    """Attack success on the base classifier: flipped of the images that it had right, in percent, by model and gradient."""
    groups = points.groupby(KEY, observed=True)
    rates = points.pivot_table("flipped", KEY, "radius", observed=True).rename(columns="r={:.2f}".format)
    return groups.agg(images=("idx", "nunique")).join(rates).assign(**{"all radii": groups["flipped"].mean()}).reset_index()


def finding(table: pd.DataFrame) -> str:
    """Whether an intermediate-state gradient beats the ready-made exact one, on both models, and by how much."""
    told = []
    for model, own in table.groupby("model", observed=True):
        rate = own.set_index("gradient")["all radii"]
        others = rate[~rate.index.str.startswith("exact")]
        best, lead = f"('{others.idxmax()}') flips {others.max():.1f} %", others.max() - rate[READY]
        told += [f"On the DEQ {model} the best intermediate-state gradient {best} of image-radius pairs,"]
        told += [f"the ready-made exact one {rate[READY]:.1f} % at equal cost: {lead:+.1f} points."]
    return " ".join(told) or "Neither model has an image right."


def shown(points: pd.DataFrame, run: settings.Run) -> list[show.Shown]:
    """The table of attack success; none where no model had an image right."""
    if points.empty:
        return []
    ready = suite_of(run).attacks[1]
    told = "Images that the base classifier has right and PGD-l2 of radius r flips, in percent, by the gradient that drives it "
    told += f"({model_of(run)}, {points['idx'].nunique()} test images; steps of {ready.step:g}). '{READY}': Broyden's method "
    told += f"with {ready.gradient.state} forward and {ready.gradient.backward} backward steps, as in training. "
    told += f"All but '{CONVERGED}' spend the same in evaluations of f and vector-Jacobian products."
    return [show.table(run.profile, "white_box_success", success(points), told, {"all radii": 1})]
