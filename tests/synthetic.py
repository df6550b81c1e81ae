"""Made-up counts and measurements of a whole profile: what the tables, figures and report are tested on without a network.

Everything is drawn with seeds that depend on the run's and the method's name, so that the same files come out each time.
Nothing here asks the code that makes tables.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from srs import sealed, store
from srs.attacks.settings import Attack
from srs.experiments import ablations, attacks, speed, white_box
from srs.settings import Method, Profile, Run
from srs.store import ImageCounts

# Share of votes that are lost, differ and cost, by method: the order of the paper's tables, nothing more.
WORSE = {
    "MDEQ-1A": 0.3, "MDEQ-5A": 0.1, "MDEQ-30A": 0.0, "SRS-MDEQ-1N": 0.04, "SRS-MDEQ-1A": 0.02, "SRS-MDEQ-3A": 0.004,
    "MDEQ-1B": 0.3, "MDEQ-5B": 0.1, "MDEQ-14B": 0.0, "SRS-MDEQ-1B": 0.02, "SRS-MDEQ-3B": 0.004, "RS": 0.0, "RS-tol": 0.0,
}  # fmt: skip


def image_counts(**counts) -> ImageCounts:
    """The counts of one rightly classified image with ten unanimous votes, but for the given fields."""
    plain = dict(
        idx=0, label=3, c_a=3, n=10, n_a=10, k=-1, m=-1, n_2=-1, n_1=-1, n_wrong=0, n_differ=0,
        nfe_select=0, nfe_estimate=0, nfe_audit=0, seconds=0.0,
    )  # fmt: skip
    return ImageCounts(**plain | counts)


def counted(run: Run, method: Method) -> np.ndarray:
    """The counts that a run has of a method, as a structured array, a row per image."""
    rows = store.read_frame(store.own(run, store.COUNTS), {"method": str} | store.KINDS, "result file", by="")
    return rows[rows["method"] == method.name].drop(columns="method").to_records(index=False)


def write_counts(run: Run, method: Method, counts: list[ImageCounts]) -> None:
    """Put counts of a method in the place of those that a run has of it."""
    path = store.own(run, store.COUNTS)
    there = pd.read_csv(path, comment="#", float_precision="round_trip") if path.is_file() else pd.DataFrame({"method": []})
    store.write_counts(run, dict(list(there.groupby("method", sort=False))) | {method.name: counts}, drawn_as(run))


def drawn_as(run: Run) -> dict[str, dict]:
    """The record that stands beside a run's counts."""
    return {method.name: store.drawn_as(run, method) for method in run.profile.methods}


def every_count(run: Run, method: Method) -> list[ImageCounts]:
    """Plausible counts of every image of a run under a method; the images are the same for every method."""
    p, worse, found = run.profile, WORSE.get(method.name, 0.02), []
    images, rng = np.random.default_rng(17), _rng(run.id + method.name)  # one stream for what all methods share
    label = images.integers(0, p.data.classes, p.images).tolist()
    p_a = images.beta(12, 0.3 + 2 * run.sigma, p.images)
    right = images.random(p.images) < 0.9
    steps = 12 if method.tol else method.steps  # of a solve that stops by itself, on average
    evaluations = steps * p.n + (method.warmup * method.batch if method.needs_audit else 0)
    for i in range(p.images):
        n_a = int(rng.binomial(p.n, p_a[i] * (1 - worse)))
        n_wrong = int(rng.binomial(n_a, worse))
        k = min(method.audit, n_a)
        n_2 = min(n_a, int(rng.binomial(method.audit, n_a / p.n)))
        m = int(rng.hypergeometric(n_wrong, n_a - n_wrong, k)) if k else 0
        n_1 = n_2 - min(n_2, int(rng.binomial(n_2, worse)))
        found.append(ImageCounts(
            idx=i * p.stride, label=label[i], c_a=label[i] if right[i] else (label[i] + 1) % p.data.classes, n=p.n, n_a=n_a,
            k=k, m=m, n_2=n_2, n_1=n_1, n_wrong=n_wrong, n_differ=n_wrong + int(rng.binomial(p.n - n_a, worse)),
            nfe_select=steps * p.n0, nfe_estimate=evaluations, nfe_audit=(12 if method.auditor else 30) * k,
            seconds=1e-5 * evaluations,
        ))  # fmt: skip
    return found


def _rng(*names: str) -> np.random.Generator:
    return np.random.default_rng([ord(c) for c in "/".join(names)])


def write_profile(profile: Profile, *, explicit: bool = False) -> None:
    """Write the counts and model cards of a profile's DEQs, or of its explicit networks, under SRS_ROOT."""
    for run in profile.explicit if explicit else profile.runs:
        store.write_counts(run, {method.name: every_count(run, method) for method in run.profile.methods}, drawn_as(run))
        sealed.write_json(store.own(run, store.CARD), {
            "run": run.id, "recipe": run.train.recipe, "sigma": run.sigma, "parameters": 12_345, "seconds": 42.0,
            "steps": 900, "clean_accuracy": 0.981, "noisy_accuracy": 0.7, "quality_images": 25,
            "residual": {"1": 0.5, "5": 0.06, "10": 0.011, "30": 0.002}, "agreement": {"1": 0.61, "5": 0.93, "30": 1.0},
        })  # fmt: skip


