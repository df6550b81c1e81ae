"""What is run: models, training recipes, sampling methods and profiles. Standard library only.

Names from outside (notebook parameters, command lines, make) enter through `get_profile`, `get_run` and `read_parameters`,
which refuse what they do not know. `python -m srs.profiles digits` prints what make asks.
"""

import dataclasses
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from srs import sealed, settings
from srs.attacks.settings import paper_attacks, Suite
from srs.settings import check, Data, Method, Model, one_of, PathIndependence, pick, Profile, ResNet, Run, STOP, Train

DIGITS = Data("digits", (1, 8, 8), 10, (0.3053,), (0.3763,), levels=16)
CIFAR10 = Data("cifar10", (3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # as released
IMAGENET = Data("imagenet", (3, 224, 224), 1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET_SAMPLE = replace(IMAGENET, name="imagenet-sample", classes=100)  # an image of each of 100 classes
DATASETS = {d.name: d for d in (DIGITS, CIFAR10, IMAGENET, IMAGENET_SAMPLE)}


def paper_methods(*, batch: int, chains: int, warmup: int, audit: int, rs="1A 5A 30A", srs="1N 1A 3A", auditor=STOP):
    """The rows of the paper's tables, by steps and solver, and the solve that audits; `batch` is a matter of speed alone."""
    solvers, auditor = {"A": "anderson", "B": "broyden", "N": "naive"}, replace(auditor, batch=batch)
    audited = dict(start="previous", batch=chains, warmup=warmup, audit=audit, auditor=auditor)
    return (
        *(Method(f"MDEQ-{way}", solvers[way[-1]], int(way[:-1]), batch=batch) for way in rs.split()),
        *(Method(f"SRS-MDEQ-{way}", solvers[way[-1]], int(way[:-1]), **audited) for way in srs.split()),
        auditor,
    )


BROYDEN = dict(rs="1B 5B 14B", srs="1B 3B", auditor=replace(STOP, solver="broyden", steps=14))  # ImageNet's rows


def fast_methods(*, batch: int, audit: int) -> tuple[Method, ...]:
    """Ways beyond the paper: one start for all images, what a pilot tells."""
    pilot = dict(batch=batch, warmup=10, auditor=replace(STOP, batch=batch))
    corrected = dict(start="corrected_pilot_mean", audit=2 * audit, **pilot)
    return (
        Method("RS-mean-2A", "anderson", 2, start="train_mean", batch=batch),
        Method("RS-mean-3A", "anderson", 3, start="train_mean", batch=batch),
        Method("SRS-pilot-2A", "anderson", 2, start="pilot_mean", audit=audit, **pilot),
        Method("SRS-corrected-1N", "naive", 1, **corrected),
        Method("SRS-margin-4A", "anderson", 4, margin=0.1, **corrected),
    )


# The paper's sizes; parameters counted in tests: 0.25 M and 11.1 M.
SMALL = Model("SMALL", (8, 16, 32), (7, 14, 28), 200, dropout=0.20)
LARGE = Model("LARGE", (32, 64, 128, 256), (14, 28, 56, 112), 1680, dropout=0.22)
IMAGENET_SMALL = Model("SMALL", (32, 64, 128, 256), (28, 56, 112, 224), 2048, dropout=0.02, downsamples=2)
RESNET110 = ResNet("ResNet110", 110)
# 8x8 digits hold two resolutions: the same block, narrower, and a head too small to do the work of f itself.
DIGITS_SMALL = Model("SMALL", (8, 16), (4, 8), 64, dropout=0.05, expansion=2)
DIGITS_LARGE = Model("LARGE", (16, 16), (4, 8), 64, dropout=0.05, expansion=2)

PAPER_SMALL = Train("paper", epochs=120, pretrain_steps=16_000)
PAPER_LARGE = replace(PAPER_SMALL, epochs=220, jacobian_weight=0.4, jacobian_frequency=0.02, jacobian_until=90 / 220)
# The paper's phases on a laptop: f at 8x8 settles sooner, so it is unrolled and solved in fewer steps, at a larger rate.
DIGITS_PAPER = replace(
    PAPER_SMALL, epochs=16, pretrain_steps=240, pretrain_layers=5, batch=48, lr=1e-2, forward_steps=6, backward_steps=5,
    augment="none",
)
# CIFAR-10 on two cores: a few epochs instead of 120, so nothing that fights overfitting (dropout, crops). Both recipes
# begin with the same unrolled model, which is the paper's pre-training phase made a recipe of its own.
CIFAR_UNROLLED = Train(
    "unrolled", epochs=4, pretrain_steps=100_000, batch=64, pretrain_layers=3, lr=3e-3, lr_end=2e-3, clip=1.0,
    jacobian_frequency=0.0, augment="flips", dropout=0.0,
)
CIFAR_PAPER = replace(
    CIFAR_UNROLLED, recipe="paper", init_from=CIFAR_UNROLLED, epochs=2, pretrain_steps=0, forward_steps=6, backward_steps=5,
    lr=2e-3, lr_end=0.0, jacobian_frequency=0.05, jacobian_until=1.0,
)
# Trained for path independence (Anil et al., NeurIPS 2022): see training.losses.
CIFAR_PATH_INDEPENDENT = replace(
    CIFAR_PAPER, recipe="path_independent", epochs=5, gradient="path_independent",
    path_independence=PathIndependence(both=False), jacobian_weight=1.0, jacobian_frequency=0.125, jacobian_until=1.0,
)
# At 0.5 it pays to go on: the model of the level beside learns this one, then two evaluations that both have to classify.
CIFAR_LONGER = replace(CIFAR_PATH_INDEPENDENT, recipe="longer", init_from=CIFAR_PATH_INDEPENDENT, init_sigma=0.25, epochs=3)
TWO = PathIndependence(most_free_steps=0, weight=4.0)
CIFAR_TWO = replace(CIFAR_PATH_INDEPENDENT, init_from=CIFAR_LONGER, epochs=2, lr=1e-3, path_independence=TWO)
# More epochs pay (the model underfits), averaged weights, too; a penalised step costs twice another, so there are fewer.
CIFAR_LONG = replace(
    CIFAR_TWO, recipe="long", init_from=CIFAR_TWO, epochs=18, lr=1.5e-3, ema=0.998, jacobian_frequency=0.0625,
    path_independence=PathIndependence(most_free_steps=2, weight=4.0),
)  # fmt: skip
# One evaluation from the mean solution has to classify, too: half of the batches begin there. A vote then costs one.
CIFAR_ONE = replace(
    CIFAR_LONG, recipe="one_step", init_from=CIFAR_LONG, epochs=12,
    path_independence=PathIndependence(("mean", "mean", "zero", "other"), most_free_steps=0, weight=4.0),
)  # fmt: skip
CIFAR_ONE_QUARTER = replace(CIFAR_ONE, init_sigma=0.5, epochs=5)  # at 0.25
# More epochs pay still; with larger batches and a larger rate they take a GPU minutes.
CIFAR_ANNEAL = replace(
    CIFAR_LONG, recipe="anneal", init_from=CIFAR_ONE, epochs=34, batch=128, lr=2e-3, jacobian_frequency=0.05,
)  # fmt: skip
CIFAR_ANNEALED = {  # at the other levels
    0.12: replace(CIFAR_ANNEAL, init_from=CIFAR_ONE_QUARTER, init_sigma=0.25, epochs=12),
    0.25: replace(CIFAR_ANNEAL, init_from=CIFAR_ONE_QUARTER, epochs=12),
    1.0: replace(CIFAR_ANNEAL, init_sigma=0.5, epochs=12),
}
CIFAR_AGAIN = {  # and once more
    sigma: replace(CIFAR_ANNEALED[sigma], recipe="anneal_again", init_from=CIFAR_ANNEALED[sigma], init_sigma=None, epochs=n)
    for sigma, n in ((0.12, 24), (0.25, 10), (1.0, 16))
}
# Two noisy copies of each image that have to agree: what certifies large radii (Jeong and Shin, NeurIPS 2020).
CIFAR_AGREE = replace(CIFAR_ONE, recipe="consistent", init_from=CIFAR_ANNEAL, epochs=14, batch=128, lr=2e-3, consistency=4.0)
# Bai et al.'s own recipe; its random resized crops are padded crops here, as for CIFAR-10.
IMAGENET_PAPER = Train(
    "paper", epochs=100, pretrain_steps=510_000, batch=128, pretrain_layers=5, optimiser="sgd", lr=0.04,
    weight_decay=2e-5, forward_steps=14, backward_steps=14, jacobian_weight=2.5, jacobian_frequency=0.08, jacobian_until=1.0,
)
# Six steps, so that each phase of a training has run once at full size. Nothing is learned.
IMAGENET_CHECK = replace(
    IMAGENET_PAPER, epochs=1, pretrain_steps=5, pretrain_layers=1, batch=15, forward_steps=2, backward_steps=2,
    jacobian_frequency=0.0,
)
# Cohen et al.'s recipe for CIFAR-10, but that the learning rate falls by a cosine, as the DEQs' does, not in steps. An
# explicit network "unrolled" for one layer is the network itself: this is cross-entropy on noisy images and no more.
RESNET_GAUSSIAN = Train(
    "gaussian", epochs=90, pretrain_steps=1_000_000, pretrain_layers=1, batch=400, optimiser="sgd", lr=0.1,
    weight_decay=1e-4, jacobian_frequency=0.0,
)
DIGITS_RESNET = (ResNet("ResNet14", 14), replace(RESNET_GAUSSIAN, epochs=10, batch=48, augment="none"))
SMOKE_PAPER = replace(DIGITS_PAPER, epochs=2, pretrain_steps=10)  # what the tests train
SMOKE_GAUSSIAN = replace(DIGITS_RESNET[1], epochs=1)

SIGMAS = (0.12, 0.25, 0.5, 1.0)


def runs_at(sigmas: tuple[float, ...], *models: tuple[Model | ResNet, Train]) -> tuple[Run, ...]:
    """A run for each model and noise level."""
    return tuple(Run(model, recipe, sigma) for model, recipe in models for sigma in sigmas)


CIFAR_RUNS = (  # at the outer levels a short training begins with the same recipe's model of the level beside
    Run(SMALL, replace(CIFAR_PAPER, init_from=CIFAR_PAPER, init_sigma=0.25, epochs=1), 0.12),
    *runs_at((0.25, 0.5), (SMALL, CIFAR_PAPER)),
    Run(SMALL, replace(CIFAR_PAPER, init_from=CIFAR_PAPER, init_sigma=0.5, epochs=1), 1.0),
    Run(SMALL, replace(CIFAR_PATH_INDEPENDENT, init_from=CIFAR_PATH_INDEPENDENT, init_sigma=0.25, epochs=2), 0.12),
    Run(SMALL, CIFAR_PATH_INDEPENDENT, 0.25),
    Run(SMALL, CIFAR_TWO, 0.5),
    Run(SMALL, replace(CIFAR_TWO, init_from=CIFAR_TWO, init_sigma=0.5), 1.0),
)
CIFAR_METHODS = paper_methods(batch=50, chains=50, warmup=10, audit=100)
CIFAR_MORE = CIFAR_METHODS + fast_methods(batch=50, audit=100)
FEWER = dict(methods=tuple(replace(m, auditor=None) for m in CIFAR_METHODS[:6]), images=10)  # audited by the full solve
CIFAR_COUNTED = tuple(run if run.sigma == 0.5 else replace(run, **FEWER) for run in CIFAR_RUNS)
NO_AUDIT = (replace(STOP, batch=50), fast_methods(batch=50, audit=0)[0])  # votes as the full solve's, and the cheapest
LARGE_BATCHES = tuple(replace(m, batch=2_000) for m in NO_AUDIT)  # as they fill a GPU
ONE = (NO_AUDIT[0], Method("RS-mean-1A", "anderson", 1, start="train_mean", batch=50))
ROUNDED = (NO_AUDIT[0], Method("RS-mean-1N-bf16", "naive", 1, start="train_mean", batch=200, head="bfloat16"))
# The paper's six rows at its K, with the solve that audits, which is the reference, in the place of the full one.
CIFAR_FIXED = (  # in batches that fill a GPU
    *(replace(m, batch=2_000) for m in (*CIFAR_METHODS[:2], NO_AUDIT[0])),
    *(replace(m, batch=400, audit=400, auditor=None) for m in CIFAR_METHODS[3:6]),
    *(replace(m, batch=2_000) for m in (NO_AUDIT[1], ONE[1])),
)  # fmt: skip

PROFILES = {
    p.name: p
    for p in (
        Profile(
            "digits", DIGITS, runs_at(SIGMAS, (DIGITS_SMALL, DIGITS_PAPER), (DIGITS_LARGE, DIGITS_PAPER), DIGITS_RESNET),
            paper_methods(batch=450, chains=50, warmup=10, audit=100), "MDEQ-30A", images=25, stride=14, n0=50, n=400,
            ablation_images=5,
            attacks=Suite(paper_attacks(), images=5, n=25, runs=(("SMALL", 0.25), ("SMALL", 0.5), ("LARGE", 0.5))),
        ),
        Profile(
            "cifar10", CIFAR10, CIFAR_COUNTED, CIFAR_MORE, "MDEQ-30A", images=20, stride=250,
            n0=100, n=1_000, ablation_images=20, attacks=Suite(paper_attacks(), images=20, n=50, runs=(("SMALL", 0.5),)),
            trains_more=False,
        ),
        # 500 images as in the paper by votes without an audit; each stops once the radii of the table are decided.
        Profile(
            "cifar10_long", CIFAR10, (
                Run(SMALL, CIFAR_LONG, 0.5), Run(SMALL, CIFAR_ONE, 0.5, ONE),
                Run(SMALL, CIFAR_ANNEAL, 0.5), Run(SMALL, CIFAR_AGREE, 0.5, ROUNDED),
                Run(SMALL, CIFAR_AGAIN[0.12], 0.12), *(Run(SMALL, CIFAR_AGAIN[s], s, LARGE_BATCHES) for s in (0.25, 1.0)),
            ), NO_AUDIT, "RS-tol", images=500, stride=10, n0=100, n=10_000, adaptive=True,
        ),
        # Every fifth of these 500 images at the paper's N, K, alpha and number of chains.
        Profile(
            "cifar10_fixed", CIFAR10, (Run(SMALL, CIFAR_AGREE, 0.5),), CIFAR_FIXED, "RS-tol",
            images=100, stride=50, n0=100, n=10_000, ablation_images=0,
        ),
        # The models of `cifar10`, and LARGE, where a GPU makes the paper's sample sizes a matter of minutes.
        Profile(
            "cifar10_gpu", CIFAR10, CIFAR_RUNS + runs_at(SIGMAS, (LARGE, PAPER_LARGE)),
            paper_methods(batch=400, chains=400, warmup=10, audit=400) + fast_methods(batch=400, audit=400), "MDEQ-30A",
            images=500, stride=10, n0=100, n=10_000,
            attacks=Suite(paper_attacks(), images=100, n=100, runs=(("SMALL", 0.5), ("LARGE", 0.5))),
        ),
        Profile(
            "paper", CIFAR10, runs_at(SIGMAS, (SMALL, PAPER_SMALL), (LARGE, PAPER_LARGE), (RESNET110, RESNET_GAUSSIAN)),
            paper_methods(batch=400, chains=400, warmup=10, audit=400), "MDEQ-30A", images=500, stride=20, n0=100, n=10_000,
            attacks=Suite(paper_attacks(), images=500, n=100), published=True,
        ),
        Profile(  # 500 of the 50,000 validation images
            "imagenet", IMAGENET, runs_at((0.25, 0.5, 1.0), (IMAGENET_SMALL, IMAGENET_PAPER)),
            paper_methods(batch=400, chains=400, warmup=10, audit=400, **BROYDEN), "MDEQ-14B",
            images=500, stride=100, n0=100, n=10_000, radii=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), published=True,
        ),
        # Everything that `imagenet` does, at full size of model and image, but on two images with few noisy copies.
        Profile(
            "imagenet_sample", IMAGENET_SAMPLE, runs_at((0.5,), (IMAGENET_SMALL, IMAGENET_CHECK)),
            paper_methods(batch=4, chains=4, warmup=4, audit=2, **BROYDEN), "MDEQ-14B", images=2, stride=50, n0=2, n=12,
            radii=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), card_images=1, note="A pipeline check, not a result.",
        ),
        # What the tests run: every stage of `digits`, none of its statistics.
        Profile(
            "smoke", DIGITS, runs_at((0.5,), (DIGITS_SMALL, SMOKE_PAPER), (ResNet("ResNet8", 8), SMOKE_GAUSSIAN)),
            paper_methods(batch=100, chains=20, warmup=10, audit=20), "MDEQ-30A", images=4, stride=7, n0=20, n=100,
            ablation_images=1, attacks=Suite(paper_attacks((0.25, 0.5), (1, 2), steps=2), images=2, n=10, confirm=20),
        ),
    )
}
OF_IMAGENET = PROFILES["imagenet"]  # shown beside every profile


def get_profile(name: str) -> Profile:
    """The profile of that name; ConfigError if there is none."""
    return pick(name, PROFILES, "profile")


def get_run(profile: str, model: str, sigma: float, recipe: str = "paper") -> Run:
    """The run of a profile with that model, sigma and recipe; ConfigError lists what there is."""
    runs = {f"{r.model.name} {r.sigma:g} {r.train.recipe}": r for r in get_profile(profile).every_run}
    return pick(f"{model} {settings.check_sigma(sigma):g} {recipe}", runs, f"run of profile {profile}")


def list_runs(profile: Profile) -> list[str]:
    """The ids of a profile's runs, MODEL-sSIGMA-RECIPE, explicit networks last."""
    return [run.id for run in profile.every_run]


def read_parameters(namespace: dict, **known: type) -> None:
    """Check a notebook's parameters (its `globals()`): papermill only warns of an unknown name and never looks at types."""
    injected = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    for name in re.findall(r"^(\w+) = ", injected[-1] if injected else "", re.M):
        check(name in known, "parameter", name, one_of(known))
    for name, kind in known.items():
        check(name in namespace, "parameters", sorted(known.keys() & namespace), f"{name} among them")
        value = namespace[name]
        right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
        check(right, name, value, f"a {kind.__name__}")


LEAVES = {"10_train": ("weights.safetensors", "train_mean.safetensors", "card.json"), "20_certify": ("counts.csv",)}


def notebooks(profile: Profile) -> list[str]:
    """The notebooks that show a profile's results; most of them begin with the model of the paper's recipe."""
    if "SMALL-s0.50-paper" not in list_runs(profile):
        return ["30_certified_accuracy"]
    attacks = ["33_attacks", *["34_white_box"] * profile.trains_more] if profile.attacks else []
    more = ["35_imagenet", "36_explicit", "40_soundness", "41_speed", "80_coverage", "90_report"]
    return ["00_quickstart", "05_method", "30_certified_accuracy", "31_consistency", "32_ablations", *attacks, *more]


def lost(profile: Profile) -> list[Path]:
    """The executed notebooks of which a run's file, or a table or figure that their captions name, is gone."""
    work, found = sealed.root() / "data" / profile.name, []
    there = {path.stem for path in (sealed.root() / "figures" / profile.name).glob("*")}
    for path in sorted((work / "notebooks").glob("*.ipynb")):
        step, _, run = path.stem.partition("-")
        shown = set(re.findall(r'"\*([\w.]+)\.\* ', path.read_text()))
        if not shown <= there or not all((work / run / file).exists() for file in LEAVES.get(step, ())):
            found.append(path.relative_to(sealed.root()))
    return found


def main(profile: str, what: str = "") -> None:
    """Tell make what there is of a profile, in words `question=answer`; `settings` writes the profile to a file instead."""
    if what == "settings":
        content = json.dumps(dataclasses.asdict(get_profile(profile)), indent=1) + "\n"
        return sealed.write_changed(sealed.root() / "data" / profile / "settings.json", content.encode())
    answers = {"profile": PROFILES}
    if p := PROFILES.get(profile):
        answers |= {"run": [run.id for run in p.runs], "explicit": [run.id for run in p.explicit], "notebook": notebooks(p)}
        answers |= {"lost": lost(p), "trains_more": [p.trains_more]}
    print(*(f"{question}={answer}" for question, found in answers.items() for answer in found))


if __name__ == "__main__":
    main(*sys.argv[1:])
