"""What exact noise costs: the time to draw it, what its 64 bits add to alpha, and whether a model votes otherwise."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from srs import bounds, config, data, exact, models, paths, settings, tables, votes

NOTEBOOK = "40_soundness"
PIXELS = 1_000_000  # drawn at a time to be timed
REPEATS = 3  # the fastest one counts: the machine may be busy
IMAGES, COPIES = 3, 200  # on which votes are compared: minutes of the smallest network, not hours of the largest


def _seconds(draw: Callable[[], np.ndarray]) -> float:
    """The shortest of some timings of a draw."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        draw()
        times.append(time.perf_counter() - start)
    return min(times)


def drawing_cost(data_set: config.Data, sigma: float, samples: int) -> dict[str, str]:
    """One row: what a million pixels of grid noise take beside float noise, and what the 64 bits add to alpha."""
    rng = votes.stream(0, 0, "estimate")
    start = time.perf_counter()
    exact.table.__wrapped__(sigma, data_set.levels)  # past the cache, to be timed
    once = time.perf_counter() - start
    levels, pixels = data_set.levels, int(np.prod(data_set.shape))
    grid = _seconds(lambda: exact.draw(rng, (PIXELS,), sigma, levels))
    plain = _seconds(lambda: rng.standard_normal(PIXELS, np.float32))
    return {
        "data": data_set.name,
        "grid": f"1/{levels}",
        "sigma": f"{sigma:.2f}",
        "thresholds": str(len(exact.table(sigma, levels).thresholds)),
        "added to alpha per certificate": f"{exact.added_to_alpha(sigma, levels, pixels, samples):.0e}",
        "table, once (seconds)": tables.number(once, 2),
        "float noise, a million pixels (seconds)": tables.number(plain, 4),
        "grid noise, a million pixels (seconds)": tables.number(grid, 4),
        "ratio of the seconds": tables.number(grid / plain, 1),
    }


def vote_shares(run: config.Run) -> dict[str, str]:
    """One row: the share of votes for c_A on float and on grid noise, images side by side, by the standard solve."""
    model = models.load(paths.weights(run), run.model, run.profile.data)
    images = data.load(run.profile.data, "test")
    copies = min(COPIES, run.profile.n)
    sampling = replace(run.profile.sampling, n0=min(run.profile.n0, copies), n=copies)
    shares, spent, c_a = [], [], bounds.ABSTAIN
    for idx in run.profile.evaluated[:IMAGES]:
        both = []
        for kind in settings.NOISES:
            start = time.perf_counter()
            kinds = replace(sampling, noise=kind)
            drawn = votes.draw_votes(model, images.x(idx), sampling.reference, kinds, run.sigma, idx=idx)
            spent.append(time.perf_counter() - start)
            c_a = c_a if both else bounds.top_class(drawn.select, sampling.classes)
            both.append(bounds.count(drawn.estimate, c_a) / copies)
        shares.append(both)
    plain, grid = np.array(shares).T
    pooled = (plain + grid) / 2
    by_chance = 3 * np.sqrt(2 * pooled * (1 - pooled) / copies)
    worst = int(np.abs(plain - grid).argmax())
    return {
        "model": run.id,
        "images": str(len(shares)),
        "copies": str(copies),
        "largest difference of vote shares": tables.number(abs(plain - grid)[worst], 3),
        "float / grid there": f"{plain[worst]:.3f} / {grid[worst]:.3f}",
        "three standard errors there": tables.number(by_chance[worst], 3),
        "votes on float noise, an image (seconds)": tables.number(float(np.mean(spent[::2])), 2),
        "votes on grid noise, an image (seconds)": tables.number(float(np.mean(spent[1::2])), 2),
    }


def make_exact_noise(profile: config.Profile) -> dict[str, pd.DataFrame]:
    """Make and save the table of what exact noise costs, and the one of votes where a trained model is at hand."""
    samples = profile.n0 + profile.n
    data_sets = dict.fromkeys((profile.data, config.CIFAR10))  # 8-bit images in any case: most thresholds
    rows = [drawing_cost(d, sigma, samples) for d in data_sets for sigma in profile.sigmas]
    caption = (
        "The exact-noise mode: noise on the pixels' own grid from the exactly computed discretised Gaussian, so that "
        f"rounding cannot void a certificate. 'added to alpha': bound for a certificate from {samples} noisy copies on "
        "what rounding the probabilities to 64 bits can do. Both kinds of noise come from the same generator."
    )
    made = {"exact_noise": (pd.DataFrame(rows), caption)}
    trained = [run for run in profile.runs if paths.weights(run).is_file()]
    if trained:
        caption = (
            f"Votes of one trained model ({profile.reference}) for the same class on float noise and on grid noise, "
            "drawn independently of each other: up to three standard errors of difference is what chance gives."
        )
        made["exact_noise_votes"] = (pd.DataFrame([vote_shares(trained[0])]), caption)
    for name, (frame, text) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=text, made_by=NOTEBOOK)
    return {name: frame for name, (frame, _) in made.items()}
