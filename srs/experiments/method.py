"""Notebook 05: the paper's two diagrams, drawn by code, and its tables of hyper-parameters, generated from `profiles`.

Every field of a model, a recipe, a profile and a method is shown, so a new one cannot be forgotten; the paper's own settings
always stand beside those that were asked for.
"""

import dataclasses
import functools
from collections.abc import Iterable

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

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
    "begin": "begins with", "begin_sigma": "... of noise level", "pretrain_steps": "unrolled pre-training (steps)",
    "pretrain_layers": "unrolled layers",
    "epochs": "epochs", "batch": "batch size", "optimiser": "optimiser", "lr": "learning rate",
    "lr_end": "learning rate at the end (cosine)", "weight_decay": "weight decay", "clip": "largest gradient norm",
    "gradient": "gradient", "forward_steps": "forward solver steps (Broyden)",
    "backward_steps": "backward solver steps (Broyden)", "jacobian_frequency": "Jacobian penalty: share of batches",
    "jacobian_weight": "Jacobian penalty: weight", "jacobian_until": "Jacobian penalty: epochs",
    "augment": "augmentation", "dropout": "dropout (variational)", "starts": "starts",
    "most_free_steps": "evaluations without gradient, at most", "weight": "weight of the last change",
    "both": "cross-entropy on the last two iterates",
    # a profile
    "data": "data", "sigmas": "noise levels sigma", "images": "test images", "stride": "every n-th test image",
    "fewer": "at some noise levels only",
    "n0": "n0 (selection)", "n": "N (estimation)", "alpha": "alpha", "reference": "is compared with",
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
        less = [run for run in p.runs if run.profile.images != p.images]
        few, at = less[0].profile if less else None, tuple(sorted({run.sigma for run in less}))
        columns[p.name] = _cells(p, skip=("name", "plan", "methods", "attacks", "published", "trains_more", "undrawn"), more={
            "data": p.data.name, "sigmas": p.sigmas, "note": p.note or "-",
            "baselines": ", ".join(dict.fromkeys(run.model.name for run in p.explicit)) or "-",
            "fewer": f"sigma {_text(at)}: {few.images} images, {_text(tuple(m.name for m in few.methods))}" if few else "-",
        })  # fmt: skip
    return side_by_side(columns)


def methods(profile: Profile) -> pd.DataFrame:
    """How each row of the main tables draws its votes: a line per profile and method, without columns that none uses."""
    rows = []
    for p in compared(profile):
        for m in p.methods:
            cells = {"profile": p.name, "method": m.name, **_cells(m, skip=("name", "auditor"))}
            unused = {"warmup": m.start != "previous" and not m.pilot_nfe, "pilot": not m.pilot_nfe}
            unused |= {name: not getattr(m, name) for name in ("tol", "margin", "audit")}
            own = [one.auditor for run in p.runs for one in run.profile.methods if one.name == m.name]
            others = f"; {p.reference} in {own.count(None)} of {len(own)} runs" * bool(m.auditor and None in own)
            cells |= {"audited by": (m.auditor.name if m.auditor else p.reference) + others if m.audit else "-"}
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
    return pd.DataFrame(columns, index=pd.Index(names, name="setting")).fillna("-").reset_index()


def settings_tables(profile: Profile) -> list[Shown]:
    """The tables of hyper-parameters of a profile and of the paper's own settings."""
    others = "the paper's settings: " + " and ".join(f"'{p.name}'" for p in profiles.PROFILES.values() if p.published)
    whose = f"({others})" if profile.published else f"(profile '{profile.name}' beside {others})"
    size = f"Sizes of the models {whose}: an entry per resolution, each half the one before; parameters are counted."
    learnt = f"Training recipes {whose}. Dropout is the model's own unless the recipe has another. '-': not used."
    drawn = f"What is sampled and certified {whose}. n0 noisy copies select the class, N others estimate its probability."
    voted = f"How votes are drawn {whose}: from 'zero' by standard randomized smoothing, from 'previous' by the paper's SRS."
    made = {architecture: size, training: learnt, sampling: drawn, methods: voted}
    return [show.table(profile, f"settings_{build.__name__}", build(profile), caption) for build, caption in made.items()]


# ------------------------------------------------------------------------------------------------ diagrams

INK, GREY = "0.15", "0.45"
EXAMPLE, K, SIGMA, ALPHA = Counts(n=10_000, n_a=8_000, n_2=320, n_1=304), 400, 0.5, 0.001  # of the second diagram
FILLS = {"$f$": plots.COLOURS[2], "vote": plots.COLOURS[0], "warm": plots.COLOURS[1]}


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


def _write(ax: Axes, x: float, y: float, text: str, *, align: str = "center", colour: str = INK, size: float = 6.5) -> None:
    ax.text(x, y, text, ha=align, va="center", fontsize=size, color=colour)


def _box(ax: Axes, x: float, y: float, width: float, height: float, kind: str = "") -> None:
    """A rounded box around (x, y); its kind gives a light fill."""
    fill = [1 - 0.3 * (1 - c) for c in FILLS[kind]] if kind in FILLS else "white"
    look = {"boxstyle": "round,pad=0,rounding_size=3", "facecolor": fill, "edgecolor": INK, "linewidth": 0.6}
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, **look))


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: object = INK) -> None:
    head = {"arrowstyle": "-|>,head_width=0.18,head_length=0.32", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=head | {"color": colour, "linewidth": 0.8})


