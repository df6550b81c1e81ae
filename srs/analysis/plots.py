"""The look of every figure: column width (3.3 in), colour-blind safe, one colour and one line style per method and per rule."""

import itertools
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from srs.smoothing import bounds

WIDTH = 3.3  # inches, a column of the paper
FEW = 100  # images: a curve of standard RS over fewer has its 95 % interval drawn
LEGEND_HANDLE, LEGEND_LETTER = 0.42, 0.046  # inches that a line of a legend takes beside its text, and per letter
RADIUS = r"$\ell_2$ radius ([0, 1] pixels)"
SOLID, DASHED, DOTTED, DASHDOT, LONG = "-", (0, (3, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (6, 2))
COLOURS = seaborn.color_palette("colorblind", 10)
BLACK, OLIVE, INDIGO, WINE = (0.0, 0.0, 0.0), (0.55, 0.5, 0.0), (0.3, 0.2, 0.55), (0.53, 0.13, 0.33)
Look = tuple[tuple[float, float, float], object]  # colour, line style

# One look in all figures: rules; then methods by name without the letter of the solver, standard RS solid, SRS broken.
LOOKS: dict[str, Look] = {
    "cohen": (BLACK, SOLID), "audit": (COLOURS[2], DASHED), "theorem31": (COLOURS[0], DOTTED),
    "released": (COLOURS[3], DASHDOT),
    "MDEQ-1": (COLOURS[0], SOLID), "MDEQ-5": (COLOURS[1], SOLID), "MDEQ-30": (BLACK, SOLID), "MDEQ-14": (BLACK, SOLID),
    "SRS-MDEQ-1N": (COLOURS[4], DOTTED), "SRS-MDEQ-1": (COLOURS[2], DASHED), "SRS-MDEQ-3": (COLOURS[3], DASHDOT),
    "RS-tol": (COLOURS[7], SOLID), "RS-mean-2": (COLOURS[5], SOLID), "RS-mean-3": (COLOURS[6], SOLID),
    "SRS-pilot-2": (COLOURS[9], DASHED), "SRS-corrected-1": (OLIVE, DOTTED), "SRS-margin-4": (INDIGO, DASHDOT),
    "RS": (COLOURS[5], LONG), "RS-mean-1": (WINE, SOLID), "RS-mean-1N-bf16": (WINE, LONG),
}  # fmt: skip
sigma_title = r"$\sigma$ = {:.2f}".format  # of a panel of one noise level
OTHERS = list(itertools.product((SOLID, DASHED, DOTTED, DASHDOT), [COLOURS[i] for i in (0, 1, 2, 3, 4, 5, 9, 7)]))


def style():
    """The one look of all figures, as a context manager: to draw in and to save in."""
    sizes = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 7)
    sizes |= dict.fromkeys(("legend.fontsize", "legend.title_fontsize", "xtick.labelsize", "ytick.labelsize"), 6)
    widths = dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6) | {"lines.linewidth": 1.0}
    return matplotlib.rc_context(seaborn.axes_style("ticks") | sizes | widths | {
        "xtick.major.size": 2, "ytick.major.size": 2, "axes.grid": True, "grid.linewidth": 0.3, "grid.color": "0.85",
        "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 150,
        "pdf.fonttype": 42,  # TrueType, so that text in the PDF can be searched
    })  # fmt: skip


def look(name: str, among: Sequence[str] = ()) -> Look:
    """Colour and line style of a method, a rule, or any other name, which gets its place among all names of the figure."""
    rules = re.findall(r"(?:^|, )(cohen|audit|theorem31|released)\b", name)  # as in "SRS-3A, audit (ours)"
    for known in (name, re.sub(r"(?<=\d)[ANB]$", "", name), *rules):
        if known in LOOKS:
            return LOOKS[known]
    line, colour = OTHERS[list(among).index(name) % len(OTHERS) if name in among else 0]
    return colour, line


