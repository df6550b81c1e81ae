"""ImageNet: the settings of the profile, what the paper published, and a run of the whole pipeline on a few images.

`python -m srs.imagenet_report --profile digits` puts the tables into that profile's folder.
"""

import argparse

import pandas as pd
import torch
from matplotlib.figure import Figure

from srs import closeup, data, figures, metrics, profiles, published, report, settings, tables
from srs.deq import mdeq
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds, certify
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths
from srs.store.shipped import Tallies
from srs.training import train

NOTEBOOK = "35_imagenet"
SIGMA = 1.0  # of the published table, see `published.IMAGENET`
COPIES = 3  # noisy copies that are shown


def parameters(model: settings.Model, images: settings.Data) -> int:
    """The number of trained parameters of an MDEQ, counted without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in mdeq.MDEQ(model, images).parameters())


def settings(profiles: tuple[Profile, ...]) -> pd.DataFrame:
    """Every setting of the first model of some profiles, a column each."""
    columns = {p.name: _settings(p) for p in profiles}
    return pd.DataFrame(columns).rename_axis("setting").reset_index()


def _settings(p: Profile) -> dict[str, str]:
    (model, recipe), images = p.models[0], p.data
    full, srs = p.method(p.reference), tables.serialized(p)[0]
    size = images.shape[1] >> model.downsamples
    state = sum(c * (size >> i) ** 2 for i, c in enumerate(model.channels))
    return {
        "image (channels, height, width)": _text(images.shape),
        "shorter side before the centre is cut out": str(data.SHORTER_SIDE[images.name]),
        "classes": str(images.classes),
        "branches": str(len(model.channels)),
        "channels": _text(model.channels),
        "head channels": _text(model.head_channels),
        "final channels": str(model.final_channels),
        "expansion in the residual block": str(model.expansion),
        "input halved, times": str(model.downsamples),
        "variational dropout": f"{model.dropout:g}",
        "parameters": f"{parameters(model, images):,}",
        "numbers in the state z of an image": f"{state:,}",
        "epochs, batch": f"{recipe.epochs}, {recipe.batch}",
        "unrolled pre-training": f"{recipe.pretrain_steps:,} steps of {recipe.pretrain_layers} layers",
        "optimiser, learning rate, weight decay": f"{recipe.optimiser}, {recipe.lr:g} (cosine), {recipe.weight_decay:g}",
        "solver steps in training, forward / backward": f"{recipe.forward_steps} / {recipe.backward_steps}, Broyden",
        "Jacobian penalty, weight and frequency": f"{recipe.jacobian_weight:g}, {recipe.jacobian_frequency:g}",
        "sigma": _text(p.sigmas),
        "methods": _text(m.name for m in p.methods),
        "images, every so many of the test split": f"{p.images}, {p.stride}",
        "n0, N": f"{p.n0}, {p.n:,}",
        "chains, warm-up steps, K": f"{srs.batch}, {srs.warmup}, {srs.audit}",
        "memory of Broyden's method for a batch (GB)": f"{8e-9 * full.steps * full.batch * state:.2g}",
        "alpha": f"{p.alpha:g}",
        "radii": _text(p.radii),
    }


def _text(values) -> str:
    return ", ".join(map(str, values))


def published_table() -> pd.DataFrame:
    """The paper's ImageNet table, and the largest radius that each rule can give at its settings."""
    known, rows = published.rows("SMALL", SIGMA, "imagenet"), []
    for method, row in known.items():
        rule = Rule.THEOREM31 if method.startswith("SRS") else Rule.COHEN
        cap = bounds.largest_radius(rule, published.N, published.K, SIGMA, published.ALPHA)
        rows.append({
            "method": method,
            **{f"r={r:.2f}": str(percent) for r, percent in zip(row.radii, row.percent)},
            "seconds/image": tables.number(row.seconds, 2),
            "speed-up (seconds)": tables.number(known["MDEQ-14B"].seconds / row.seconds, 2),
            "rule": tables.RULE_LABELS[rule],
            "largest radius of the rule": tables.radius(float(cap)),
            "entries beyond it": _text(f"r={r:.2f}" for r, percent in zip(row.radii, row.percent) if r > cap and percent),
        })  # fmt: skip
    return pd.DataFrame(rows)


def at_hand(images: settings.Data) -> bool:
    """Whether SRS_DATA has a folder of test images of a data set."""
    return any(paths.images(images.name, split).is_dir() for split in ("test", "val"))


