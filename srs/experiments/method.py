"""Notebook 05: the paper's two diagrams, drawn by code, and its tables of hyper-parameters, generated from `profiles`.

Every field of a model, a recipe, a profile and a method is shown, and the paper's own settings stand beside those that were asked
for. Lengths of the diagrams are in hundredths of an inch, so that what is drawn and its text keep their proportions at column width.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from srs import profiles, settings
from srs.analysis import plots, show
from srs.analysis.show import Shown
from srs.deq import mdeq
from srs.settings import Model, Profile, ResNet, Train
from srs.smoothing import bounds
from srs.smoothing.bounds import Counts, Rule

# ------------------------------------------------------------------------------------------------ settings

LABELS = {  # in the order of the lines; a field without a label stands below them under its own name
    # a model
    "channels": "channels per branch", "head_channels": "head channels", "final_channels": "final channels",
    "expansion": "expansion in the residual block", "groups": "group-norm groups",
    "downsamples": "input halved (times)",
    "depth": "layers", "widths": "channels per stage",
    # a recipe
    "begin": "begins with", "begin_sigma": "... of noise level", "pretrain_steps": "unrolled pre-training (steps)", "pretrain_layers": "unrolled layers",
    "epochs": "epochs", "batch": "batch size", "optimiser": "optimiser", "lr": "learning rate",
    "lr_end": "learning rate at the end (cosine)", "weight_decay": "weight decay", "clip": "largest gradient norm",
    "gradient": "gradient", "forward_steps": "forward solver steps (Broyden)",
    "backward_steps": "backward solver steps (Broyden)", "jacobian_frequency": "Jacobian penalty: share of batches",
    "jacobian_weight": "Jacobian penalty: weight", "jacobian_until": "Jacobian penalty: epochs",
    "augment": "augmentation", "dropout": "dropout (variational)", "starts": "starts",
    "most_free_steps": "evaluations without gradient, at most", "weight": "weight of the last change",
    "both": "cross-entropy on the last two iterates",
    # a profile
    "data": "data", "sigmas": "noise levels sigma", "images": "test images", "stride": "every n-th test image", "fewer": "at some noise levels only",
    "n0": "n0 (selection)", "n": "N (estimation)", "alpha": "alpha", "reference": "audits and is compared with",
    "radii": "radii r of the tables", "noise": "noise", "seed": "seed", "baselines": "explicit networks",
    "card_images": "images of a model card (where limited)", "note": "note",
    # a method
    "solver": "solver", "start": "start", "steps": "evaluations of f per vote",
    "warmup": "solver steps of the first batch", "pilot": "copies of the pilot batch", "tol": "stops at residual",
    "margin": "stops at lead", "audit": "K (audited votes)",
}  # fmt: skip


def compared(profile: Profile) -> list[Profile]:
    """The profile that was asked for, then those that always stand beside it."""
    return [profile, *(p for p in profiles.PROFILES.values() if p.published and p.name != profile.name)]


def architecture(profile: Profile) -> pd.DataFrame:
    """The sizes of every model: a column per profile and model, the paper's beside ours."""
    every = [(p, model) for p in compared(profile) for model in dict.fromkeys(run.model for run in p.every_run)]
    return side_by_side({f"{p.name}: {model.name}": _architecture(model, p.data) for p, model in every})


def _architecture(model: Model | ResNet, data: settings.Data) -> dict[str, str]:
    channels, height, width = data.shape
    dimension, parameters = counted(model, data)
    own = _cells(model)
    if isinstance(model, Model):
        groups = f"{model.groups} ({model.groups // 2} after fusion)"
        own = {"branches": str(len(model.channels)), **own, LABELS["groups"]: groups}
    size = {"dimension of z": _text(dimension), "parameters (counted)": _text(parameters)}
    return {"input": f"{channels} x {height} x {width}", "classes": str(data.classes), **own, **size}


@functools.cache
def counted(model: Model | ResNet, data: settings.Data) -> tuple[int, int]:
    """The dimension of z and the number of parameters of a network, built without memory for its weights."""
    with torch.device("meta"):
        network = mdeq.network(model, data)
        dimension = network.initial(network.inject(torch.zeros(1, *data.shape))).shape[1]
    return dimension, sum(p.numel() for p in network.parameters())


