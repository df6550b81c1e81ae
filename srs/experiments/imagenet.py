"""Notebook 35: ImageNet's settings, what the paper published of it, and the whole pipeline once on a few images."""

from dataclasses import replace

import pandas as pd

from srs import data, settings, store
from srs.analysis import measures, show
from srs.analysis.show import Shown
from srs.experiments import certified_accuracy, consistency, method, quickstart
from srs.experiments.certified_accuracy import PUBLISHED_SETTINGS
from srs.settings import Profile
from srs.smoothing import bounds, certify
from srs.smoothing.bounds import ABSTAIN, Rule
from srs.training import train

SIGMA = 1.0  # of the published table; its source names none
COPIES = 3  # noisy copies that are shown


def settings_table(profiles: tuple[Profile, ...]) -> pd.DataFrame:
    """Every setting of the first model of some profiles, a column each."""
    return method.side_by_side({p.name: _settings(p) for p in profiles})


def _settings(p: Profile) -> dict[str, str]:
    model, recipe, images = p.runs[0].model, p.runs[0].train, p.data
    full, srs = p.method(p.reference), next(m for m in p.methods if m.serialized)
    state, parameters = method.counted(model, images)
    return {
        "image (channels, height, width)": _text(images.shape),
        "shorter side before the centre is cut out": str(data.SHORTER_SIDE[images.name]),
        "classes": str(images.classes), "branches": str(len(model.channels)), "channels": _text(model.channels),
        "head channels": _text(model.head_channels), "final channels": str(model.final_channels),
        "expansion in the residual block": str(model.expansion), "input halved, times": str(model.downsamples),
        "variational dropout": f"{model.dropout:g}", "parameters": f"{parameters:,}", "numbers in the state z of an image": f"{state:,}",
        "epochs, batch": f"{recipe.epochs}, {recipe.batch}",
        "unrolled pre-training": f"{recipe.pretrain_steps:,} steps of {recipe.pretrain_layers} layers",
        "optimiser, learning rate, weight decay": f"{recipe.optimiser}, {recipe.lr:g} (cosine), {recipe.weight_decay:g}",
        "solver steps in training, forward / backward": f"{recipe.forward_steps} / {recipe.backward_steps}, Broyden",
        "Jacobian penalty, weight and frequency": f"{recipe.jacobian_weight:g}, {recipe.jacobian_frequency:g}",
        "sigma": _text(p.sigmas), "methods": _text(m.name for m in p.methods),
        "images, every so many of the test split": f"{p.images}, {p.stride}", "n0, N": f"{p.n0}, {p.n:,}",
        "chains, warm-up steps, K": f"{srs.batch}, {srs.warmup}, {srs.audit}",
        "memory of Broyden's method for a batch (GB)": f"{8e-9 * full.steps * full.batch * state:.2g}",
        "alpha": f"{p.alpha:g}", "radii": _text(p.radii),
    }  # fmt: skip


def _text(values) -> str:
    return ", ".join(map(str, values))


def published(full: Profile) -> pd.DataFrame:
    """The paper's ImageNet table, and the largest radius that each rule can give at its settings.

    Args:
        full: the profile of the paper's ImageNet settings; its methods are the rows.
    """
    known = certified_accuracy.published(full.data.name).xs(SIGMA, level="sigma").droplevel("model")
    known = known.loc[[m.name for m in full.methods]]
    rules = [Rule.THEOREM31 if m.serialized else Rule.COHEN for m in full.methods]
    n, k, alpha = PUBLISHED_SETTINGS.values()
    caps = [float(bounds.largest_radius(rule, n, k, SIGMA, alpha)) for rule in rules]
    radii = {f"r={r:.2f}": r for r in full.radii}
    beyond = [_text(name for name, r in radii.items() if r > cap and row[name]) for cap, (_, row) in zip(caps, known.iterrows())]
    seconds = known["seconds/image"]
    return known[list(radii)].map("{:g}".format).assign(**{
        "seconds/image": seconds.map("{:.2f}".format), "speed-up (seconds)": seconds[full.reference] / seconds, "rule": list(map(str, rules)),
        "largest radius of the rule": list(map(show.round_down, caps)), "entries beyond it": beyond,
    }).reset_index()  # fmt: skip