def _solve(ax: Axes, y: float, copy: str, start: str, evaluations: int, end: str) -> float:
    """A row: a noisy copy is solved from a start by some evaluations of f, and votes; returns where its solution stands."""
    _write(ax, 26, y, copy)
    boxes = [(66 + 28 * i, text) for i, text in enumerate((start, *["$f$"] * evaluations, end))] + [(304, "vote")]
    for x, text in boxes:
        _box(ax, x, y, 30 if text == "vote" else 20, 14, "warm" if text == start != "$0$" else text)
        _write(ax, x, y - 0.5, text)
    for (left, text), (right, _) in zip(boxes, boxes[1:]):
        _arrow(ax, (left + 10, y), (right - (15 if right == 304 else 10), y))
    return boxes[-2][0]


def standard_and_srs() -> Figure:
    """Standard smoothing of a DEQ, D evaluations of f per noisy copy, above SRS, S of them from an earlier solution."""
    fig, ax = _canvas(230)
    _write(ax, 2, 221, "(a) standard DEQ: every copy from zero, $D$ evaluations of $f$", align="left", size=7)
    for y, i in ((200, "1"), (162, "N")):
        _solve(ax, y, rf"$x+\varepsilon_{i}$", "$0$", 5, f"$z^*_{i}$")
    for x in (26, 150, 304):
        _write(ax, x, 181, r"$\vdots$")
    _write(ax, 2, 134, "(b) SRS-DEQ: from the solution before, $S \\ll D$ evaluations", align="left", size=7)
    copies, above = (r"$x+\varepsilon_b$", r"$x+\varepsilon_{B+b}$", r"$x+\varepsilon_{2B+b}$"), None
    for i, (y, copy) in enumerate(zip((112, 76, 40), copies)):
        own = _solve(ax, y, copy, f"$z_{i}$" if i else "$0$", 2 if i else 4, f"$z_{i + 1}$")
        _write(ax, 248, y + 6, "$S$ evaluations" if i else "warm-up", size=5.5, colour=GREY)
        if above:
            _write(ax, 150 if i == 1 else 116, y + 17, "warm start", align="left", size=5.5, colour=GREY)
            _arrow(ax, (above, y + 29), (66, y + 7), plots.COLOURS[1])
        above = own
    _write(ax, 165, 14, "One of $B$ chains. Its votes depend on each other: $K$ are audited as in (a).", size=6)
    return fig


def vote_conversion() -> Figure:
    """From SRS votes to a radius by Theorem 3.1, each step with the numbers of an example."""
    e, (p_m, p_lower, radius) = EXAMPLE, example()
    upper, lower, bound = r"\overline{p}_m", r"\underline{p}_A", r"\mathrm{LowerConfBound}"
    steps = (  # what is done, its value
        ("SRS: $N_A$ of $N$ votes are for the class $c_A$", f"{e.n_a:,} of {e.n:,}"),
        ("audit of $K$ votes: $N_1$ of $N_2$ for $c_A$ agree", f"{e.n_1} of {e.n_2}, $K$ = {K}"),
        (rf"${upper} = 1 - {bound}(N_1,\, N_2,\, 1-\alpha/2)$", f"{p_m:.3f}"),
        (rf"$N_A^E = N_A - {upper} N_A$: so many votes are right", f"{e.n_a * (1 - p_m):,.0f}"),
        (rf"${lower} = {bound}(N_A^E,\, N,\, 1-\alpha/2)$", show.round_down(p_lower)),
        (rf"$R = \sigma\, \Phi^{{-1}}({lower})$, or abstain if ${lower} \leq 1/2$", show.round_down(radius)),
    )
    fig, ax = _canvas(30 * len(steps) + 12)
    for i, (text, value) in enumerate(steps):
        y = 30 * (len(steps) - i) - 5
        _box(ax, 165, y, 324, 20)
        _write(ax, 10, y, text, align="left")
        _write(ax, 320, y, value, align="right", size=6, colour=GREY)
        if i:
            _arrow(ax, (24, y + 20), (24, y + 10))
    told = rf"right: an example with $\alpha$ = {ALPHA:g}, $\sigma$ = {SIGMA:g}"
    _write(ax, 326, 5, told, align="right", size=5.5, colour=GREY)
    return fig


def diagrams(profile: Profile) -> list[Shown]:
    """Both diagrams; they are the same for every profile."""
    smoothing = (
        "Standard randomized smoothing of a DEQ beside serialized randomized smoothing (SRS). (a) Each noisy copy is solved from "
        "zero with D evaluations of f; the N votes are independent. (b) The copies are solved in batches. In each of B chains "
        "the solver starts from the chain's solution of the batch before, so S evaluations do; the first batch is warmed up."
    )
    conversion = (
        "How Theorem 3.1 turns SRS votes into a radius, with the numbers of an example. The votes that agree when they are "
        "again bound the share p_m of wrong votes. That share of the N_A votes is given up, and what is left bounds p_A. Each "
        "may fail with probability alpha/2. The rule 'audit' draws all audited votes among those for c_A and bounds the number "
        "of wrong ones exactly (hypergeometric)."
    )
    return [
        show.figure(profile, "diagram_srs", standard_and_srs(), smoothing),
        show.figure(profile, "diagram_votes", vote_conversion(), conversion),
    ]
