"""Notebook 05: the paper's two diagrams, drawn by code, and its tables of hyper-parameters, generated from `profiles`.

Every field of a model, a recipe and a method is shown under its own name, so a new one cannot be forgotten; the paper's own
settings always stand beside those that were asked for.
"""

import dataclasses
import functools
import math

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs import profiles, settings
from srs.analysis import plots, show
from srs.analysis.show import Shown
from srs.deq import mdeq
from srs.settings import Model, Profile, ResNet, Train


def compared(profile: Profile) -> list[Profile]:
    """The profile that was asked for, then those that always stand beside it."""
    return [profile, *(p for p in profiles.PROFILES.values() if p.published and p.name != profile.name)]


def architecture(profile: Profile) -> pd.DataFrame:
    """The sizes of every model: a column per profile and model, the paper's beside ours."""
    columns = {}
    for p in compared(profile):
        for model in dict.fromkeys(run.model for run in p.every_run):
            own = {"input": " x ".join(map(str, p.data.shape)), "classes": str(p.data.classes), **_cells(model)}
            if isinstance(model, Model):
                own |= {"branches": str(len(model.channels)), "groups": f"{model.groups} ({model.groups // 2} after fusion)"}
            sizes = zip(("dimension of z", "parameters"), map(_text, counted(model, p.data)))
            columns[f"{p.name}: {model.name}"] = own | dict(sizes)
    return _side_by_side(columns)


@functools.cache
def counted(model: Model | ResNet, data: settings.Data) -> tuple[int, int]:
    """The dimension of z and the number of parameters of a network, built without memory for its weights."""
    with torch.device("meta"):
        network = mdeq.build(model, data)
        dimension = network.initial(network.inject(torch.zeros(1, *data.shape))).shape[1]
    return dimension, sum(p.numel() for p in network.parameters())


def training(profile: Profile) -> pd.DataFrame:
    """Every number of every recipe and of those it begins with: a column per profile, model and recipe."""
    columns = {}
    for p in compared(profile):
        for run in p.every_run:
            chain = [run.train]
            while chain[0].init_from:
                chain.insert(0, chain[0].init_from)
            for train in chain:
                same = [other for other in p.every_run if (other.model, other.train.recipe) == (run.model, train.recipe)]
                at = tuple(other.sigma for other in same if other.train == train)
                where = f" at sigma {_text(at)}" if at and len(at) < len(same) else ""
                columns.setdefault(f"{p.name}: {run.model.name}, {train.recipe}{where}", _training(run.model, train))
    return _side_by_side(columns)


def _training(model: Model | ResNet, train: Train) -> dict[str, str]:
    explicit, path_independent = isinstance(model, ResNet), train.gradient == "path_independent"
    dropout = model.dropout if train.dropout is None and not explicit else train.dropout
    told = {
        "init from": f"recipe {train.init_from.recipe}" if train.init_from else "random weights",
        "jacobian until": f"{math.ceil(train.jacobian_until * train.epochs)} of {train.epochs}", "dropout": _text(dropout),
    }  # fmt: skip
    unread = {
        "pretrain steps": explicit, "gradient": explicit, "pretrain layers": explicit or not train.pretrain_steps,
        "forward steps": explicit or path_independent, "backward steps": explicit or train.gradient != "implicit",
        "clip": not train.clip, **dict.fromkeys(("jacobian weight", "jacobian until"), not train.jacobian_frequency),
    }  # fmt: skip
    own = _cells(train, skip=("recipe", "path_independence")) | told | {name: "-" for name, never in unread.items() if never}
    free = _cells(train.path_independence) if path_independent else {}
    return own | {f"path independence: {name}": text for name, text in free.items()}


def methods(profile: Profile) -> pd.DataFrame:
    """How each row of the main tables draws its votes: a line per profile and method."""
    rows = []
    for p in compared(profile):
        for m in p.methods:
            own = _cells(m) | {"auditor": m.auditor.name if m.auditor else p.reference if m.audit else "-"}
            rows.append({"profile": p.name, "method": m.name, **own, "pilot": own["pilot"] if m.pilot_nfe else "-"})
    return pd.DataFrame(rows)


def _cells(record: object, skip: tuple[str, ...] = ("name",)) -> dict[str, str]:
    """Every field of a dataclass as printed, under its name."""
    shown = (field.name for field in dataclasses.fields(record) if field.name not in skip)
    return {name.replace("_", " "): _text(getattr(record, name)) for name in shown}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str("-" if value is None else value)