def tables(profile: Profile, full: Profile, sample: Profile) -> list[Shown]:
    """The tables of settings and of what was published, in the profile's folder; they need no image."""
    n, k, _ = PUBLISHED_SETTINGS.values()
    stated = (
        f"ImageNet: the paper's settings as the profile '{full.name}' has them (those that it states once, for all data), and what the "
        f"profile '{sample.name}' changes so that the pipeline runs without ImageNet and without a GPU ({sample.note})"
    )
    known = (
        f"The paper's ImageNet table (MDEQ-SMALL, 500 images, N = {n:,}, K = {k}, one A100): certified accuracy in percent at l2 radius r. "
        f"Its source does not name sigma; only {SIGMA:g} reaches r = 3 with so many samples. Of the other noise levels no figure was found. "
        "The last columns are ours: how far a rule can reach at these settings if all votes are for one class, and the SRS entries that "
        "Theorem 3.1 therefore cannot have given."
    )
    return [
        show.table(profile, "imagenet_settings", settings_table((full, sample)), stated),
        show.table(profile, "imagenet_published", published(full), known),
    ]


def published_finding(table: pd.DataFrame) -> str:
    """How many of the published SRS entries lie beyond the theorem's reach."""
    srs = table[table["rule"] == Rule.THEOREM31]
    printed = srs.filter(like="r=").astype(float)
    beyond, cap = srs["entries beyond it"].map(lambda cell: len(cell.split(", ")) if cell else 0).sum(), srs["largest radius of the rule"].iloc[0]
    return (
        f"With K = {PUBLISHED_SETTINGS['k']} audited votes Theorem 3.1 certifies no radius above {cap} at sigma {SIGMA:g}, so {beyond} of the "
        f"{int((printed > 0).to_numpy().sum())} published SRS entries above 0 cannot come from it; notebook 40 says where they come from."
    )


def at_hand(images: settings.Data) -> bool:
    """Whether SRS_DATA has a folder of test images of a data set."""
    return any(store.brought(images.name, split).is_dir() for split in ("test", "val"))


def check(profile: Profile, sample: Profile, *, device: str = "cpu") -> list[Shown]:
    """Run the whole pipeline on a sample: load, train, certify, every table and figure of its main notebooks.

    Args:
        profile: into whose folder the table and the figure go that are returned; all else goes into the sample's own.
        sample: what is run; its note opens every caption.
        device: a torch device.

    Returns:
        What each method did, and the first image with noisy copies.

    Raises:
        ConfigError: the sample's images are not at hand, or do not fit.
    """
    for run in sample.runs:
        train.train(run, device=device)
        certify.certify(run, device=device)
    counted = store.read_counts(sample)
    certified_accuracy.quality(sample)
    for make in (certified_accuracy.tables, certified_accuracy.curves, consistency.tables, consistency.histograms):
        make(counted, sample)
    done = (
        f"Everything between image files and certificates has run once at full image and model size ({data.load(sample.data, 'test').source}; "
        f"{sample.images} images, n0 = {sample.n0}, N = {sample.n}, alpha = {sample.alpha:g}, a model that has learned nothing). "
        f"{check_finding(counted)} Votes for c_A and disagreement are shares of the N votes; NFE are evaluations of f, audit included."
    )
    seen = (
        f"What the loader makes of an image file (shorter side {data.SHORTER_SIDE[sample.data.name]}, centre {sample.data.shape[1]} x "
        f"{sample.data.shape[2]}) and noisy copies, clipped to [0, 1] for display only."
    )
    marked = replace(profile, note=sample.note)
    return [
        show.table(marked, "imagenet_check", check_table(counted, sample), done),
        show.figure(marked, "imagenet_check_images", quickstart.draw_copies(sample.runs[0], sample.evaluated[0], COPIES), seen),
    ]


def check_table(counted: pd.DataFrame, sample: Profile) -> pd.DataFrame:
    """What each method did on the sample: a line per noise level, method and sound rule."""
    by = ["sigma", "method", "rule"]
    certified = measures.certificates(counted, alpha=sample.alpha)
    certified = certified[certified["rule"].isin(measures.SOUND)]
    groups, spent = certified.groupby(by, observed=True), measures.cost(certified, by)
    return pd.DataFrame({
        "votes for c_A %": 100 * groups["n_a"].sum() / groups["n"].sum(), "disagreement %": spent["disagreement %"],
        "images certified": groups["predict"].agg(lambda predict: f"{int((predict != ABSTAIN).sum())} of {len(predict)}"),
        "of them rightly": groups["correct"].sum(), "largest radius": groups["radius"].max().map(show.round_down),
        "NFE/image": spent["NFE/image"], "audit NFE": spent["audit NFE"], "seconds/image": spent["seconds/image"],
    }).reset_index()  # fmt: skip


def check_finding(counted: pd.DataFrame) -> str:
    """How unanimous the votes of the sample are, and how often the class they select is right."""
    share = 100 * counted["n_a"].sum() / counted["n"].sum()
    return f"{share:.0f} % of all votes are for c_A, which is the image's class in {int((counted['c_a'] == counted['label']).sum())} of {len(counted)} rows."
