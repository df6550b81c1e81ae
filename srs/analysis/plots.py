"""The look of every figure: column width (3.3 in), colour-blind safe, one colour and one line style per method and per rule.

Each function takes a table and returns a matplotlib Figure; the same table gives the same picture.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 3.3  # inches, a column of the paper
MOST_LINES = 6  # in a panel
LEGEND_HANDLE, LEGEND_LETTER = 0.42, 0.046  # inches that a line of a legend takes beside its text, and per letter
SOLID, DASHED, DOTTED, DASHDOT, LONG = "-", (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (6, 2))
COLOURS = seaborn.color_palette("colorblind", 10)
BLACK = (0.0, 0.0, 0.0)
Look = tuple[tuple[float, float, float], object]  # colour, line style

# One look in all figures. Rules and the few words that stand for them; standard RS is black wherever it stands beside rules.
RULE_LOOKS: dict[str, Look] = {
    "cohen": (BLACK, SOLID), "audit": (COLOURS[2], DASHED), "theorem31": (COLOURS[0], DOTTED), "released": (COLOURS[3], DASHDOT),
}  # fmt: skip
# Methods by name without the letter of the solver: standard RS solid, SRS broken, with one colour per number of steps.
METHOD_LOOKS: dict[str, Look] = {
    "MDEQ-1": (COLOURS[0], SOLID), "MDEQ-5": (COLOURS[1], SOLID), "MDEQ-30": (BLACK, SOLID), "MDEQ-14": (BLACK, SOLID),
    "SRS-MDEQ-1N": (COLOURS[4], DOTTED), "SRS-MDEQ-1": (COLOURS[2], DASHED), "SRS-MDEQ-3": (COLOURS[3], DASHDOT),
    "MDEQ-STOP": (COLOURS[7], SOLID), "MDEQ-ANCHOR-2": (COLOURS[5], SOLID), "MDEQ-ANCHOR-3": (COLOURS[6], SOLID),
    "SRS-CENTROID-2": (COLOURS[9], DASHED), "SRS-CALIBRATED-1": (COLOURS[8], DOTTED), "SRS-LEAD-4": (COLOURS[7], DASHDOT),
    "RS": (COLOURS[5], LONG),
}  # fmt: skip
OTHERS = list(itertools.product((SOLID, DASHED, DOTTED, DASHDOT), [COLOURS[i] for i in (0, 1, 2, 3, 4, 5, 9, 7)]))


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


def look(name: str, among: Sequence[str] = ()) -> Look:
    """Colour and line style of a method, a rule, or any other name, which gets its place among all names of the figure."""
    for known in (name, re.sub(r"(?<=\d)[ANB]$", "", name)):
        for looks in (RULE_LOOKS, METHOD_LOOKS):
            if known in looks:
                return looks[known]
    rule = next((rule for rule in RULE_LOOKS if re.search(rf"(^|, ){rule}\b", name)), None)
    if rule:  # "SRS-3A, audit (ours)": lines that differ in the rule
        return RULE_LOOKS[rule]
    line, colour = OTHERS[list(among).index(name) % len(OTHERS) if name in among else 0]
    return colour, DASHED if name.startswith("extrapolated") else line


def sigma_title(sigma: float) -> str:
    """The title of a panel of one noise level."""
    return rf"$\sigma$ = {sigma:.2f}"


def grid(
    frame: pd.DataFrame, *, panel: str, hue: str, draw: Callable[[Axes, Mapping[str, pd.DataFrame]], None], x: str, y: str,
    columns: int = 2, height: float = 1.35, title: Callable[[object], str] = str, shared: bool = True,
) -> Figure:
    """Small multiples: a panel per value of one column, in it what `draw` makes of the rows of each value of another.

    Args:
        frame: the data, one row per mark; categories give the order.
        panel: column whose values are panels.
        hue: column whose values have a look of their own.
        draw: draws a panel, given its axes and the rows by hue.
        x, y: labels of the axes, with units.
        columns: panels side by side.
        height: of a panel in inches.
        title: of a panel, from its value.
        shared: whether all panels have the same limits.

    Raises:
        ValueError: a panel would hold more lines than can be told apart.
    """
    panels = {value: rows for value, rows in frame.groupby(panel, observed=True, sort=_is_ordered(frame[panel]))}
    columns = min(columns, len(panels))
    rows_of_panels = -(-len(panels) // columns)
    with style():
        fig = Figure(figsize=(WIDTH, max(2.1, height * rows_of_panels + 0.6)), layout="constrained")
        axes = fig.subplots(rows_of_panels, columns, sharex=shared, sharey=shared, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (value, rows)) in enumerate(zip(axes, panels.items())):
            lines = {str(name): own for name, own in rows.groupby(hue, observed=True, sort=_is_ordered(rows[hue]))}
            if len(lines) > MOST_LINES:
                raise ValueError(f"a panel of {len(lines)} lines is refused: want at most {MOST_LINES}; split {', '.join(lines)}")
            draw(ax, lines)
            ax.set_title(title(value))
            if i >= len(panels) - columns:
                ax.set_xlabel(x)
                ax.tick_params(labelbottom=True)
            if i % columns == 0:
                ax.set_ylabel(y)
        legend_below(fig, 3)
    return fig


def _is_ordered(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(column)


def legend_below(fig: Figure, columns: int) -> None:
    """One legend for all panels, in as many columns at most as fit the width of the figure.

    A Figure has no pyplot state, so handles come from all panels, each name once, and widths are in inches as seen.
    """
    found = {}
    for ax in fig.axes:
        found |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels()) if label not in found}
    if found:
        wide = LEGEND_HANDLE + LEGEND_LETTER * max(map(len, found))
        columns = max(1, min(columns, int(fig.get_figwidth() / wide)))
        fig.legend(found.values(), found, loc="outside lower center", ncols=columns)


def accuracy_curves(certified: pd.DataFrame, *, hue: str, panel: str = "sigma", title: Callable = sigma_title) -> Figure:
    """Certified accuracy against radius: the share of images classified rightly with a radius of at least r.

    It is the complementary distribution function of the radius, where a wrong image or an abstention has none.

    Args:
        certified: rows of `measures.certificates`.
        hue: column with the names of the lines.
        panel: column with the panels.
        title: of a panel.
    """
    def draw(ax: Axes, lines: Mapping[str, pd.DataFrame]) -> None:
        for name, own in lines.items():
            radius = np.sort(own.loc[own["correct"], "radius"].to_numpy())
            share = 100 * np.arange(len(radius), 0, -1) / len(own)
            x, top = np.append(0.0, radius), share[:1].sum()  # falls just after each image's radius
            colour, line = look(name, list(lines))
            ax.step(np.append(x, x[-1]), [top, *share, 0.0], where="pre", label=name, color=colour, linestyle=line)

    fig = grid(certified, panel=panel, hue=hue, draw=draw, x=r"$\ell_2$ radius ([0, 1] pixels)", y="certified accuracy (%)", title=title)
    furthest = certified.loc[certified["correct"], "radius"].max()
    for ax in fig.axes:
        ax.set(ylim=(0, 102), xlim=(0, 1.05 * furthest if furthest > 0 else 1))
    return fig


def lines(frame: pd.DataFrame, *, x: str, y: str, hue: str, panel: str, labels: tuple[str, str], log: str = "x") -> Figure:
    """A quantity against a setting: a line with points per value of `hue`, a panel per value of `panel`.

    Args:
        frame: one row per point.
        x, y: columns.
        hue, panel: columns that name lines and panels.
        labels: of both axes, with units.
        log: axes with a logarithmic scale: "x", "y", "xy" or "".
    """
    def draw(ax: Axes, named: Mapping[str, pd.DataFrame]) -> None:
        for name, own in named.items():
            colour, line = look(name, list(named))
            ax.plot(own[x], own[y], label=name, color=colour, linestyle=line, marker="o", markersize=2.5)
        if "x" in log:
            ax.set_xscale("log")
        if "y" in log:
            ax.set_yscale("log")

    fig = grid(frame, panel=panel, hue=hue, draw=draw, x=labels[0], y=labels[1])
    if "y" not in log:
        fig.axes[0].set_ylim(bottom=0)  # after all have drawn: they share the axis
    return fig


def histograms(
    frame: pd.DataFrame, *, value: str, bins: int, label: str, hue: str = "method", panel: str = "sigma", low: float = 0.0,
    high: float | None = None, title: Callable = sigma_title,
) -> Figure:
    """How a per-image quantity is distributed: a panel per noise level, a bar per method and bin, in percent of its images.

    Args:
        frame: one row per image; nan is no value.
        value: column of the quantity.
        bins: number of equal bins, shared by all panels.
        label: name of the quantity, with its unit.
        hue, panel: columns that name bars and panels.
        low: lower end of the range, extended where values lie below.
        high: upper end, the largest value if None; a panel says how many values lie above it.
        title: of a panel.
    """
    frame = frame.dropna(subset=[value])
    values = frame[value].to_numpy()
    low, top = min(low, values.min(initial=low)), values.max(initial=low) if high is None else high
    edges = np.linspace(low, top if top > low else low + 1.0, bins + 1)

    def draw(ax: Axes, named: Mapping[str, pd.DataFrame]) -> None:
        step = edges[1] - edges[0]
        beyond = []
        for i, (name, own) in enumerate(named.items()):
            share = 100 * np.histogram(own[value], edges)[0] / len(own)
            left = edges[:-1] + step * (0.05 + 0.9 * i / len(named))
            ax.bar(left, share, 0.9 * step / len(named), align="edge", label=name, color=look(name, list(named))[0], linewidth=0)
            above = int((own[value] > edges[-1]).sum())
            beyond += [f"{name}: {above}"] if above else []
        if beyond:
            text = "\n".join([f"images above {edges[-1]:g}", *beyond])
            ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=5)

    fig = grid(frame, panel=panel, hue=hue, draw=draw, x=label, y="images (%)", columns=1, height=0.95, title=title)
    fig.axes[0].set_xlim(edges[0], edges[-1])
    return fig


def in_sixes(names: Iterable[str]) -> list[list[str]]:
    """The names in groups that a panel can show."""
    names = list(names)
    return [names[i : i + MOST_LINES] for i in range(0, len(names), MOST_LINES)]