def training(profile: Profile) -> pd.DataFrame:
    """Every number of every recipe and of those it begins with: a column per profile, model and recipe."""
    columns = {}
    for p in compared(profile):
        for run in p.every_run:
            for train in _chain(run.train):
                same = [other for other in p.every_run if (other.model, other.train.recipe) == (run.model, train.recipe)]
                at = tuple(other.sigma for other in same if other.train == train)
                where = f" at sigma {_text(at)}" if at and len(at) < len(same) else ""
                columns.setdefault(f"{p.name}: {run.model.name}, {train.recipe}{where}", _training(run.model, train))
    return side_by_side(columns)


def _chain(train: Train) -> list[Train]:
    """A recipe after the recipes whose weights it begins with, the first one first."""
    return [*(_chain(train.begin) if train.begin else []), train]


def _training(model: Model | ResNet, train: Train) -> dict[str, str]:
    contractive, explicit = train.gradient == "contractive", isinstance(model, ResNet)
    solved = ("pretrain_steps", "pretrain_layers", "gradient", "forward_steps", "backward_steps", "dropout")
    unused = {  # settings that this recipe never reads
        "pretrain_layers": not train.pretrain_steps,
        "forward_steps": contractive,
        "backward_steps": train.gradient != "implicit",
        "clip": not train.clip,
        "begin_sigma": train.begin_sigma is None,
        "jacobian_weight": not train.jacobian_frequency,
        "jacobian_until": not train.jacobian_frequency,
    }
    penalised = sum(epoch < train.jacobian_until * train.epochs for epoch in range(train.epochs))  # as training.train counts
    own = {
        "begin": f"recipe {train.begin.recipe}" if train.begin else "random weights",
        "dropout": _text(train.dropout if explicit or train.dropout is not None else model.dropout),
        "jacobian_until": f"{penalised} of {train.epochs}",
        **{name: "-" for name, never in unused.items() if never},
        **({name: "-" for name in solved} if explicit else {}),
    }
    cells = _cells(train, skip=("recipe", "contraction")) | {LABELS[name]: text for name, text in own.items()}
    return cells | ({f"contraction: {k}": v for k, v in _cells(train.contraction).items()} if contractive else {})


def sampling(profile: Profile) -> pd.DataFrame:
    """What is sampled and certified: a column per profile."""
    columns = {}
    for p in compared(profile):
        less = [run for run in p.runs if run.profile.methods != p.methods]
        few, at = less[0].profile if less else None, tuple(sorted({run.sigma for run in less}))
        columns[p.name] = _cells(p, skip=("name", "plan", "methods", "attacks", "published", "trains_more", "undrawn"), more={
            "data": p.data.name, "sigmas": p.sigmas, "note": p.note or "-",
            "baselines": ", ".join(dict.fromkeys(run.model.name for run in p.explicit)) or "-",
            "fewer": f"sigma {_text(at)}: {few.images} images, {_text(tuple(m.name for m in few.methods))}" if few else "-",
        })  # fmt: skip
    return side_by_side(columns)


def methods(profile: Profile) -> pd.DataFrame:
    """How each row of the main tables draws its votes: a line per profile and method; columns that no method uses are left out."""
    rows = []
    for p in compared(profile):
        for m in p.methods:
            cells = {"profile": p.name, "method": m.name, **_cells(m, skip=("name", "auditor"))}
            unused = {
                "warmup": m.start != "previous" and not m.pilot_nfe, "pilot": not m.pilot_nfe, "tol": not m.tol,
                "margin": not m.margin, "audit": not m.audit,
            }  # fmt: skip
            cells |= {"audited by": (m.auditor.name if m.auditor else p.reference) if m.audit else "-"}
            cells |= {LABELS[name]: "-" for name, never in unused.items() if never}
            batch = cells.pop(LABELS["batch"])
            rows.append(cells | {"solved together": f"{batch} chains" if m.start == "previous" else batch})
    frame = pd.DataFrame(rows)
    return frame.loc[:, (frame != "-").any()]