def _side_by_side(columns: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One line per setting in the order of the first column that has it."""
    return pd.DataFrame(columns).rename_axis("setting").fillna("-").reset_index()


def settings_tables(profile: Profile) -> list[Shown]:
    """The tables of hyper-parameters of a profile and of the paper's own settings."""
    others = " and ".join(f"'{p.name}'" for p in profiles.PROFILES.values() if p.published)
    captions = {
        architecture: "Sizes of the models; a list has an entry per resolution, each half the one before.",
        training: "Training recipes. Dropout is the model's own unless the recipe has another. '-': not used.",
        methods: "How votes are drawn. 'steps': evaluations of f per vote; 'audit': K; 'batch': copies or chains solved "
        "together. A run may draw fewer methods, and may be audited by the reference.",
    }
    return [
        show.table(profile, f"settings_{make.__name__}", make(profile), f"{told} The paper's own settings are {others}.")
        for make, told in captions.items()
    ]


GREEN, BLUE, ORANGE = "#d5ebe0", "#cfe0ec", plots.COLOURS[1]


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of column width whose data units are hundredths of an inch, y upwards."""
    fig = Figure(figsize=(plots.WIDTH, height / 100), layout="constrained")
    fig.get_layout_engine().set(w_pad=0, h_pad=0, wspace=0, hspace=0)
    ax = fig.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 100 * plots.WIDTH), ylim=(0, height))
    return fig, ax


def _write(
    ax: Axes, x: float, y: float, text: str, *, to: tuple[float, float] | None = None, box: str = "", colour: object = "0.15",
    align: str = "center", size: float = 6.5,
) -> None:
    """Text, in a rounded box of the colour that `box` names, if any, and an arrow from it to a place."""
    around = {"boxstyle": "round,pad=0.3", "facecolor": box, "linewidth": 0.6} if box else None
    arrow = {"arrowstyle": "-|>,head_width=0.18,head_length=0.32", "shrinkB": 6.5, "color": colour, "linewidth": 0.8}
    look = {"ha": align, "va": "center", "fontsize": size, "bbox": around}
    ax.annotate(text, to or (x, y), (x, y), arrowprops=arrow if to else None, **look)


def standard_and_srs() -> Figure:
    """Standard smoothing of a DEQ, D evaluations of f per noisy copy, above SRS, S of them from an earlier solution."""
    fig, ax = _canvas(210)
    _write(ax, 2, 201, "(a) standard DEQ: every copy from zero, $D$ evaluations of $f$", align="left", size=7)
    _write(ax, 2, 124, "(b) SRS-DEQ: from the solution before, $S \\ll D$ evaluations", align="left", size=7)
    _write(ax, 165, 8, "One of $B$ chains. Its votes depend on each other: $K$ are audited as in (a).", size=6)
    rows = (  # height, noisy copy, start, evaluations of f, solution
        (178, "1", "$0$", 5, "$z^*_1$"), (152, "N", "$0$", 5, "$z^*_N$"),
        (102, "b", "$0$", 4, "$z_1$"), (68, "{B+b}", "$z_1$", 2, "$z_2$"), (34, "{2B+b}", "$z_2$", 2, "$z_3$"),
    )  # fmt: skip
    for y, copy, start, evaluations, solution in rows:
        _write(ax, 26, y, rf"$x+\varepsilon_{copy}$")
        for i, text in enumerate((start, *["$f$"] * evaluations, solution)):
            _write(ax, 66 + 30 * i, y, text, to=(96 + 30 * i, y), box=GREEN if text == "$f$" else "white")
        _write(ax, 134 + 30 * evaluations, y, "vote", box=BLUE)
    for x, y, below in ((207, 97, (66, 68)), (147, 61, (66, 34))):
        _write(ax, x, y, "", to=below, colour=ORANGE)
    return fig


def vote_conversion() -> Figure:
    """From SRS votes to a radius by Theorem 3.1."""
    upper, lower, bound = r"\overline{p}_m", r"\underline{p}_A", r"\mathrm{LowerConfBound}"
    steps = (
        "SRS: $N_A$ of $N$ votes are for the class $c_A$",
        "audit of $K$ votes: $N_1$ of $N_2$ for $c_A$ agree",
        rf"${upper} = 1 - {bound}(N_1,\, N_2,\, 1-\alpha/2)$",
        rf"$N_A^E = N_A - {upper} N_A$: so many votes are right",
        rf"${lower} = {bound}(N_A^E,\, N,\, 1-\alpha/2)$",
        rf"$R = \sigma\, \Phi^{{-1}}({lower})$, or abstain if ${lower} \leq 1/2$",
    )
    fig, ax = _canvas(30 * len(steps))
    for y, text in zip(range(30 * len(steps) - 15, 0, -30), steps):
        _write(ax, 165, y, text, to=(165, y - 30) if y > 15 else None, box="white")
    return fig


def diagrams(profile: Profile) -> list[Shown]:
    """Both diagrams; they are the same for every profile."""
    smoothing = (
        "(a) Standard randomized smoothing of a DEQ: each of the N noisy copies is solved from zero. (b) SRS: the solver "
        "starts from its chain's solution of the batch before (orange), so S evaluations do; the first batch is warmed up."
    )
    conversion = (
        "How Theorem 3.1 turns SRS votes into a radius. Votes that agree when they are solved again bound the share p_m of "
        "wrong votes. That share of the N_A votes is given up, and what is left bounds p_A."
    )
    return [
        show.figure(profile, "diagram_srs", standard_and_srs(), smoothing),
        show.figure(profile, "diagram_votes", vote_conversion(), conversion),
    ]
