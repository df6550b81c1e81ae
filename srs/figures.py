"""Every figure, from stored tallies only: column width (3.3 in), colour-blind safe, the same bytes every time."""

import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs import bounds, metrics, paths, shown, tables
from srs.bounds import Rule
from srs.config import Method, Profile, Run
from srs.shipped import Tallies, certified
from srs.tables import ACCURACY_NOTEBOOK, CONSISTENCY_NOTEBOOK, RULE_LABELS, SRS_RULES

WIDTH = 3.3  # inches, a column of the paper
RRD_BINS = {"LARGE": 20}  # as in the paper's figures; 10 for every other size
BINS = 10
LEGEND_HANDLE, LEGEND_LETTER = 0.42, 0.046  # inches that a line of a legend takes beside its text, and per letter

SOLID = "-"
BROKEN = ((0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))  # SRS: curves tell apart without colour too

Curve = tuple[np.ndarray, np.ndarray]  # (correct, radius) of every image


def style():
    """The one look of all figures, as a context manager: to draw in and to save in."""
    return matplotlib.rc_context({
        **seaborn.axes_style("ticks"),
        "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7, "legend.fontsize": 6, "legend.title_fontsize": 6,
        "xtick.labelsize": 6, "ytick.labelsize": 6, "xtick.major.size": 2, "ytick.major.size": 2,
        "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.0,
        "axes.grid": True, "grid.linewidth": 0.3, "grid.color": "0.85", "axes.axisbelow": True,
        "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 200,
        "pdf.fonttype": 42,  # TrueType, so that text in the PDF can be searched
    })  # fmt: skip


def save(fig: Figure, stem: Path, *, caption: str, made_by: str) -> None:
    """Write a figure as PDF and PNG with its sidecar, without dates or versions in the files.

    Args:
        fig: the figure.
        stem: path without an ending, see `paths.shown`.
        caption: plain text.
        made_by: name of the notebook.
    """
    silent = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    with style():
        fig.get_layout_engine().execute(fig)
        fig.set_layout_engine("none")  # the layout is found: it takes longer than the drawing, so not once per file
        for kind, metadata in silent.items():
            content = io.BytesIO()
            fig.savefig(content, format=kind, metadata=metadata)
            shown.write_whole(shown.beside(stem, f".{kind}"), content.getvalue())
    shown.describe(stem, shown.About("figure", shown.marked(stem, caption), made_by))


def colours(names) -> dict[str, tuple]:
    """A colour-blind safe colour for each name, in their order."""
    return dict(zip(names, seaborn.color_palette("colorblind", len(names))))


def legend_below(fig: Figure, columns: int) -> None:
    """One legend for all panels, in as many columns at most as fit the width of the figure.

    A Figure has no pyplot state, so handles come from the panel that has most of them, and widths are in inches as seen.
    """
    handles, labels = max((ax.get_legend_handles_labels() for ax in fig.axes), key=lambda both: len(both[1]))
    if handles:
        wide = LEGEND_HANDLE + LEGEND_LETTER * max(map(len, labels))
        columns = max(1, min(columns, int(fig.get_figwidth() / wide)))
        fig.legend(handles, labels, loc="outside lower center", ncols=columns)


# ------------------------------------------------------------------------------------------------ curves


def _steps(correct: np.ndarray, radius: np.ndarray) -> Curve:
    """The exact curve of certified accuracy in percent: it falls just after each image's radius."""
    x = np.concatenate([[0.0], np.sort(radius[correct])])
    y = 100 * metrics.certified_accuracy(correct, radius, x)
    return np.append(x, x[-1]), np.append(y, 0.0)