def grid(
    frame: pd.DataFrame, *, panel: str, hue: str, draw: Callable, x: str, y: str, columns: int = 2, height: float = 1.35,
    title: Callable[[object], str] = str, shared: str = "xy",
) -> Figure:
    """Small multiples: a panel per value of a column, in it what draw(ax, rows, look, place) makes of each `hue`."""
    panels = _groups(frame, panel)
    columns = min(columns, len(panels))
    high = -(-len(panels) // columns)
    with style():
        fig, legend = Figure(figsize=(WIDTH, max(2.1, height * high + 0.6)), layout="constrained"), {}
        axes = fig.subplots(high, columns, sharex="x" in shared, sharey="y" in shared, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (value, rows)) in enumerate(zip(axes, panels.items())):
            named = _groups(rows, hue)
            for place, (name, own) in enumerate(named.items()):
                colour, line = look(name, list(named))
                draw(ax, own, {"label": name, "color": colour, "linestyle": line}, (place, len(named)))
            ax.set_title(title(value))
            ax.tick_params(labelbottom=i >= len(panels) - columns or "x" not in shared)
            for handle, label in zip(*ax.get_legend_handles_labels()):
                legend.setdefault(label, handle)
        fig.supxlabel(x, fontsize=7)
        fig.supylabel(y, fontsize=7)
        if legend:  # each name once, in as many columns as fit the width
            fit = int(WIDTH / (LEGEND_HANDLE + LEGEND_LETTER * max(map(len, legend))))
            fig.legend(legend.values(), legend, loc="outside upper center", ncols=max(1, min(3, fit)))
    return fig


def _groups(frame: pd.DataFrame, by: str) -> dict:
    """The rows of each value, in the order of categories or numbers, else of first appearance."""
    ordered = isinstance(frame[by].dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(frame[by])
    return dict(list(frame.groupby(by, observed=True, sort=ordered)))


def accuracy_curves(certified: pd.DataFrame, *, hue: str, panel: str = "sigma", title: Callable = sigma_title) -> Figure:
    """Certified accuracy against radius; a grey band is the 95 % Clopper-Pearson interval of a black line of few images."""
    def draw(ax: Axes, own: pd.DataFrame, style: dict, _: tuple[int, int]) -> None:
        radius = np.sort(own["radius"].where(own["correct"], -1.0))
        ax.ecdf(radius, complementary=True, **style)
        if style["color"] == BLACK and len(own) < FEW:
            ends = bounds.proportion_interval(np.arange(len(own), 0, -1), len(own), 0.95)
            ax.fill_between(radius, *ends, step="pre", color="0.5", alpha=0.15, linewidth=0)
        ax.set_xlim(0, max(ax.dataLim.xmax * 1.05, 1e-3))
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))

    fig = grid(certified, panel=panel, hue=hue, draw=draw, x=RADIUS, y="certified accuracy (%)", title=title, shared="y")
    fig.axes[0].set_ylim(0, 1.02)
    return fig


def histograms(frame: pd.DataFrame, *, value: str, bins: int, label: str, high: float | None = None) -> Figure:
    """How a per-image quantity is distributed, per noise level and method; the last bin holds what lies above `high`, too."""
    edges = np.histogram_bin_edges([], bins, (min(0.0, frame[value].min()), frame[value].max() if high is None else high))
    images = frame.groupby(["sigma", "method"], observed=True).size().groupby("sigma", observed=True).max()

    def draw(ax: Axes, own: pd.DataFrame, style: dict, at: tuple[int, int]) -> None:
        share, width = 100 * np.histogram(own[value].clip(upper=edges[-1]), edges)[0] / len(own), np.diff(edges) / (at[1] + 1)
        ax.bar(edges[:-1] + width * (at[0] + 1), share, width, color=style["color"], label=style["label"], linewidth=0)

    look = {"columns": 1, "height": 0.95, "title": lambda sigma: f"{sigma_title(sigma)}, {images[sigma]} images"}
    fig = grid(frame, panel="sigma", hue="method", draw=draw, x=label, y="images (%)", **look)
    fig.axes[0].set_xlim(edges[0], edges[-1])
    return fig