def write_everything(profile: Profile) -> None:
    """Write all that a profile's tables are made from: also of baselines, ablations, attacks, speed."""
    write_profile(profile)
    write_profile(profile, explicit=True)
    for run in profile.runs:
        write_timings(run)
    base = ablations.base(profile)
    store.save_frame(store.own(base, ablations.NAME), recounted(base))
    for run in attacks.runs_of(profile):
        write_attacks(run)
    write_white_box(profile.runs[0])


def recounted(run: Run) -> pd.DataFrame:
    """Plausible counts of every line of the ablations' tables, as their file has them."""
    rows, p = [], run.profile
    for table, value, train, method, n, k in ablations.lines(run):
        other, shorter = replace(run, train=train), replace(p, n=n, methods=tuple(replace(m, audit=0) for m in p.methods))
        every = every_count(replace(other, profile=shorter), replace(method, audit=min(k, n)))
        some = every[: ablations.images_of(table, p)]
        rows.append(store.label(other, method, some).assign(table=table, value=value, K=k))
    return pd.concat(rows)


def write_timings(run: Run) -> None:
    """Write seconds of a run's methods and of the released code's."""
    rng, ways = _rng(run.id, "speed"), speed.contenders_of(run, 400)
    nfe = [float(m.steps + 2 * (m.solver == "anderson_as_released")) for m in ways]
    t = pd.DataFrame({"label": [m.name for m in ways], "batch": [m.batch for m in ways], "repetitions": 5, "nfe": nfe})
    t["seconds"] = t["nfe"] * rng.uniform(0.0009, 0.0015, len(t))
    t = t.assign(ratio=t["seconds"][0] / t["seconds"], ratio_best=t["seconds"][1] / t["seconds"])
    store.save_frame(store.own(run, "bench.csv"), t.assign(differing=rng.uniform(0, 0.3, len(t)) / t["nfe"]))
    sealed.write_json(store.own(run, "bench.json"), {"device": "no machine"})


def write_attacks(run: Run) -> None:
    """Write what the attacks of a run's profile did: the further from the image, the more answers are another class."""
    suite, rng, p = attacks.suite_of(run.profile), _rng(run.id, "attacks"), run.profile
    known, rows = every_count(run, p.method(p.reference))[: suite.images], []
    for attack in suite.attacks:
        for i, image in enumerate(known):
            for radius in attack.radii or (round(0.2 + 0.1 * i, 3),):
                base = _answer(rng, image.label, radius, p)
                confirm = suite.confirm if rng.random() < 0.3 else 0
                votes = [_confirmed(rng, image.c_a, radius, confirm, p) for _ in suite.methods][0]  # others' were drawn before
                rows.append(_attacked(image.idx, image.label, attack, radius, base, (suite.n, *votes)))
    store.save_frame(store.own(run, "attacks.csv"), pd.DataFrame(rows, columns=list(store.ATTACKED)))


def _confirmed(rng: np.random.Generator, c_a: int, radius: float, confirm: int, p: Profile) -> tuple:
    """The first votes' class, and how many further ones are for each class."""
    top = int(rng.binomial(confirm, 0.6))
    own = _answer(rng, c_a, 0.7 * radius, p)
    further = {c_a: top, (c_a + 1) % p.data.classes: int(rng.binomial(confirm - top, 0.8))}
    return own, " ".join(str(further.get(c, 0)) for c in range(p.data.classes)) if confirm else ""


def _attacked(idx: int, label: int, attack: Attack, radius: float, base: int, votes: tuple) -> tuple:
    """A row of `store.ATTACKED`."""
    return (idx, label, attack.name, attack.steps, attack.steps * attack.gradient.cost, radius, 0.99 * radius, base, *votes)


def _answer(rng: np.random.Generator, c: int, radius: float, p: Profile) -> int:
    return (c + int(rng.random() < radius)) % p.data.classes


def write_white_box(run: Run) -> None:
    """Write attacks of a run and of its hardened one, as few as the profile `smoke` measures."""
    suite, p, none = white_box.suite_of(run, steps=2, radii=(0.5,)), run.profile, store.NOT_DRAWN
    images = p.evaluated[: suite.images]
    for other in white_box.both(run).values():
        rng = _rng(other.id, "white box")
        rng.beta(1, 4, 12 * len(images))  # tables of before drew these
        rows = [
            _attacked(idx, 3, attack, r, _answer(rng, 3, r, p), (0, none, ""))
            for attack in suite.attacks for idx in images for r in attack.radii
        ]  # fmt: skip
        store.save_frame(store.own(other, "white_box.csv"), pd.DataFrame(rows, columns=list(store.ATTACKED)))


def counts(*rows: dict, sigma: float = 0.5, needs_audit: bool = False, method: str = "MDEQ-30A") -> pd.DataFrame:
    """A long table of those counts (`image_counts(**row)`) under one method of one run; a row may name others."""
    told = dict(model="SMALL", recipe="paper", sigma=sigma, method=method, reference="MDEQ-30A", needs_audit=needs_audit)
    named = [({k: v for k, v in row.items() if k in told}, {k: v for k, v in row.items() if k not in told}) for row in rows]
    return pd.DataFrame([told | own | vars(image_counts(**{"idx": i} | counted)) for i, (own, counted) in enumerate(named)])
