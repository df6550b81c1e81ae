"""Figures about soundness, drawn from what `soundness_report` measures. Nothing is computed here."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs.bounds import Rule
from srs.figures import BROKEN, SOLID, WIDTH, legend_below, style
from srs.soundness import Cap, FailureRate
from srs.tables import RULE_LABELS

# Rules are told apart by colour, marker and line, the same in every figure.
RULES = (Rule.COHEN, Rule.THEOREM31, Rule.AUDIT, Rule.RELEASED)
COLOURS = dict(zip(RULES, seaborn.color_palette("colorblind", len(RULES))))
MARKERS = dict(zip(RULES, "o^sx"))
LINES = dict(zip(RULES, (SOLID, *BROKEN)))
Curve = tuple[np.ndarray, np.ndarray]  # x and y

FLOOR = 2e-5  # where a failure rate of zero is drawn on the logarithmic axis


def errors_of(row: FailureRate) -> str:
    """What the surrogate gets wrong, in a few words."""
    under = f", -{100 * row.under:.0f}%" if row.under else ""
    return f"+{100 * row.over:.0f}%{under}"


def _grid(panels: int, columns: int, height: float, shared: bool = True) -> tuple[Figure, np.ndarray]:
    rows = -(-panels // columns)
    fig = Figure(figsize=(WIDTH, height * rows + 0.6), layout="constrained")
    axes = fig.subplots(rows, min(columns, panels), sharex=shared, sharey=shared, squeeze=False)
    for ax in axes.ravel()[panels:]:
        ax.set_axis_off()
    return fig, axes


def _edge_labels(axes: np.ndarray, x: str, y: str) -> None:
    """Label the outer axes only."""
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax in axes[:, 0]:
        ax.set_ylabel(y)


def failure_rates(rows: Sequence[FailureRate]) -> Figure:
    """Measured failure rate per rule with 99 % limits beside the promised alpha; a panel per problem and surrogate."""
    panels: dict[str, list[FailureRate]] = {}
    for row in rows:
        panels.setdefault(f"{row.problem}, {errors_of(row)}", []).append(row)
    alphas = sorted({row.alpha for row in rows}, reverse=True)
    with style():
        fig, axes = _grid(len(panels), 2, 1.3)
        for ax, (title, own) in zip(axes.ravel(), panels.items()):
            for i, alpha in enumerate(alphas):
                label = "promised" if i == 0 else None
                ax.hlines(alpha, i - 0.42, i + 0.42, color="0.35", linewidth=0.8, linestyle="--", label=label)
            for j, rule in enumerate(RULES):
                _rates(ax, [row for row in own if row.rule == rule], alphas, (j - 1.5) * 0.2, rule)
            ax.set(title=title, yscale="log", ylim=(FLOOR / 1.6, 2))
            ax.set_xticks(range(len(alphas)), [f"{a:g}" for a in alphas])
        _edge_labels(axes, "promised alpha", "failure rate")
        legend_below(fig, 3)
    return fig


def _rates(ax: Axes, rows: Sequence[FailureRate], alphas: Sequence[float], shift: float, rule: Rule) -> None:
    x = np.array([alphas.index(row.alpha) for row in rows]) + shift
    rate, low, high = (np.maximum([getattr(row, name) for row in rows], FLOOR) for name in ("rate", "lower", "upper"))
    ax.errorbar(
        x, rate, [rate - low, high - rate], fmt=MARKERS[rule], color=COLOURS[rule], markersize=3, linewidth=0.7,
        capsize=1.5, label=RULE_LABELS[rule],
    )  # fmt: skip


def caps(rows: Sequence[Cap]) -> Figure:
    """The largest radius a rule can certify, in units of sigma, against K; a panel per N."""
    ns = sorted({row.n for row in rows})
    with style():
        fig, axes = _grid(len(ns), 3, 1.7)
        for ax, n in zip(axes.ravel(), ns):
            for rule in RULES:
                own = [row for row in rows if row.n == n and row.rule == rule]
                radii = [row.radius / row.sigma for row in own]
                look = {"label": RULE_LABELS[rule], "color": COLOURS[rule], "linestyle": LINES[rule]}
                ax.plot([row.audit_k for row in own], radii, **look)
            ax.set(title=f"N = {n:,}", xscale="log")
        ax.set_ylim(0, None)
        axes[0, 0].set_ylabel(r"largest radius / $\sigma$")
        axes[0, len(ns) // 2].set_xlabel("audited samples K")  # once: the panels are narrow
        legend_below(fig, 2)
    return fig


def rules_by_image(panels: Mapping[str, tuple[np.ndarray, Mapping[Rule, np.ndarray]]]) -> Figure:
    """An image's radius under each rule on its SRS votes against its radius under plain RS.

    Args:
        panels: per title, the radii of RS and those of SRS under each rule, image by image; 0 where it abstains.
    """
    with style():
        fig, axes = _grid(len(panels), 2, 1.45, shared=False)  # radii scale with sigma
        for ax, (title, (standard, by_rule)) in zip(axes.ravel(), panels.items()):
            _scatter(ax, standard, by_rule)
            ax.set_title(title)
        _edge_labels(axes, "radius of RS, cohen", "radius of SRS")
        legend_below(fig, 3)
    return fig


def _scatter(ax: Axes, standard: np.ndarray, by_rule: Mapping[Rule, np.ndarray]) -> None:
    top = 1.05 * max(standard.max(initial=0), *(r.max(initial=0) for r in by_rule.values()), 1e-3)
    ax.plot([0, top], [0, top], color="0.6", linewidth=0.6)
    for rule, radii in by_rule.items():
        look = {"s": 7, "marker": MARKERS[rule], "color": COLOURS[rule], "linewidths": 0.6}
        ax.scatter(standard, radii, label=RULE_LABELS[rule], clip_on=False, **look)
    ax.set(xlim=(0, top), ylim=(0, top))


def audit_size(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Mean radius against the evaluations of f that an image costs.

    Args:
        panels: per title, per method its (NFE, mean radius); the first one is plain RS with fewer samples.
    """
    with style():
        fig, axes = _grid(len(panels), 2, 1.35, shared=False)
        for ax, (title, curves) in zip(axes.ravel(), panels.items()):
            colours = seaborn.color_palette("colorblind", len(curves))
            for i, (label, (nfe, radius)) in enumerate(curves.items()):
                line, marker = (SOLID, None) if i == 0 else (BROKEN[(i - 1) % len(BROKEN)], "o")
                ax.plot(nfe, radius, color=colours[i], linestyle=line, marker=marker, markersize=1.8, label=label)
            ax.set(title=title, xscale="log", ylim=(0, None))
        _edge_labels(axes, "NFE per image", "mean radius")
        legend_below(fig, 2)
    return fig