def accuracy_curves(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Certified accuracy against radius.

    Args:
        panels: per panel title, the (correct, radius) arrays of every legend entry; an entry that starts with "SRS"
            or "extrapolated" is drawn broken.

    Returns:
        The figure, two panels a row.
    """
    rows = -(-len(panels) // 2)
    with style():
        fig = Figure(figsize=(WIDTH, max(2.4, 1.35 * rows + 0.6)), layout="constrained")
        axes = fig.subplots(rows, min(2, len(panels)), sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (title, curves)) in enumerate(zip(axes, panels.items())):
            palette = colours(curves)
            broken = itertools.cycle(BROKEN)
            for label, (correct, radius) in curves.items():
                line = next(broken) if label.startswith(("SRS", "extrapolated")) else SOLID
                ax.step(*_steps(correct, radius), where="pre", label=label, color=palette[label], linestyle=line)
            ax.set(title=title, ylim=(0, 102), xlim=(0, None))
            if i >= len(panels) - 2:
                ax.set_xlabel(r"$\ell_2$ radius ([0, 1] pixels)")
            if i % 2 == 0:
                ax.set_ylabel("certified accuracy (%)")
        legend_below(fig, 3 if max(map(len, panels.values())) > 4 else 2)
    return fig


# ------------------------------------------------------------------------------------------------ histograms


def limits(values: np.ndarray, low: float, high: float | None) -> tuple[float, float]:
    """The range of a histogram: [low, high], or to the largest value (1 if none lies above `low`) without `high`.

    It is wider where values lie below `low`. Values above `high` are counted beside the bars: a few far out would
    otherwise press all others into one bin.
    """
    low, top = values.min(initial=low), values.max(initial=low) if high is None else high
    return float(low), float(top if top > low else 1.0)


def histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    bins: int,
    label: str,
    low: float = 0.0,
    high: float | None = None,
) -> Figure:
    """How a per-image quantity is distributed: a panel per noise level, a bar per method and bin.

    Args:
        panels: per panel title, the values of every legend entry; nan is no value.
        bins: number of equal bins, shared by all panels.
        label: name of the quantity, with its unit.
        low: lower end of the range, extended where values lie below.
        high: upper end, the largest value if None; a panel says how many values lie above it.

    Returns:
        The figure, panels one above the other.
    """
    panels = {title: {name: v[~np.isnan(v)] for name, v in panel.items()} for title, panel in panels.items()}
    values = np.concatenate([v for panel in panels.values() for v in panel.values()])
    edges = np.linspace(*limits(values, low, high), bins + 1)
    with style():
        fig = Figure(figsize=(WIDTH, max(2.1, 0.95 * len(panels) + 0.6)), layout="constrained")
        axes = fig.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (title, panel) in zip(axes, panels.items()):
            _bars(ax, panel, edges)
            ax.set_title(title)
        axes[-1].set(xlabel=label, xlim=(edges[0], edges[-1]))
        fig.supylabel("share of images (%)", fontsize=7)
        legend_below(fig, 3)
    return fig


def _bars(ax: Axes, panel: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    """Grouped bars in percent of each method's images."""
    width = (edges[1] - edges[0]) * 0.9 / len(panel)
    palette = colours(panel)
    for i, (name, values) in enumerate(panel.items()):
        share = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        left = edges[:-1] + 0.05 * (edges[1] - edges[0]) + i * width
        ax.bar(left, share, width, align="edge", label=name, color=palette[name], linewidth=0)
    beyond = {name: int((v > edges[-1]).sum()) for name, v in panel.items()}
    if any(beyond.values()):
        told = "\n".join(f"{name}: {count}" for name, count in beyond.items() if count)
        text = f"images above {edges[-1]:g}\n{told}"
        ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=5)
    if not any(v.size for v in panel.values()):
        ax.text(0.5, 0.5, "no image", transform=ax.transAxes, ha="center", va="center")


# ------------------------------------------------------------------------------------------------ figures of a profile


def runs_by_family(profile: Profile, tallies: Tallies) -> dict[str, list[Run]]:
    """The certified runs of each figure: one model size and recipe, every sigma."""
    families: dict[str, list[Run]] = {}
    for run in certified(profile, tallies):
        recipe = "" if run.train.recipe == "paper" else f"_{run.train.recipe}"
        families.setdefault(run.model.name + recipe, []).append(run)
    return families


def panel_title(run: Run) -> str:
    """The title of a run's panel: its noise level."""
    return rf"$\sigma$ = {run.sigma:.2f}"


def images_of(runs: list[Run]) -> str:
    """How many images were certified, per noise level where that differs."""
    sigmas: dict[int, list[str]] = {}
    for run in runs:
        sigmas.setdefault(run.profile.images, []).append(f"{run.sigma:g}")
    if len(sigmas) == 1:
        return f"{runs[0].profile.images} images"
    return " and ".join(f"{images} images at sigma {', '.join(which)}" for images, which in sigmas.items())


def _curve(run: Run, method: Method, tallies: Tallies, rule: Rule) -> Curve:
    certificates = tables.certify(run, method, tallies, rule)
    return metrics.correct(certificates, tallies[run.id, method.name]["label"]), certificates.radius


def _method_curves(run: Run, tallies: Tallies) -> dict[str, Curve]:
    """Every method under the rule that holds for it."""
    return {m.name: _curve(run, m, tallies, bounds.rules_for(m.serialized)[0]) for m in run.profile.methods}


def _rule_curves(run: Run, tallies: Tallies) -> dict[str, Curve]:
    """The paper's best SRS method under every rule, beside standard RS."""
    standard, srs = run.profile.method(run.profile.reference), tables.best_of_the_paper(run.profile)
    curves = {f"{standard.name}, cohen": _curve(run, standard, tallies, Rule.COHEN)}
    short = srs.name.replace("-MDEQ", "")
    return curves | {f"{short}, {RULE_LABELS[rule]}": _curve(run, srs, tallies, rule) for rule in SRS_RULES}


