"""Notebook 00: one image certified by RS and by SRS, its noisy copies, and how fast a solver settles from each start."""

import itertools

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.figure import Figure

from srs import data, settings, store
from srs.analysis import plots, show
from srs.deq import mdeq, solvers
from srs.smoothing import certify, noise

RESIDUALS, KINDS = "residuals.csv", {"start": str, "evaluations": int, "residual": float, "idx": int}


@torch.inference_mode()
def residuals(model: mdeq.DEQ, run: settings.Run, idx: int, *, copies: int = 32, steps: int = 15) -> pd.DataFrame:
    """Relative residuals |f(z) - z| / |f(z)| of noisy copies before so many `evaluations` of f from each `start`; stored."""
    reference, x = run.profile.method(run.profile.reference), data.load(run.profile.data, "test").x(idx)
    solve, copy = solvers.SOLVERS[reference.solver], noise.Copies(x, run.sigma, run.profile.seed, idx, "estimate")
    noisy = copy(np.arange(2 * copies))
    u, u_before, u_clean = model.inject(noisy[copies:]), model.inject(noisy[:copies]), model.inject(x[None])
    zero = model.initial(u)
    clean, before = (solve(model.f, model.initial(v), v, max_steps=reference.steps).z for v in (u_clean, u_before))
    starts, rows = {"zero": zero, "clean": clean.expand_as(zero), "previous": before}, []
    for (start, z0), k in itertools.product(starts.items(), range(steps)):
        z = solve(model.f, z0, u, max_steps=k).z if k else z0
        residual = solvers.relative_residual(z, model.f(z, u)).numpy()
        rows.append(pd.DataFrame({"start": start, "evaluations": k + 1, "residual": residual}))
    frame = pd.concat(rows, ignore_index=True)
    store.save_frame(store.own(run, RESIDUALS), frame.assign(idx=idx))
    return frame


def stored(profile: settings.Profile) -> list[show.Shown]:
    """The figure of `convergence` of every run whose residuals are stored."""
    paths = {run: path for run in profile.runs if (path := store.find(run, RESIDUALS))}
    read = {run: store.read_frame(path, KINDS, "table of residuals", by="") for run, path in paths.items()}
    return [convergence(run, frame, frame["idx"][0]) for run, frame in read.items()]


def convergence(run: settings.Run, frame: pd.DataFrame, idx: int) -> show.Shown:
    """Relative residual against evaluations of f from each start: the median copy and the middle 80 % of them."""
    with plots.style():
        fig = Figure(figsize=(plots.WIDTH, 2.2), layout="constrained")
        ax, look = fig.subplots(), {"hue": "start", "style": "start", "estimator": "median", "errorbar": ("pi", 80)}
        seaborn.lineplot(frame, x="evaluations", y="residual", palette=plots.COLOURS[:3], ax=ax, **look)
        ax.set(yscale="log", xlabel="evaluations of f", ylabel=r"relative residual $|f(z)-z|\,/\,|f(z)|$", xlim=(1, None))
    caption = f"Relative residual on noisy copies of test image {idx} ({run.id}): the median copy, shaded the middle 80 %."
    return show.figure(run.profile, "quickstart_residuals", fig, caption)


def start_finding(frame: pd.DataFrame) -> str:
    """How near each start is to the solution, and how many evaluations zero takes to come as near."""
    median = frame.groupby(["start", "evaluations"])["residual"].median().unstack("start")
    zero, clean, previous = median.iloc[0][["zero", "clean", "previous"]]
    near = median.index[median["zero"] <= previous]
    as_near = f"comes as near with evaluation {near[0]}" if len(near) else f"does not come as near within {median.index[-1]}"
    begins = f"{zero:.2g} from zero, {clean:.2g} from the clean image's solution and {previous:.2g} from another copy's"
    return f"The median residual begins at {begins}; zero {as_near}."


def certificates(model: mdeq.DEQ, run: settings.Run, idx: int) -> pd.DataFrame:
    """The image certified by standard RS and by the longest SRS method of the profile, and what each spent."""
    p, x, rows = run.profile, data.load(run.profile.data, "test").x(idx), []
    for method in (p.method(p.reference), max((m for m in p.methods if m.needs_audit), key=lambda m: m.steps)):
        c = certify.certify_image(model, x, method, p.sampling, sigma=run.sigma, alpha=p.alpha, idx=idx)
        spent = dict(zip(("NFE select", "NFE estimate", "NFE audit"), c.votes.nfe))
        rule = "audit" if method.needs_audit else "cohen"
        rows.append({"method": method.name, "rule": rule, "class": c.predict, "radius": c.radius, **spent, "NFE": c.nfe})
    return pd.DataFrame(rows)


def cost_finding(frame: pd.DataFrame) -> str:
    """How many times fewer evaluations SRS took, what share the audit has, and what both certified."""
    (_, rs), (_, srs) = frame.iterrows()
    told = f"{srs['method']} spent {rs['NFE'] / srs['NFE']:.1f} times fewer evaluations than {rs['method']}, "
    told += f"{100 * srs['NFE audit'] / srs['NFE']:.0f} % of them on the audit"
    return f"{told}; the radii are {show.round_down(srs['radius'])} and {show.round_down(rs['radius'])}."
