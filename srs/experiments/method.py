"""Notebook 05: the paper's two diagrams, drawn by code, and its tables of hyper-parameters, generated from `profiles`."""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from srs import profiles, settings
from srs.analysis import plots, show
from srs.deq import mdeq
from srs.experiments.certified_accuracy import trained_by


def compared(profile: settings.Profile) -> list[settings.Profile]:
    """The profile that was asked for, then those that always stand beside it."""
    return [profile, *(p for p in profiles.PROFILES.values() if p.published and p.name != profile.name)]


def architecture(profile: settings.Profile) -> pd.DataFrame:
    """The sizes of every model: a column per profile and model, the paper's beside ours."""
    columns = {}
    for p in compared(profile):
        for model in dict.fromkeys(run.model for run in p.every_run):
            own = {"input": " x ".join(map(str, p.data.shape)), "classes": str(p.data.classes), **_cells(model)}
            if isinstance(model, settings.Model):
                own |= {"branches": str(len(model.channels)), "groups": f"{model.groups} ({model.groups // 2} after fusion)"}
            sizes = zip(("dimension of z", "parameters"), map(_text, counted(model, p.data)))
            columns[f"{p.name}: {model.name}"] = own | dict(sizes)
    return pd.DataFrame(columns).rename_axis("setting").fillna("-").reset_index()


def counted(model: settings.Model | settings.ResNet, data: settings.Data) -> tuple[int, int]:
    """The dimension of z and the number of parameters of a network, built without memory for its weights."""
    with torch.device("meta"):
        network = mdeq.build(model, data)
        dimension = network.initial(network.inject(torch.zeros(1, *data.shape))).shape[1]
    return dimension, sum(p.numel() for p in network.parameters())


def training(profile: settings.Profile) -> pd.DataFrame:
    """Every number of every recipe and of those it begins with: a column per profile, model and recipe."""
    columns = {}
    for p in compared(profile):
        for run in p.every_run:
            for train in (step.train for step in trained_by(run)):
                same = [other for other in p.every_run if (other.model, other.train.recipe) == (run.model, train.recipe)]
                at = tuple(other.sigma for other in same if other.train == train)
                where = f" at sigma {_text(at)}" if at and len(at) < len(same) else ""
                columns.setdefault(f"{p.name}: {run.model.name}, {train.recipe}{where}", _training(run.model, train))
    return pd.DataFrame(columns).rename_axis("setting").fillna("-").reset_index()


def _training(model: settings.Model | settings.ResNet, train: settings.Train) -> dict[str, str]:
    explicit, path_independent = isinstance(model, settings.ResNet), train.gradient == "path_independent"
    dropout = model.dropout if train.dropout is None and not explicit else train.dropout
    told = {"init from": f"recipe {train.init_from.recipe}" if train.init_from else "random weights"}
    until = f"{math.ceil(train.jacobian_until * train.epochs)} of {train.epochs}"
    told |= {"jacobian until": until, "dropout": _text(dropout)}
    unread = dict.fromkeys(("jacobian weight", "jacobian until"), not train.jacobian_frequency) | {"clip": not train.clip}
    unread |= {"pretrain steps": explicit, "gradient": explicit, "pretrain layers": explicit or not train.pretrain_steps}
    unread |= {"forward steps": explicit or path_independent, "backward steps": explicit or train.gradient != "implicit"}
    own = _cells(train, skip=("recipe", "path_independence")) | told | {name: "-" for name, never in unread.items() if never}
    free = _cells(train.path_independence) if path_independent else {}
    return own | {f"path independence: {name}": text for name, text in free.items()}


def methods(profile: settings.Profile) -> pd.DataFrame:
    """How each row of the main tables draws its votes: a line per profile and method."""
    rows = []
    for p in compared(profile):
        for m in p.methods:
            own = _cells(m) | {"auditor": m.auditor.name if m.auditor else p.reference if m.audit else "-"}
            rows.append({"profile": p.name, "method": m.name, **own, "pilot": own["pilot"] if m.pilot_nfe else "-"})
    return pd.DataFrame(rows)


def _cells(record: object, skip: tuple[str, ...] = ("name",)) -> dict[str, str]:
    """Every field of a dataclass as printed, under its name."""
    return {f.name.replace("_", " "): _text(getattr(record, f.name)) for f in dataclasses.fields(record) if f.name not in skip}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str("-" if value is None else value)


