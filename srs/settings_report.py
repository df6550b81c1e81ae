"""The paper's tables of hyper-parameters, generated from `config`: what is printed here is what runs.

Every field of a model, a recipe, a profile and a method is shown, so a new one cannot be forgotten; the profile `paper`
always stands beside the one that was asked for.
"""

import dataclasses
import functools
from collections.abc import Iterable

import pandas as pd
import torch

from srs import profiles, settings, shown, tables
from srs.deq import mdeq
from srs.settings import Model, Profile, ResNet, Train
from srs.store.sealed import paths

NOTEBOOK = "05_method"
BESIDE = ("paper", "imagenet")  # profiles that are shown with every other, where there are such

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


def shown_profiles(profile: Profile) -> list[Profile]:
    """The profile that was asked for, then those that always stand beside it."""
    names = dict.fromkeys((profile.name, *(name for name in BESIDE if name in profiles.PROFILES)))
    return [profiles.PROFILES[name] for name in names]


def architecture(profile: Profile) -> pd.DataFrame:
    """The sizes of every model: a column per profile and model, the paper's beside ours."""
    shown_models = [(p, model) for p in shown_profiles(profile) for model, _ in (*p.models, *p.baselines)]
    return _side_by_side({f"{p.name}: {model.name}": _architecture(model, p.data) for p, model in shown_models})


def _architecture(model: Model | ResNet, data: settings.Data) -> dict[str, str]:
    channels, height, width = data.shape
    dimension, parameters = _counted(model, data)
    own = _cells(model)
    if isinstance(model, Model):
        groups = f"{model.groups} ({model.groups // 2} after fusion)"
        own = {"branches": str(len(model.channels)), **own, LABELS["groups"]: groups}
    return {
        "input": f"{channels} x {height} x {width}",
        "classes": str(data.classes),
        **own,
        "dimension of z": _text(dimension),
        "parameters (counted)": _text(parameters),
    }


@functools.cache
def _counted(model: Model | ResNet, data: settings.Data) -> tuple[int, int]:
    """The dimension of z and the number of parameters of a network, built without memory for its weights."""
    with torch.device("meta"):
        network = mdeq.network(model, data)
        dimension = network.initial(network.inject(torch.zeros(1, *data.shape))).shape[1]
    return dimension, sum(p.numel() for p in network.parameters())


def training(profile: Profile) -> pd.DataFrame:
    """Every number of every recipe and of those it begins with: a column per profile, model and recipe."""
    columns = {}
    for p in shown_profiles(profile):
        for model, recipe in (*p.models, *p.baselines):
            for train in _chain(recipe):
                columns[f"{p.name}: {model.name}, {train.recipe}"] = _training(model, train)
            for sigma, train in p.recipes_at:
                if train.recipe == recipe.recipe:
                    for first in _chain(train)[:-1]:
                        columns.setdefault(f"{p.name}: {model.name}, {first.recipe}", _training(model, first))
                    columns[f"{p.name}: {model.name}, {train.recipe} at sigma {sigma:g}"] = _training(model, train)
    return _side_by_side(columns)


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
    penalised = sum(epoch < train.jacobian_until * train.epochs for epoch in range(train.epochs))  # as srs.train counts
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
    for p in shown_profiles(profile):
        explicit = ", ".join(model.name for model, _ in p.baselines)
        own = {"data": p.data.name, LABELS["baselines"]: explicit or "-", LABELS["note"]: p.note or "-"}
        columns[p.name] = _cells(p, skip=("name", "models", "recipes_at", "methods")) | own | {LABELS["fewer"]: _fewer(p.fewer)}
    return _side_by_side(columns)


def _fewer(fewer: settings.Fewer | None) -> str:
    return f"sigma {_text(fewer.sigmas)}: {fewer.images} images, {_text(fewer.methods)}" if fewer else "-"


def methods(profile: Profile) -> pd.DataFrame:
    """How each row of the main tables draws its votes: a line per profile and method."""
    rows = []
    for p in shown_profiles(profile):
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


def _cells(record: object, skip: Iterable[str] = ("name",)) -> dict[str, str]:
    """Every field of a dataclass as printed, by its label."""
    order = list(LABELS)
    names = [field.name for field in dataclasses.fields(record) if field.name not in skip]
    names.sort(key=lambda name: order.index(name) if name in LABELS else len(order))
    return {LABELS.get(name, name.replace("_", " ")): _text(getattr(record, name)) for name in names}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _side_by_side(columns: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One line per setting in the order of the first column that has it."""
    names = dict.fromkeys(name for cells in columns.values() for name in cells)
    rows = [{"setting": name, **{column: cells.get(name, "-") for column, cells in columns.items()}} for name in names]
    return pd.DataFrame(rows)


def make_settings(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the tables of hyper-parameters of a profile and of the paper's own settings."""
    others = " and ".join(f"'{p.name}'" for p in shown_profiles(profile) if p.name in BESIDE)
    beside = "" if profile.name in BESIDE else f"profile '{profile.name}' beside "
    whose = f"({beside}the paper's settings: {others})"
    made = {
        "settings_architecture": (
            architecture(profile),
            f"Sizes of the models {whose}. One entry per resolution, each half the one before; convolutions inside f "
            "are weight-normalised; parameters are counted on the built network.",
        ),
        "settings_training": (
            training(profile),
            f"Training recipes {whose}. The learning rate follows a cosine; dropout is the model's own unless the "
            "recipe has another. '-': the recipe does not use it.",
        ),
        "settings_sampling": (
            sampling(profile),
            f"What is sampled and certified {whose}. n0 noisy copies select the class, N others estimate its "
            "probability; a certificate may fail with probability alpha.",
        ),
        "settings_methods": (
            methods(profile),
            f"How votes are drawn {whose}. Methods that start from 'zero' are standard randomized smoothing; those "
            "that start from 'previous' are serialized: each chain's solver starts from its solution of the batch "
            "before.",
        ),
    }
    for name, (frame, caption) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    return {name: frame for name, (frame, _) in made.items()}


if __name__ == "__main__":
    for name in make_settings(shown.profile_argument("python -m srs.settings_report", "Make the tables of settings.")):
        print(name)