def _cells(record: object, skip: Iterable[str] = ("name",), more: dict[str, object] = {}) -> dict[str, str]:
    """Every field of a dataclass as printed, by its label, and more that is told of it."""
    order = list(LABELS)
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name not in skip} | more
    names = sorted(values, key=lambda name: order.index(name) if name in LABELS else len(order))
    return {LABELS.get(name, name.replace("_", " ")): _text(values[name]) for name in names}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def side_by_side(columns: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One line per setting in the order of the first column that has it."""
    names = dict.fromkeys(name for cells in columns.values() for name in cells)
    return pd.DataFrame({"setting": list(names)} | {column: [cells.get(name, "-") for name in names] for column, cells in columns.items()})


def settings_tables(profile: Profile) -> list[Shown]:
    """The tables of hyper-parameters of a profile and of the paper's own settings."""
    others = "the paper's settings: " + " and ".join(f"'{p.name}'" for p in profiles.PROFILES.values() if p.published)
    whose = f"({others})" if profile.published else f"(profile '{profile.name}' beside {others})"
    size = (
        f"Sizes of the models {whose}. One entry per resolution, each half the one before; convolutions inside f are "
        "weight-normalised; parameters are counted on the built network."
    )
    learnt = (
        f"Training recipes {whose}. The learning rate follows a cosine; dropout is the model's own unless the recipe has "
        "another. '-': the recipe does not use it."
    )
    drawn = (
        f"What is sampled and certified {whose}. n0 noisy copies select the class, N others estimate its probability; a "
        "certificate may fail with probability alpha."
    )
    voted = (
        f"How votes are drawn {whose}. Methods that start from 'zero' are standard randomized smoothing; those that start "
        "from 'previous' are serialized: each chain's solver starts from its solution of the batch before."
    )
    made = {architecture: size, training: learnt, sampling: drawn, methods: voted}
    return [show.table(profile, f"settings_{build.__name__}", build(profile), caption) for build, caption in made.items()]


# ------------------------------------------------------------------------------------------------ diagrams

INK, GREY = "0.15", "0.45"
BLUE, ORANGE, GREEN = plots.COLOURS[:3]
BOX = 17  # height of a box
LINE = dict(color=INK, linewidth=0.7)
EXAMPLE, K, SIGMA, ALPHA = Counts(n=10_000, n_a=8_000, n_2=320, n_1=304), 400, 0.5, 0.001  # of the second diagram


def example() -> tuple[float, float, float]:
    """The second diagram's upper bound on p_m, lower bound on p_A and radius, by Theorem 3.1."""
    p_lower, radius = bounds.certify(Rule.THEOREM31, EXAMPLE, SIGMA, ALPHA)
    return 1 - float(bounds.lower_confidence_bound(EXAMPLE.n_1, EXAMPLE.n_2, ALPHA / 2)), float(p_lower), float(radius)


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of column width whose data units are hundredths of an inch, y upwards."""
    fig = Figure(figsize=(plots.WIDTH, height / 100), layout="constrained")
    fig.get_layout_engine().set(w_pad=0, h_pad=0, wspace=0, hspace=0)
    ax = fig.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 100 * plots.WIDTH), ylim=(0, height))
    return fig, ax


def _write(ax: Axes, x: float, y: float, text: str, **look) -> None:
    ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 6.5, "color": INK} | look)


def _box(ax: Axes, x: float, y: float, width: float, text: str, fill="white", height: float = BOX) -> None:
    """A rounded box with its middle left edge at (x, y)."""
    look = {"boxstyle": "round,pad=0,rounding_size=3", "facecolor": fill, "edgecolor": INK, "linewidth": 0.6}
    ax.add_patch(FancyBboxPatch((x, y - height / 2), width, height, **look))
    _write(ax, x + width / 2, y - 0.5, text)


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


# standard and SRS: height of a row; where its parts begin
BAND, START, FIRST, STEP, VOTE = 22, 66, 80, 20, 240


def _row(ax: Axes, y: float, copy: str, start: str, drawn: str, end: str, *, warm: bool = False, shadows: int = 0) -> float:
    """One noisy copy solved from a start to a vote; `drawn` is a line of "f" and "."; returns where its end stands."""
    for i in range(shadows, -1, -1):
        look = {"facecolor": "white" if i else _light(BLUE, 0.12), "edgecolor": "0.7", "linewidth": 0.5}
        ax.add_patch(Rectangle((2 + 2.5 * i, y - BAND / 2 + 2.5 * i), VOTE - 14, BAND, **look))
    _write(ax, 29, y, copy)
    _box(ax, START - 8, y, 16, start, _light(ORANGE, 0.5) if warm else "white", height=14)
    x = START + 8
    for i, kind in enumerate(drawn):
        left = FIRST + i * STEP
        if kind == ".":
            _write(ax, left + 4, y, r"$\cdots$")
        else:
            _arrow(ax, (x, y), (left, y))
            _box(ax, left, y, 14, "$f$", _light(GREEN), height=14)
        x = left + 14
    solution = x + 14
    _arrow(ax, (x, y), (solution - 8, y))
    _box(ax, solution - 8, y, 16, end, height=14)
    _arrow(ax, (solution + 8, y), (VOTE, y))
    _box(ax, VOTE, y, 32, "vote", _light(BLUE, 0.35), height=14)
    return solution


def _bracket(ax: Axes, top: float, bottom: float, text: str) -> None:
    x = VOTE + 40
    ax.plot([x - 4, x, x, x - 4], [top, top, bottom, bottom], **LINE)
    _write(ax, x + 16, (top + bottom) / 2, text, rotation=90, linespacing=1.25)


def standard_and_srs() -> Figure:
    """Standard smoothing of a DEQ, D evaluations of f per noisy copy, above SRS, S of them from an earlier solution."""
    fig, ax = _canvas(302)
    _write(ax, 2, 293, "(a) standard DEQ: every copy from zero, $D$ evaluations of $f$", ha="left", fontsize=7)
    for y, i in ((272, "1"), (246, "2"), (206, "N")):
        _row(ax, y, rf"$x+\varepsilon_{i}$", "$0$", "fff.f", f"$z^*_{i}$")
    for x in (29, 128, VOTE + 16):
        _write(ax, x, 226, r"$\vdots$")
    _bracket(ax, 283, 195, "$N$ independent\nvotes")

    _write(ax, 2, 177, "(b) SRS-DEQ: from the solution before, $S \\ll D$ evaluations", ha="left", fontsize=7)
    copies = (r"$x+\varepsilon_b$", r"$x+\varepsilon_{B+b}$", r"$x+\varepsilon_{2B+b}$")
    drawn = {"warm-up": "ff.f", "$S$ evaluations": "ff"}
    above = None
    for i, (y, copy) in enumerate(zip((151, 112, 73), copies)):
        how = "$S$ evaluations" if i else "warm-up"
        end = _row(ax, y, copy, f"$z_{i}$" if i else "$0$", drawn[how], f"$z_{i + 1}$", warm=i > 0, shadows=2)
        _write(ax, VOTE - 15, y + 5.5, how, ha="right", fontsize=5.5, color=GREY)
        if above is not None:  # the warm start: the solution of the row above
            middle = y + 20.5
            _write(ax, above + 5, y + 22.5, "warm start", ha="left", fontsize=5.5, color=GREY)
            _arrow(ax, (above, y + 32), (above, middle), (START, middle), (START, y + 7), color=ORANGE, linewidth=1.2)
        above = end
    for x in (29, 108, VOTE + 16):
        _write(ax, x, 54, r"$\vdots$")
    _write(ax, VOTE - 15, 54, "one of $B$ chains", ha="right", fontsize=5.5, color=GREY)
    _bracket(ax, 166, 48, "$N$ votes that depend\non each other")
    _box(ax, 2, 14, 314, "audit: $K$ of the copies are solved again as in (a)", "0.95", height=19)
    _arrow(ax, (VOTE + 40, 48), (VOTE + 40, 24))
    return fig


# votes to radius
LEFT, WIDE = 4, 322  # the bars


def _bar(ax: Axes, y: float, parts: list[tuple[float, str, object, str]], total: float) -> None:
    """A bar with its middle at y; parts are (count, text, fill, hatch), as wide as their share of the total."""
    x = LEFT
    for count, text, fill, hatch in parts:
        share = WIDE * count / total
        look = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.6, "hatch": hatch, "hatch_linewidth": 0.4}
        ax.add_patch(Rectangle((x, y - BOX / 2), share, BOX, **look))
        _write(ax, x + share / 2, y - 0.5, text)
        x += share


def vote_conversion() -> Figure:
    """From SRS votes to a radius by Theorem 3.1; bars and numbers have the proportions of the example."""
    e, (p_m, p_lower, radius) = EXAMPLE, example()
    blue, orange = _light(BLUE, 0.35), _light(ORANGE, 0.5)
    others = (e.n - e.n_a, "other classes", "0.93", "")
    fig, ax = _canvas(234)

    def line(y: float, text: str, value: str) -> None:
        _write(ax, LEFT, y, text, ha="left")
        _write(ax, LEFT + WIDE, y, value, ha="right", fontsize=6, color=GREY)

    def formula(y: float, text: str, value: str) -> None:
        _arrow(ax, (LEFT + 20, y + 23), (LEFT + 20, y + 11))
        _box(ax, LEFT, y, WIDE, "", "white", height=22)
        _write(ax, LEFT + 8, y, text, ha="left")
        _write(ax, LEFT + WIDE - 8, y, value, ha="right", fontsize=6, color=GREY)

    line(227, "SRS: $N$ votes, of which $N_A$ for the class $c_A$", f"$N$ = {e.n:,}, $N_A$ = {e.n_a:,}")
    _bar(ax, 211, [(e.n_a, "$N_A$ for $c_A$", blue, ""), others], e.n)

    line(187, "audit: $N_1$ of $N_2$ votes for $c_A$ agree", f"$K$ = {K}, $N_2$ = {e.n_2}, $N_1$ = {e.n_1}")
    parts = [(e.n_1, "$N_1$ agree", blue, ""), (e.n_2 - e.n_1, "", orange, "/////")]
    _bar(ax, 171, [*parts, (K - e.n_2, "other classes", "0.93", "")], K)

    upper, lower = r"$\overline{p}_m$", r"$\underline{p}_A$"
    bound = r"\mathrm{LowerConfBound}"
    formula(139, rf"{upper} $= 1 - {bound}(N_1,\, N_2,\, 1-\alpha/2)$", f"{upper} = {p_m:.3f}")

    left = e.n_a * (1 - p_m)
    _arrow(ax, (LEFT + 20, 128), (LEFT + 20, 116))
    line(109, rf"at most that share of the $N_A$ votes is wrong: $N_A^E = N_A -$ {upper} $N_A$", "")
    kept = (left, rf"$N_A^E$ = {left:,.0f}", blue, "")
    _bar(ax, 93, [kept, (e.n_a - left, "", orange, "/////"), others], e.n)

    formula(61, rf"{lower} $= {bound}(N_A^E,\, N,\, 1-\alpha/2)$", f"{lower} = {math.floor(1000 * p_lower) / 1000:.3f}")
    result = rf"$R = \sigma\, \Phi^{{-1}}(${lower}$)$, or abstain if {lower} $\leq 1/2$"
    formula(27, result, f"$R$ = {show.round_down(radius)}")
    told = rf"$\alpha$ = {ALPHA:g}, $\sigma$ = {SIGMA:g}"
    _write(ax, LEFT + WIDE, 7, f"numbers: an example with {told}", ha="right", fontsize=5.5, color=GREY)
    return fig


def diagrams(profile: Profile) -> list[Shown]:
    """Both diagrams; they are the same for every profile."""
    smoothing = (
        "Standard randomized smoothing of a DEQ beside serialized randomized smoothing (SRS). (a) Each noisy copy x + e of the image is "
        "solved from zero with D evaluations of f, which sees the copy each time; the N votes are independent. (b) The copies are solved "
        "in batches. In each of B chains the solver starts from the solution that the chain reached in the batch before, so S evaluations "
        "do; the first batch is warmed up from zero. A vote then depends on those before it, so K copies are solved again by the standard DEQ."
    )
    conversion = (
        "How Theorem 3.1 turns SRS votes into a radius, with numbers and bars of one example. K samples are solved again by the standard "
        "DEQ; N_1 of the N_2 votes for c_A among them agree, which bounds the share p_m of wrong votes from above. That share of the N_A "
        "votes is given up, and what is left bounds p_A from below. Each of the two bounds may fail with probability alpha/2. The rule "
        "'audit' of this repository differs in drawing all audited votes among those for c_A and in bounding the number of wrong ones "
        "exactly (hypergeometric)."
    )
    return [
        show.figure(profile, "diagram_srs", standard_and_srs(), smoothing),
        show.figure(profile, "diagram_votes", vote_conversion(), conversion),
    ]