def settings_tables(profile: settings.Profile) -> list[show.Shown]:
    """The tables of hyper-parameters of a profile and of the paper's own settings."""
    captions = {architecture: "Sizes of the models; a list has an entry per resolution, each half the one before."}
    captions[training] = "Training recipes. Dropout is the model's own unless the recipe has another. '-': not used."
    captions[methods] = "How votes are drawn. 'steps': evaluations of f per vote; 'audit': K; 'batch': copies or chains solved "
    captions[methods] += "together. A run may draw fewer methods, and may be audited by the reference."
    own = f"The paper's own settings are {' and '.join(repr(p.name) for p in profiles.PROFILES.values() if p.published)}."
    return [show.table(profile, f"settings_{make.__name__}", make(profile), f"{told} {own}") for make, told in captions.items()]


def _diagram(lines: list[str], arrows: Sequence[int]) -> Figure:
    """Lines in boxes below one another, with an arrow from some to the next; lines in brackets stand free."""
    fig = Figure(figsize=(plots.WIDTH, 0.28 * len(lines)), layout="constrained")
    ax, head = fig.subplots(), "-|>,head_width=0.15,head_length=0.25"
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(-len(lines), 0))
    for i, line in enumerate(lines):
        box = None if line.startswith("(") else {"boxstyle": "round,pad=0.25", "facecolor": "#d5ebe0", "linewidth": 0.6}
        ax.text(0.5, -i - 0.5, line, ha="center", va="center", fontsize=6.5, bbox=box)
    for i in arrows:
        ax.annotate("", (0.5, -i - 1.3), (0.5, -i - 0.7), arrowprops={"arrowstyle": head, "color": plots.COLOURS[1]})
    return fig


def diagrams(profile: settings.Profile) -> list[show.Shown]:
    """Standard smoothing of a DEQ above SRS, and from SRS votes to a radius by Theorem 3.1; the same for every profile."""
    def copy(number: str, start: str, evaluations: int, solution: str) -> str:
        return rf"$x+\varepsilon_{{{number}}}:\quad {start}" + r" \to f" * evaluations + rf" \to {solution} \to$ vote"

    smoothing = _diagram([
        "(a) standard DEQ: every copy from zero, $D$ evaluations of $f$",
        copy("1", "0", 5, "z^*_1"), copy("N", "0", 5, "z^*_N"),
        "(b) SRS-DEQ: from the solution before, $S \\ll D$ evaluations",
        copy("b", "0", 4, "z_1"), copy("B+b", "z_1", 2, "z_2"), copy("2B+b", "z_2", 2, "z_3"),
        "(one of $B$ chains; its votes are dependent: $K$ are audited as in (a))",
    ], arrows=(4, 5))  # fmt: skip
    upper, lower, bound = r"\overline{p}_m", r"\underline{p}_A", r"\mathrm{LowerConfBound}"
    conversion = _diagram([
        "SRS: $N_A$ of $N$ votes are for the class $c_A$",
        "audit of $K$ votes: $N_1$ of $N_2$ for $c_A$ agree",
        rf"${upper} = 1 - {bound}(N_1,\, N_2,\, 1-\alpha/2)$",
        rf"$N_A^E = N_A - {upper} N_A$: so many votes are right",
        rf"${lower} = {bound}(N_A^E,\, N,\, 1-\alpha/2)$",
        rf"$R = \sigma\, \Phi^{{-1}}({lower})$, or abstain if ${lower} \leq 1/2$",
    ], arrows=range(5))  # fmt: skip
    srs = "(a) Standard randomized smoothing of a DEQ: each of the N noisy copies is solved from zero. (b) SRS: the solver "
    srs += "starts from its chain's solution of the batch before, so S evaluations do; the first batch is warmed up."
    votes = "How Theorem 3.1 turns SRS votes into a radius. Votes that agree when they are solved again bound the share p_m of "
    votes += "wrong votes. That share of the N_A votes is given up, and what is left bounds p_A."
    return [show.figure(profile, "diagram_srs", smoothing, srs), show.figure(profile, "diagram_votes", conversion, votes)]
