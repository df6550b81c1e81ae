"""Notebook 34: do a DEQ's gradients lie? Intermediate-state gradients against the exact one (Yang, Pang, Liu 2022).

A black-box solver hides how the answer came about, so an attacker who differentiates only at its end may be misled. Here the loss
is differentiated at the solver's intermediate states instead, on a DEQ and on the same DEQ trained against such attacks.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes

from srs import sealed, settings, store
from srs.analysis import measures, plots, show
from srs.analysis.show import Shown
from srs.attacks.settings import Adversarial, Attack, Gradient, hardened, NO_ATTACK, Suite
from srs.experiments.attacks import by_radius
from srs.settings import Run

RESIDUAL = "residual"  # stands in the column `gradient` where `cosine` is the relative residual of z_n
READY, CONVERGED = "exact, ready-made", "exact, converged"
PLAIN, HARD = "as trained for smoothing", "and adversarially trained"
COSINES = {"idx": int, "state": int, "gradient": str, "cosine": float}
MOST_IMAGES = 25
RADII = (0.25, 0.5, 0.75, 1.0)
STATES = (1, 2, 3, 4, 6, 8, 12, 16)  # z_n at which gradients are compared
EXACT = Gradient("implicit", 100, "anderson", 100)  # solved to convergence
COMPARED = {  # `state` is put in, and `backward` with it
    "exact, Broyden": Gradient("implicit", solver="broyden"),
    "unrolled, 1 step": Gradient("unrolled"),
    "unrolled, 3 steps": Gradient("unrolled", unroll=3),
    "adjoint, beta 1": Gradient("adjoint"),
    "adjoint, beta 0.5": Gradient("adjoint", beta=0.5),
}


def both(run: Run) -> dict[str, Run]:
    """The run and, trained on for a quarter of its epochs with attacks through intermediate states, its hardened one; by name."""
    adversarial = Adversarial(vectors=1, gradient=Gradient("unrolled", state=3, unroll=3))
    again = dict(begin=run.train, epochs=max(1, run.train.epochs // 4), pretrain_steps=0, lr=run.train.lr / 2)
    return {PLAIN: run, HARD: replace(run, train=hardened(run.train, "adversarial", adversarial, **again))}


def suite_of(run: Run, *, steps: int = 20, radii: Sequence[float] = RADII) -> Suite:
    """PGD with one gradient or another, each as long as `steps` steps of the ready-made one cost (converged: as many steps).

    Ready-made is the exact gradient as the recipe trains with it: Broyden's method for both passes, as many steps as there.
    """
    ready = Gradient("implicit", run.train.forward_steps, "broyden", run.train.backward_steps)
    chosen = {
        READY: ready,
        CONVERGED: Gradient("implicit", 30, "anderson", 30),
        "unrolled from z_2": Gradient("unrolled", 2, unroll=3),
        "unrolled from z_5": Gradient("unrolled", 5, unroll=3),
        "adjoint to z_8": Gradient("adjoint", 8, beta=0.5),
    }
    budget = {name: steps if name == CONVERGED else max(1, round(steps * ready.cost / g.cost)) for name, g in chosen.items()}
    attacks = (Attack(name, 0, g, budget[name], radii=tuple(radii)) for name, g in chosen.items())
    return Suite((NO_ATTACK, *attacks), images=min(run.profile.images, MOST_IMAGES), n=0)


def measure(
    run: Run, *, steps: int = 20, radii: Sequence[float] = RADII, states: Sequence[int] = STATES, device: str = "cpu",
    progress: bool = True,
) -> None:
    """Train the hardened DEQ, compare gradients at z_n for n of `states` and attack on both; what is there is not done again.

    `steps` are PGD steps of the ready-made gradient; the others spend as much.
    """
    from srs.attacks import attack
    from srs.training import train

    for one in both(run).values():
        train.train(one, device=device, progress=progress)
        attack.run_suite(one, suite_of(run, steps=steps, radii=radii), "white_box", device=device, progress=progress)
        model, loaded, made_from = attack.load(one, device)
        code = store.code_digest("deq/mdeq", "deq/gradients", "deq/solvers", "attacks/pgd", "experiments/white_box")
        images, gradients = list(one.profile.evaluated[:MOST_IMAGES]), [(name, vars(g)) for name, g in COMPARED.items()]
        key = settings.fingerprint(made_from, list(states), gradients, EXACT, images, code)
        path = store.own(one, f"attacks/cosines-{key}.csv")
        if not sealed.present(path):
            found = cosines(model, loaded.x(images).to(device), loaded.labels[images].to(device), states)
            store.save_frame(path, found.assign(idx=[images[i] for i in found["idx"]]))
        store.save_frame(store.measured(one, "cosines.csv"), store.read_frame(path, COSINES, "table of cosines", by=""))


def cosines(model, x, y, states: Sequence[int]) -> pd.DataFrame:
    """Cosine of each gradient of the cross-entropy at each z_n to the converged exact one, and the residual of z_n.

    A row per image (`idx`, 0 to B - 1, of x (B, C, H, W) with classes y), state and gradient.
    """
    import torch

    from srs.attacks import pgd
    from srs.deq.solvers import relative_residual

    def gradient(g: Gradient):
        return pgd.smoothed_gradient(model, x, y, torch.zeros_like(x)[:, None], g).double().flatten(1)

    exact, u, found = gradient(EXACT), model.inject(x).detach(), {}
    for n in states:
        z = pgd.solve(model, u, replace(EXACT, state=n))
        found[n, RESIDUAL] = relative_residual(z, model.f(z, u)).detach()
        for name, g in COMPARED.items():
            found[n, name] = torch.nn.functional.cosine_similarity(gradient(replace(g, state=n, backward=n)), exact)
    rows = [(i, n, name, value) for (n, name), values in found.items() for i, value in enumerate(values.tolist())]
    return pd.DataFrame(rows, columns=list(COSINES))


# ------------------------------------------------------------------------------------------------ tables and findings


def read(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The stored cosines and attacked images of the run's model and of the hardened one, by the column `model`."""
    parts = []
    for name, one in both(run).items():
        path = store.find(one, "cosines.csv")
        settings.check(path is not None, "cosines", str(store.measured(one, "cosines.csv")), "an existing file; `make` makes one")
        found = store.read_frame(path, COSINES, "table of cosines", by="")
        attacked = store.read_attacks(one, "white_box").rename(columns={"attack": "gradient"})
        parts.append([frame.assign(model=name) for frame in (found, attacked)])
    frames = (pd.concat(some, ignore_index=True) for some in zip(*parts))
    return tuple(frame.assign(**{name: measures.in_order(frame[name]) for name in ("model", "gradient")}) for frame in frames)


