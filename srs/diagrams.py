"""The paper's two diagrams, drawn by code: standard DEQ smoothing beside SRS, and how votes become a radius.

Lengths are in hundredths of an inch, so that what is drawn and its text keep their proportions at column width.
"""

import math
from dataclasses import dataclass

import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from srs import figures, shown, tables
from srs.settings import Profile
from srs.smoothing import bounds
from srs.smoothing.bounds import Counts, Rule
from srs.store.sealed import paths

NOTEBOOK = "05_method"
INK, GREY = "0.15", "0.45"
BLUE, ORANGE, GREEN = (seaborn.color_palette("colorblind")[i] for i in (0, 1, 2))
BOX = 17  # height of a box
LINE = dict(color=INK, linewidth=0.7)


@dataclass(frozen=True)
class Example:
    """The numbers that the second diagram is drawn with: its bars have the true proportions."""

    n: int = 10_000
    n_a: int = 8_000
    k: int = 400
    n_2: int = 320
    n_1: int = 304
    sigma: float = 0.5
    alpha: float = 0.001

    @property
    def p_m_upper(self) -> float:
        """Theorem 3.1's bound on the share of votes for c_A that the standard DEQ would not give."""
        return 1 - float(bounds.lower_confidence_bound(self.n_1, self.n_2, self.alpha / 2))

    @property
    def certificate(self) -> tuple[float, float]:
        """(p_A_lower, radius) by Theorem 3.1."""
        counts = Counts(n=self.n, n_a=self.n_a, n_2=self.n_2, n_1=self.n_1)
        p_lower, radius = bounds.certify(Rule.THEOREM31, counts, self.sigma, self.alpha)
        return float(p_lower), float(radius)


