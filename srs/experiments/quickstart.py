"""Notebook 00: one image certified by RS and by SRS, its noisy copies, and how fast a solver settles from each start."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from srs import data
from srs.analysis import plots, show
from srs.analysis.show import Shown
from srs.deq import mdeq
from srs.deq.solvers import SOLVERS
from srs.settings import Run
from srs.smoothing import certify
from srs.smoothing.noise import Copies
from srs.training import train


def prepare(run: Run, *, device: str = "cpu") -> mdeq.DEQ:
    """The trained network of a run; it is trained if it is not there yet."""
    train.train(run, device=device)
    return certify.load_model(run, device)


def noisy_copies(run: Run, x: torch.Tensor, idx: int, count: int) -> torch.Tensor:
    """The first noisy copies x + sigma e of an image (C, H, W) that the estimation sees, (count, C, H, W)."""
    return Copies(x, run.sigma, run.profile.seed, idx, "estimate")(np.arange(count))


def draw_copies(run: Run, idx: int, count: int = 6) -> Figure:
    """A test image and its first noisy copies, as the model sees them, clipped to [0, 1] to be shown."""
    x = data.load(run.profile.data, "test").x(idx)
    images = torch.cat([x[None], noisy_copies(run, x, idx, count)]).clip(0, 1).permute(0, 2, 3, 1).numpy()
    with plots.style():
        fig = Figure(figsize=(plots.WIDTH, plots.WIDTH / (count + 1) + 0.25), layout="constrained")
        for ax, image in zip(fig.subplots(1, count + 1), images):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set_axis_off()
        for ax, title in zip(fig.axes, ("clean", plots.sigma_title(run.sigma))):
            ax.set_title(title)
    return fig


def copies(run: Run, idx: int) -> Shown:
    """The figure of an image and its noisy copies."""
    caption = f"Test image {idx} and its first noisy copies at sigma {run.sigma:g}, clipped to [0, 1] for display only."
    return show.figure(run.profile, "quickstart_noisy_copies", draw_copies(run, idx), caption)


@torch.inference_mode()
def residuals(model: mdeq.DEQ, run: Run, idx: int, *, copies: int = 32, steps: int = 15) -> pd.DataFrame:
    """Relative residuals |f(z) - z| / |f(z)| of the same noisy copies, solved from zero, from the clean image's solution and from another copy's.

    Args:
        model: any DEQ.
        run: whose noise level, seed and reference solver.
        idx: position of the image in the test split.
        copies: how many copies are solved; as many more are solved first, to start from.
        steps: evaluations of f that are followed.

    Returns:
        A row per `start` (zero, clean, previous), `evaluations` and copy, with its `residual` before that evaluation.
    """
    x, reference = data.load(run.profile.data, "test").x(idx), run.profile.method(run.profile.reference)
    noisy, solve = noisy_copies(run, x, idx, 2 * copies), SOLVERS[reference.solver]
    u, u_before, u_clean = model.inject(noisy[copies:]), model.inject(noisy[:copies]), model.inject(x[None])
    zero = model.initial(u)
    clean, before = (solve(model.f, model.initial(v), v, max_steps=reference.steps).z for v in (u_clean, u_before))
    return pd.concat([
        pd.DataFrame({"start": start, "evaluations": k, "residual": solve(model.f, z0, u, max_steps=k).residual.numpy()})
        for start, z0 in {"zero": zero, "clean": clean.expand_as(zero), "previous": before}.items() for k in range(1, steps + 1)
    ], ignore_index=True)  # fmt: skip


def draw_residuals(frame: pd.DataFrame) -> Figure:
    """Relative residual against evaluations of f from each start: the median copy and the middle 80 % of them."""
    starts = list(pd.unique(frame["start"]))
    with plots.style():
        fig = Figure(figsize=(plots.WIDTH, 2.2), layout="constrained")
        ax = fig.subplots()
        for (start, own), line in zip(frame.groupby("start", sort=False), (plots.SOLID, plots.DASHED, plots.DOTTED)):
            low, middle, high = own.groupby("evaluations")["residual"].quantile([0.1, 0.5, 0.9]).unstack().T.to_numpy()
            colour, _ = plots.look(start, starts)
            ax.plot(own["evaluations"].unique(), middle, color=colour, linestyle=line, label=start)
            ax.fill_between(own["evaluations"].unique(), low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set(yscale="log", xlabel="evaluations of f", ylabel=r"relative residual $|f(z)-z|\,/\,|f(z)|$", xlim=(1, None))
        ax.legend(title="start")
    return fig


def convergence(run: Run, frame: pd.DataFrame, idx: int) -> Shown:
    """The figure of `residuals`."""
    caption = (
        f"Relative residual of the solver on noisy copies of test image {idx} ({run.id}) from each start: the median copy, shaded the "
        "middle 80 % of the copies."
    )
    return show.figure(run.profile, "quickstart_residuals", draw_residuals(frame), caption)


def start_finding(frame: pd.DataFrame) -> str:
    """How near each start is to the solution before anything was evaluated, and how many evaluations zero takes to come as near."""
    median = frame.groupby(["start", "evaluations"])["residual"].median().unstack("start")
    first = median.iloc[0]
    near = median.index[median["zero"] <= first["previous"]]
    told = f"zero comes as near with evaluation {near[0]}" if len(near) else f"zero does not come as near within {median.index[-1]}"
    return (
        f"The median residual begins at {first['zero']:.2g} from zero, {first['clean']:.2g} from the clean image's solution and "
        f"{first['previous']:.2g} from another copy's; {told}."
    )


def certificates(model: mdeq.DEQ, run: Run, idx: int) -> pd.DataFrame:
    """The image certified by standard RS and by the longest SRS method of the profile, and what each spent."""
    p, x = run.profile, data.load(run.profile.data, "test").x(idx)
    rows = []
    for method in (p.method(p.reference), max((m for m in p.methods if m.serialized), key=lambda m: m.steps)):
        c = certify.certify_image(model, x, method, p.sampling, sigma=run.sigma, alpha=p.alpha, idx=idx)
        select, estimate, audit = c.votes.nfe
        rows.append({
            "method": method.name, "rule": "audit" if method.serialized else "cohen", "class": c.predict, "radius": c.radius,
            "p_lower": show.round_down(c.p_lower, 4), "NFE select": select, "NFE estimate": estimate, "NFE audit": audit, "NFE": c.nfe,
        })  # fmt: skip
    return pd.DataFrame(rows)


def certificate_table(run: Run, frame: pd.DataFrame, idx: int) -> Shown:
    """The table of `certificates`."""
    caption = f"Test image {idx} certified twice ({run.id}); the class is -1 where nothing can be certified; NFE are evaluations of f on one noisy copy."
    return show.table(run.profile, "quickstart_certificates", frame, caption)


def cost_finding(frame: pd.DataFrame) -> str:
    """How many times fewer evaluations SRS took, what share the audit has, and what both certified."""
    rs, srs = frame.iloc[0], frame.iloc[1]
    return (
        f"{srs['method']} spent {rs['NFE'] / srs['NFE']:.1f} times fewer evaluations than {rs['method']}, {100 * srs['NFE audit'] / srs['NFE']:.0f} % "
        f"of them on the audit; the radii are {show.round_down(srs['radius'])} and {show.round_down(rs['radius'])}."
    )