def models_table(run: Run) -> pd.DataFrame:
    """What the model cards say of accuracy, convergence and training, before and after adversarial training."""
    cards = {name: store.card(one) for name, one in both(run).items()}
    return pd.DataFrame([{
        "model": name, "clean accuracy %": 100 * card["clean_accuracy"], "noisy accuracy %": 100 * card["noisy_accuracy"],
        **{f"residual after {k}": card["residual"][str(k)] for k in (1, 5, 10, 30)},
        "training steps": card["steps"], "training seconds": card["seconds"],
    } for name, card in cards.items()])  # fmt: skip


def residual_finding(models: pd.DataFrame) -> str:
    """Whether the adversarially trained DEQ is further from its fixed point after as many steps."""
    before, after = models["residual after 5"]
    change = "grows" if after > before else "falls"
    return f"After 5 evaluations of f the residual {change} with adversarial training: {before:.1e} before, {after:.1e} after it."


def cosine_table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean cosine to the exact gradient per state and gradient, and the mean relative residual there, by model."""
    wide = found.groupby(["model", "gradient", "state"], observed=True)["cosine"].mean().unstack("state")
    return wide.rename(columns="z_{}".format).reset_index()


def cosine_finding(found: pd.DataFrame) -> str:
    """Which gradient is nearest to the exact one at the first state and at the last, over both models."""
    mean = found[found["gradient"] != RESIDUAL].groupby(["state", "gradient"], observed=True)["cosine"].mean().unstack("gradient")
    best = (f"at z_{n} '{mean.loc[n].idxmax()}' (mean cosine {mean.loc[n].max():.3f})" for n in (mean.index[0], mean.index[-1]))
    return f"Nearest to the exact gradient is {' and '.join(best)}."


def success(points: pd.DataFrame) -> pd.DataFrame:
    """Attack success on the base classifier: flipped of the images that it had right, in percent, by model and gradient.

    `it alone` counts the (image, radius) pairs that this attack flips and the ready-made one does not, and the reverse.
    """
    by, pair = ["model", "gradient"], ["model", "idx", "radius"]
    right = points[(points["gradient"] == NO_ATTACK.name) & (points["base"] == points["label"])]
    image = pd.MultiIndex.from_frame(points[["model", "idx"]])
    had = image.isin(pd.MultiIndex.from_frame(right[["model", "idx"]]))
    own = points.assign(had=had, flipped=had & (points["base"] != points["label"]))[points["steps"] > 0]
    own = own.merge(own.loc[own["gradient"] == READY, [*pair, "flipped"]], on=pair, suffixes=("", "_ready"))
    own["alone"], own["ready_alone"] = own["flipped"] & ~own["flipped_ready"], own["flipped_ready"] & ~own["flipped"]
    groups, each = own.groupby(by, observed=True), own.groupby([*by, "radius"], observed=True)[["flipped", "had"]].sum()
    total = groups[["had", "flipped", "alone", "ready_alone"]].sum()
    table = groups.agg(steps=("steps", "first"), evaluations=("nfe", "first"))
    table["images"] = total["had"] // own["radius"].nunique()
    table = table.join(by_radius(100 * each["flipped"] / each["had"]))
    table["all radii"] = 100 * total["flipped"] / total["had"]
    return table.assign(**{"it alone": total["alone"], "ready-made alone": total["ready_alone"]}).reset_index()


def success_finding(table: pd.DataFrame) -> str:
    """Whether an intermediate-state gradient beats the ready-made exact one on the hardened DEQ, and by how much."""
    own = table[table["model"] == HARD].set_index("gradient")
    rate = own["all radii"].fillna(0.0)
    others = rate[~rate.index.str.startswith("exact")]
    best, lead = others.idxmax(), others.max() - rate[READY]
    wins = "beats" if lead > 0 else "equals" if lead == 0 else "does not beat"
    return (
        f"On the adversarially trained DEQ the best intermediate-state gradient ('{best}', {others.max():.1f} % of image-radius "
        f"pairs flipped) {wins} the ready-made exact one ({rate[READY]:.1f} %) at equal cost: by {lead:+.1f} points; it alone "
        f"flips {own.loc[best, 'it alone']} pairs, the ready-made one alone {own.loc[best, 'ready-made alone']}."
    )


# ------------------------------------------------------------------------------------------------ what is shown


def where(run: Run) -> str:
    """The words in which a caption names the model."""
    return f"MDEQ-{run.model.name}, {run.profile.data.name}, trained at sigma = {run.sigma:.2f}"


def quality(run: Run) -> Shown:
    """The table of both models."""
    hard = both(run)[HARD].train
    return show.table(run.profile, "white_box_models", models_table(run), (
        f"The DEQ before and after adversarial training ({where(run)}): {hard.epochs} more epochs on images that PGD-l2 of "
        f"radius {hard.adversarial.radius:g} attacked through gradients unrolled from z_{hard.adversarial.gradient.state}. "
        "Residuals are relative, on noisy test images, after k evaluations of f."
    ))  # fmt: skip


def nearness(found: pd.DataFrame, run: Run) -> list[Shown]:
    """The figure and the table of the cosines to the exact gradient."""
    compared = (
        f"to the exact gradient of the cross-entropy (converged, {EXACT.state} evaluations of f for each pass) at "
        f"{found['idx'].nunique()} clean test images ({where(run)}), of gradients taken at the solver's state z_n after n "
        "evaluations: exact by Broyden's method with n steps for each pass, unrolled, or by the simultaneous adjoint iteration"
    )
    table, states = cosine_table(found), sorted(found["state"].unique())
    text = {name: [f"{v:.1e}" if g == RESIDUAL else show.round_half_up(v, 3) for g, v in zip(table["gradient"], table[name])]
            for name in table.filter(like="z_")}  # fmt: skip

    def draw(ax: Axes, own: pd.DataFrame, look: dict, _: tuple[int, int]) -> None:
        by_state = own.groupby("state")["cosine"]
        ax.semilogx(states, by_state.mean(), marker="o", markersize=2.5, **look)
        ax.fill_between(states, by_state.quantile(0.1), by_state.quantile(0.9), color=look["color"], alpha=0.12, linewidth=0)
        ax.set_xticks(states, labels=map(str, states))
        ax.minorticks_off()

    axes = {"x": "evaluations of f, n", "y": "cosine to the exact gradient"}
    drawn = plots.grid(found[found["gradient"] != RESIDUAL], panel="model", hue="gradient", draw=draw, **axes)
    return [
        show.figure(run.profile, "white_box_cosine_curves", drawn, f"Mean cosine, and the middle 80 % of images, {compared}."),
        show.table(run.profile, "white_box_cosines", table.assign(**text), f"Mean cosine {compared}. 'residual': that of z_n."),
    ]


def flips(points: pd.DataFrame, run: Run) -> Shown:
    """The table of attack success."""
    ready = suite_of(run).attacks[1]
    return show.table(run.profile, "white_box_success", success(points), (
        "Images that the base classifier has right and PGD-l2 of radius r flips, in percent, by the gradient that drives it "
        f"({where(run)}; the first {points['idx'].nunique()} evaluated images; steps of {ready.step:g}). '{READY}': Broyden's "
        f"method with {ready.gradient.state} forward and {ready.gradient.backward} backward steps, as in training. All but "
        f"'{CONVERGED}' spend the same in evaluations of f and vector-Jacobian products. Last columns: image-radius pairs that "
        "one attack flips and the other does not."
    ), {"all radii": 1})  # fmt: skip