# ------------------------------------------------------------------------------------------------ pieces


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of column width whose data units are hundredths of an inch, y upwards."""
    fig = Figure(figsize=(figures.WIDTH, height / 100), layout="constrained")
    fig.get_layout_engine().set(w_pad=0, h_pad=0, wspace=0, hspace=0)
    ax = fig.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 100 * figures.WIDTH), ylim=(0, height))
    return fig, ax


def _text(ax: Axes, x: float, y: float, text: str, **look) -> None:
    ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 6.5, "color": INK} | look)


def _box(ax: Axes, x: float, y: float, width: float, text: str, fill="white", height: float = BOX) -> None:
    """A rounded box with its middle left edge at (x, y)."""
    ax.add_patch(FancyBboxPatch(
        (x, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=3", facecolor=fill, edgecolor=INK,
        linewidth=0.6,
    ))  # fmt: skip
    _text(ax, x + width / 2, y - 0.5, text)


def _arrow(ax: Axes, *points: tuple[float, float], **look) -> None:
    """A line through the points that ends in an arrow head."""
    look = LINE | look
    if len(points) > 2:
        ax.plot(*zip(*points[:-1]), solid_joinstyle="round", solid_capstyle="butt", **look)
    head = {"arrowstyle": "-|>,head_width=0.18,head_length=0.32", "shrinkA": 0, "shrinkB": 0, "fc": look["color"]}
    ax.annotate("", points[-1], points[-2], arrowprops=head | look)


def _light(colour, share: float = 0.25) -> tuple:
    """A colour mixed with white, for fills under dark text."""
    return tuple(1 - share * (1 - c) for c in colour)


# ------------------------------------------------------------------------------------------------ standard and SRS

BAND, START, FIRST, STEP, VOTE = 22, 66, 80, 20, 240  # height of a row; where its parts begin


def _node(ax: Axes, x: float, y: float, text: str, fill="white") -> None:
    _box(ax, x - 8, y, 16, text, fill, height=14)


def _row(
    ax: Axes, y: float, copy: str, start: str, drawn: str, end: str, *, warm: bool = False, shadows: int = 0
) -> float:
    """One noisy copy solved from a start to a vote; `drawn` is a line of "f" and "."; returns where its end stands."""
    for i in range(shadows, -1, -1):
        shade = "white" if i else _light(BLUE, 0.12)
        corner = (2 + 2.5 * i, y - BAND / 2 + 2.5 * i)
        ax.add_patch(Rectangle(corner, VOTE - 14, BAND, facecolor=shade, edgecolor="0.7", linewidth=0.5))
    _text(ax, 29, y, copy)
    _node(ax, START, y, start, _light(ORANGE, 0.5) if warm else "white")
    x = START + 8
    for i, kind in enumerate(drawn):
        left = FIRST + i * STEP
        if kind == ".":
            _text(ax, left + 4, y, r"$\cdots$")
        else:
            _arrow(ax, (x, y), (left, y))
            _box(ax, left, y, 14, "$f$", _light(GREEN), height=14)
        x = left + 14
    solution = x + 14
    _arrow(ax, (x, y), (solution - 8, y))
    _node(ax, solution, y, end)
    _arrow(ax, (solution + 8, y), (VOTE, y))
    _box(ax, VOTE, y, 32, "vote", _light(BLUE, 0.35), height=14)
    return solution


def _bracket(ax: Axes, top: float, bottom: float, text: str) -> None:
    x = VOTE + 40
    ax.plot([x - 4, x, x, x - 4], [top, top, bottom, bottom], **LINE)
    _text(ax, x + 16, (top + bottom) / 2, text, rotation=90, linespacing=1.25)


def standard_and_srs() -> Figure:
    """Standard smoothing of a DEQ, D evaluations of f per noisy copy, above SRS, S of them from an earlier solution."""
    fig, ax = _canvas(302)
    _text(ax, 2, 293, "(a) standard DEQ: every copy from zero, $D$ evaluations of $f$", ha="left", fontsize=7)
    for y, i in ((272, "1"), (246, "2"), (206, "N")):
        _row(ax, y, rf"$x+\varepsilon_{i}$", "$0$", "fff.f", f"$z^*_{i}$")
    for x in (29, 128, VOTE + 16):
        _text(ax, x, 226, r"$\vdots$")
    _bracket(ax, 283, 195, "$N$ independent\nvotes")

    _text(ax, 2, 177, "(b) SRS-DEQ: from the solution before, $S \\ll D$ evaluations", ha="left", fontsize=7)
    copies = (r"$x+\varepsilon_b$", r"$x+\varepsilon_{B+b}$", r"$x+\varepsilon_{2B+b}$")
    drawn = {"warm-up": "ff.f", "$S$ evaluations": "ff"}
    above = None
    for i, (y, copy) in enumerate(zip((151, 112, 73), copies)):
        how = "$S$ evaluations" if i else "warm-up"
        end = _row(ax, y, copy, f"$z_{i}$" if i else "$0$", drawn[how], f"$z_{i + 1}$", warm=i > 0, shadows=2)
        _text(ax, VOTE - 15, y + 5.5, how, ha="right", fontsize=5.5, color=GREY)
        if above is not None:  # the warm start: the solution of the row above
            middle = y + 20.5
            _text(ax, above + 5, y + 22.5, "warm start", ha="left", fontsize=5.5, color=GREY)
            _arrow(ax, (above, y + 32), (above, middle), (START, middle), (START, y + 7), color=ORANGE, linewidth=1.2)
        above = end
    for x in (29, 108, VOTE + 16):
        _text(ax, x, 54, r"$\vdots$")
    _text(ax, VOTE - 15, 54, "one of $B$ chains", ha="right", fontsize=5.5, color=GREY)
    _bracket(ax, 166, 48, "$N$ votes that depend\non each other")
    _box(ax, 2, 14, 314, "audit: $K$ of the copies are solved again as in (a)", "0.95", height=19)
    _arrow(ax, (VOTE + 40, 48), (VOTE + 40, 24))
    return fig


# ------------------------------------------------------------------------------------------------ votes to radius

LEFT, WIDE = 4, 322  # the bars


def _bar(ax: Axes, y: float, parts: list[tuple[float, str, object, str]], total: float, width: float = WIDE) -> None:
    """A bar with its middle at y; parts are (count, text, fill, hatch), as wide as their share of the total."""
    x = LEFT
    for count, text, fill, hatch in parts:
        share = width * count / total
        ax.add_patch(Rectangle(
            (x, y - BOX / 2), share, BOX, facecolor=fill, edgecolor=INK, linewidth=0.6, hatch=hatch, hatch_linewidth=0.4
        ))  # fmt: skip
        _text(ax, x + share / 2, y - 0.5, text)
        x += share


def vote_conversion(example: Example = Example()) -> Figure:
    """From SRS votes to a radius by Theorem 3.1; bars and numbers are those of the example."""
    e = example
    p_lower, radius = e.certificate
    blue, orange = _light(BLUE, 0.35), _light(ORANGE, 0.5)
    others = (e.n - e.n_a, "other classes", "0.93", "")
    fig, ax = _canvas(234)

    def line(y: float, text: str, value: str) -> None:
        _text(ax, LEFT, y, text, ha="left")
        _text(ax, LEFT + WIDE, y, value, ha="right", fontsize=6, color=GREY)

    def formula(y: float, text: str, value: str) -> None:
        _arrow(ax, (LEFT + 20, y + 23), (LEFT + 20, y + 11))
        _box(ax, LEFT, y, WIDE, "", "white", height=22)
        _text(ax, LEFT + 8, y, text, ha="left")
        _text(ax, LEFT + WIDE - 8, y, value, ha="right", fontsize=6, color=GREY)

    line(227, "SRS: $N$ votes, of which $N_A$ for the class $c_A$", f"$N$ = {e.n:,}, $N_A$ = {e.n_a:,}")
    _bar(ax, 211, [(e.n_a, "$N_A$ for $c_A$", blue, ""), others], e.n)

    line(187, "audit: $N_1$ of $N_2$ votes for $c_A$ agree", f"$K$ = {e.k}, $N_2$ = {e.n_2}, $N_1$ = {e.n_1}")
    parts = [(e.n_1, "$N_1$ agree", blue, ""), (e.n_2 - e.n_1, "", orange, "/////")]
    _bar(ax, 171, [*parts, (e.k - e.n_2, "other classes", "0.93", "")], e.k)

    upper, lower = r"$\overline{p}_m$", r"$\underline{p}_A$"
    bound = r"\mathrm{LowerConfBound}"
    formula(139, rf"{upper} $= 1 - {bound}(N_1,\, N_2,\, 1-\alpha/2)$", f"{upper} = {e.p_m_upper:.3f}")

    left = e.n_a * (1 - e.p_m_upper)
    _arrow(ax, (LEFT + 20, 128), (LEFT + 20, 116))
    line(109, rf"at most that share of the $N_A$ votes is wrong: $N_A^E = N_A -$ {upper} $N_A$", "")
    kept = (left, rf"$N_A^E$ = {left:,.0f}", blue, "")
    _bar(ax, 93, [kept, (e.n_a - left, "", orange, "/////"), others], e.n)

    formula(61, rf"{lower} $= {bound}(N_A^E,\, N,\, 1-\alpha/2)$", f"{lower} = {math.floor(1000 * p_lower) / 1000:.3f}")
    result = rf"$R = \sigma\, \Phi^{{-1}}(${lower}$)$, or abstain if {lower} $\leq 1/2$"
    formula(27, result, f"$R$ = {tables.radius(radius)}")
    told = rf"$\alpha$ = {e.alpha:g}, $\sigma$ = {e.sigma:g}"
    _text(ax, LEFT + WIDE, 7, f"numbers: an example with {told}", ha="right", fontsize=5.5, color=GREY)
    return fig


# ------------------------------------------------------------------------------------------------ files


def make_diagrams(profile: Profile) -> dict[str, Figure]:
    """Draw and save both diagrams; they are the same for every profile."""
    captions = {
        "diagram_srs": (
            "Standard randomized smoothing of a DEQ beside serialized randomized smoothing (SRS). (a) Each noisy copy "
            "x + e of the image is solved from zero with D evaluations of f, which sees the copy each time; the N "
            "votes are independent. (b) The copies are solved in batches. In each of B chains the solver starts from "
            "the solution that the chain reached in the batch before, so S evaluations do; the first batch is warmed up "
            "from zero. A vote then depends on those before it, so K copies are solved again by the standard DEQ."
        ),
        "diagram_votes": (
            "How Theorem 3.1 turns SRS votes into a radius, with numbers and bars of one example. K samples are solved "
            "again by the standard DEQ; N_1 of the N_2 votes for c_A among them agree, which bounds the share p_m of "
            "wrong votes from above. That share of the N_A votes is given up, and what is left bounds p_A from below. "
            "Each of the two bounds may fail with probability alpha/2. The rule 'audit' of this repository differs in "
            "drawing all audited votes among those for c_A and in bounding the number of wrong ones exactly "
            "(hypergeometric)."
        ),
    }
    made = {"diagram_srs": standard_and_srs(), "diagram_votes": vote_conversion()}
    for name, fig in made.items():
        figures.save(fig, paths.shown(profile, name), caption=captions[name], made_by=NOTEBOOK)
    return made


if __name__ == "__main__":
    for name in make_diagrams(shown.profile_argument("python -m srs.diagrams", "Draw both diagrams.")):
        print(name)