def make(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the table of settings and the published table; they need no image."""
    full, sample = (profiles.get_profile(name) for name in ("imagenet", "imagenet_sample"))
    stated = (
        f"ImageNet: the paper's settings as the profile '{full.name}' has them (those that it states once, for all data), and what the profile '{sample.name}' "
        f"changes so that the pipeline runs without ImageNet and without a GPU ({sample.note})"
    )
    known = (
        f"The paper's ImageNet table (MDEQ-SMALL, 500 images, N = {published.N:,}, K = {published.K}, one A100): certified "
        f"accuracy in percent at l2 radius r. Its source does not name sigma; only {SIGMA:g} reaches r = 3 with so many "
        "samples. Of the other noise levels no figure was found. The last columns are ours: how far a rule can reach at "
        "these settings if all votes are for one class, and the SRS entries that Theorem 3.1 therefore cannot have given."
    )
    made = {"imagenet_settings": (settings((full, sample)), stated), "imagenet_published": (published_table(), known)}
    for name, (frame, caption) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    return {name: frame for name, (frame, _) in made.items()}


def check(profile: Profile, sample: Profile, *, device: str = "cpu") -> tuple[pd.DataFrame, Figure]:
    """Run the whole pipeline on a sample: load, train, certify, every table and figure, the report.

    Args:
        profile: into whose folder the table and the figure go that are returned; all else goes into the sample's own.
        sample: what is run, as the profile `imagenet_sample`; its note opens every caption.
        device: a torch device.

    Returns:
        What each method did, and the first image with noisy copies.

    Raises:
        config.ConfigError: the sample's images are not at hand, or do not fit.
    """
    for run in sample.runs:
        train.train(run, device=device)
        certify.certify(run, device=device)
    tables.make_tables(sample)
    figures.make_figures(sample)
    report.build(sample)
    tallies, run, idx = tables.load(sample), sample.runs[0], sample.evaluated[0]
    frame = pd.DataFrame([
        _done(run, method, rule, tallies)
        for run in sample.runs for method in sample.methods for rule in bounds.rules_for(method.serialized) if rule.sound
    ])  # fmt: skip
    images = data.load(sample.data, "test")
    x = images.x(idx)
    figure = figures.noisy_copies(x.numpy(), closeup.noisy_copies(x, run.sigma, sample.seed, idx, COPIES), run.sigma)
    done = (
        f"{sample.note} Everything between image files and certificates has run once at full image and model size "
        f"({images.source}; {sample.images} images, n0 = {sample.n0}, N = {sample.n}, alpha = {sample.alpha:g}, a model "
        "that has learned nothing). Votes for c_A and disagreement are shares of the N votes; NFE are evaluations of f, "
        "audit included."
    )
    seen = (
        f"{sample.note} What the loader makes of an image file (shorter side {data.SHORTER_SIDE[sample.data.name]}, centre "
        f"{sample.data.shape[1]} x {sample.data.shape[2]}) and noisy copies, clipped to [0, 1] for display only."
    )
    tables.save(frame, paths.shown(profile, "imagenet_check"), caption=done, made_by=NOTEBOOK)
    figures.save(figure, paths.shown(profile, "imagenet_check_images"), caption=seen, made_by=NOTEBOOK)
    return frame, figure


def _done(run: Run, method: Method, rule: Rule, tallies: Tallies) -> dict[str, str]:
    own, certificates = tallies[run.id, method.name], tables.certify(run, method, tallies, rule)
    certified, cost = certificates.predict != bounds.ABSTAIN, metrics.cost(own)
    return {
        "sigma": f"{run.sigma:.2f}",
        "method": method.name,
        "rule": tables.RULE_LABELS[rule],
        "votes for c_A %": tables.percent(own["n_a"].sum(), own["n"].sum()),
        "disagreement %": tables.number(100 * metrics.disagreement(own), 2),
        "images certified": f"{int(certified.sum())} of {len(own)}",
        "of them rightly": str(int(metrics.correct(certificates, own["label"]).sum())),
        "largest radius": tables.radius(float(certificates.radius.max())),
        "NFE/image": tables.number(cost.nfe, 0),
        "audit NFE": tables.number(cost.nfe_audit, 0),
        "seconds/image": tables.number(cost.seconds, 1),
    }


def main(argv: list[str] | None = None) -> None:
    """Make the tables of ImageNet; run the pipeline on the sample, too, where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m srs.imagenet_report", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=settings.one_of(profiles.PROFILES))
    parser.add_argument("--check", action="store_true", help="run the pipeline check, which takes minutes")
    args = parser.parse_args(argv)
    try:
        chosen, few = profiles.get_profile(args.profile), profiles.get_profile("imagenet_sample")
        print(*make(chosen))
        if args.check:
            folder = paths.images(few.data.name, "val")
            settings.check(at_hand(few.data), "ImageNet sample", str(folder), "an existing folder of images per class")
            print(check(chosen, few)[0].to_string(index=False))
    except (settings.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