def make_curves(profile: Profile, tallies: Tallies) -> dict[str, Figure]:
    """Draw and save the curves of certified accuracy of every model size: all methods, and all rules."""
    made = {}
    for family, runs in runs_by_family(profile, tallies).items():
        where = f"MDEQ-{family} on {profile.data.name}, {images_of(runs)}, N = {profile.n}"
        made[f"curves_{family}"] = (
            accuracy_curves({panel_title(run): _method_curves(run, tallies) for run in runs}),
            f"Certified accuracy against l2 radius, a panel per noise level ({where}). Solid: standard RS under the "
            "rule 'cohen'; broken lines: SRS under the rule 'audit'.",
        )
        if tables.serialized(profile):
            made[f"curves_rules_{family}"] = (
                accuracy_curves({panel_title(run): _rule_curves(run, tallies) for run in runs}),
                f"What the certification rule makes of the same SRS votes ({where}). The curve 'released (unsound)' is "
                "what the authors' code computes; its certificates do not hold.",
            )
    return _save_all(profile, made, ACCURACY_NOTEBOOK)


def make_histograms(profile: Profile, tallies: Tallies) -> dict[str, Figure]:
    """Draw and save the histograms of RRD, p_m and gap of every model size."""
    made = {}
    if tables.serialized(profile):
        for family, runs in runs_by_family(profile, tallies).items():
            where = f"MDEQ-{family} on {profile.data.name}, a panel per noise level"
            made |= _rrd_histograms(family, runs, tallies, where)
            made |= _p_m_histograms(family, runs, tallies, where)
    return _save_all(profile, made, CONSISTENCY_NOTEBOOK)


def _per_method(runs: list[Run], quantity: Callable[[Run, Method], np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """A quantity of every SRS method, a panel per run."""
    return {panel_title(run): {m.name: quantity(run, m) for m in tables.serialized(run.profile)} for run in runs}


def _rrd_histograms(family: str, runs: list[Run], tallies: Tallies, where: str) -> dict[str, tuple[Figure, str]]:
    bins, reference, made = RRD_BINS.get(runs[0].model.name, BINS), runs[0].profile.reference, {}
    for rule in SRS_RULES:
        panels = _per_method(runs, lambda run, method: tables.rrd(run, method, tallies, rule))
        caption = (
            f"Relative radius difference between SRS under '{RULE_LABELS[rule]}' and {reference}, over the images that "
            f"{reference} certifies ({where}; {bins} bins). At 1 SRS abstains or certifies another class; "
            "above 1, where images are only counted, its radius is more than twice the standard one."
        )
        label = rf"RRD $|r_{{RS}} - r_{{SRS}}| / r_{{RS}}$ under {RULE_LABELS[rule]}"
        suffix = "" if rule is Rule.AUDIT else f"_{rule}"
        made[f"rrd_hist_{family}{suffix}"] = (histograms(panels, bins=bins, low=0, high=1, label=label), caption)
    return made


def _p_m_histograms(family: str, runs: list[Run], tallies: Tallies, where: str) -> dict[str, tuple[Figure, str]]:
    profile = runs[0].profile
    p_m = _per_method(runs, lambda run, method: metrics.p_m(tallies[run.id, method.name]))
    gap = _per_method(runs, lambda run, method: metrics.gap(tallies[run.id, method.name], profile.alpha))
    p_m_caption = (
        f"Share of each image's SRS votes for c_A that {profile.reference} does not give on the same noise ({where}; "
        f"{BINS} bins)."
    )
    gap_caption = (
        f"How far Theorem 3.1's bound on p_m lies above the p_m measured on all votes, per image ({where}; {BINS} "
        f"bins). Left of 0 the bound failed, which it may with probability {profile.alpha / 2:g}."
    )
    gap_label = r"gap $\overline{p_m} - p_m$ (share of the votes for $c_A$)"
    return {
        f"p_m_hist_{family}": (histograms(p_m, bins=BINS, label=r"$p_m$ (share of the votes for $c_A$)"), p_m_caption),
        f"gap_hist_{family}": (histograms(gap, bins=BINS, label=gap_label), gap_caption),
    }


def _save_all(profile: Profile, made: dict[str, tuple[Figure, str]], made_by: str) -> dict[str, Figure]:
    for name, (fig, caption) in made.items():
        save(fig, paths.shown(profile, name), caption=caption, made_by=made_by)
    return {name: fig for name, (fig, _) in made.items()}


def make_figures(profile: Profile) -> dict[str, Figure]:
    """Draw and save every figure of a profile; returns them by name."""
    tallies = tables.load(profile)
    return make_curves(profile, tallies) | make_histograms(profile, tallies)


if __name__ == "__main__":
    for name in make_figures(shown.profile_argument("python -m srs.figures", "Make every figure of a profile.")):
        print(name)
