"""What each part of the recipe `contractive` does: the same training with one of them changed, a line each.

`python -m srs.contraction --profile digits`
"""

import argparse
import warnings
from dataclasses import replace

import pandas as pd

from srs import agreement, profiles, settings, tables, variants
from srs.settings import Method, Profile, Run, Train
from srs.store.sealed import paths, shipped
from srs.training import train

NOTEBOOK = "32_ablations"
NAME = "contraction_parts"
STARTS, STEPS = ("zero", "previous", "centroid"), (1, 2, 4)  # what the votes of every model are measured from, and after
SIZE = agreement.Size(images=10)
CAPTION = (
    "What each part of the recipe 'contractive' does ({where}): the same training with it changed. Accuracy is that of the full solve on "
    "noisy test images, {quality}; the other columns are the share of votes in percent that differ from the full solve's after "
    "k evaluations of f from three starts, on {votes} noisy copies."
)


def recipes(run: Run) -> dict[str, Train]:
    """The recipe of the run, `contractive`, and that with each of its parts changed, by what a table calls them.

    A change that leaves the profile's own recipe as it is has no line.
    """
    own = (r.train for r in run.profile.runs if (r.model, r.sigma, r.train.recipe) == (run.model, run.sigma, "contractive"))
    whole = next(own, profiles.contractive(run.train, epochs=run.train.epochs))

    changed = {
        "always from zero": ("zero", {"starts": ("zero",)}),
        "two evaluations, no more": ("two", {"most_free_steps": 0}),
        "the same, and both classify": ("both", {"most_free_steps": 0, "both": True}),
        "last two iterates may differ": ("apart", {"weight": 0.0}),
    }
    parts = {
        label: replace(whole, recipe=f"contractive_{name}", contraction=rule)
        for label, (name, change) in changed.items() if (rule := replace(whole.contraction, **change)) != whole.contraction
    }  # fmt: skip
    return {run.train.recipe: run.train, "contractive": whole, **parts}


def ways(chains: int) -> tuple[Method, ...]:
    """The ways to vote, of those that `agreement` knows, that the table shows."""
    every = agreement.ways(chains)
    return tuple(m for m in every if m.solver == "anderson" and m.start in STARTS and m.steps in STEPS and not (m.tol or m.margin))


def measure(profile: Profile, *, training: bool = True, device: str = "cpu", progress: bool = True) -> None:
    """Train the models that are missing and measure their votes; nothing for a profile without the run that is ablated.

    Args:
        profile: whose run of model SMALL at sigma 0.5, recipe `paper`, stands beside.
        training: train the models that are missing; if not, those whose weights are there take part alone.
        device: a torch device.
        progress: whether to show progress bars.
    """
    run = variants.base(profile)
    for recipe in recipes(run).values() if run else ():
        other = replace(run, train=recipe)
        if training:
            train.train(other, device=device, progress=progress)
        if _points(other) is None and paths.weights(other).is_file():
            agreement.measure(other, "test", SIZE, chosen=ways(SIZE.chains), device=device, progress=progress)


def make(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the table of the models that are measured, `contractive` and with a part changed; warns of those left out."""
    run = variants.base(profile)
    there = {name: replace(run, train=recipe) for name, recipe in recipes(run).items()} if run else {}
    left_out = [other.id for other in there.values() if _points(other) is None or not shipped.card(other)]
    there = {name: other for name, other in there.items() if other.id not in left_out}
    if len(there) < 3:
        return {}
    if left_out:
        warnings.warn(f"not measured, so left out: {', '.join(left_out)}: run `python -m srs.contraction`", stacklevel=2)
    frame = table(there)
    votes = {p.votes for other in there.values() for p in _points(other).values()}
    images = {shipped.card(other)["quality_images"] for other in there.values()}
    where = f"MDEQ-{run.model.name}, {profile.data.name}{tables.source_note(run)}, sigma = {run.sigma:.2f}"
    caption = CAPTION.format(
        where=where, quality=" or ".join(f"{n} of them" for n in sorted(images)), votes=" or ".join(map(str, sorted(votes)))
    )
    tables.save(frame, paths.shown(profile, NAME), caption=caption, made_by=NOTEBOOK)
    return {NAME: frame}


def table(runs: dict[str, Run]) -> pd.DataFrame:
    """A line per model: noisy accuracy from its card, disagreement with the full solve after few steps from each start."""
    rows = []
    for name, run in runs.items():
        points = _points(run)
        rows.append({
            "recipe": name,
            "noisy accuracy %": tables.number(100 * shipped.card(run)["noisy_accuracy"], 1),
            **{
                f"{start}, k = {k}": tables.number(100 * p.differing / p.votes, 2) if (p := points.get((start, k))) else ""
                for start in STARTS for k in STEPS
            },
        })  # fmt: skip
    return pd.DataFrame(rows)


def _points(run: Run) -> dict[tuple[str, int], agreement.Point] | None:
    """What is stored of a run's votes by start and steps; None if nothing is."""
    stored = agreement.stored(run, "test")
    wanted = {(m.start, m.steps) for m in ways(SIZE.chains)}
    return stored and {
        (p.start, p.steps): p for p in stored
        if p.solver == "anderson" and not (p.tol or p.margin) and (p.start, p.steps) in wanted
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Train and measure what the table of a profile needs, then make it."""
    parser = argparse.ArgumentParser(prog="python -m srs.contraction", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=settings.one_of(profiles.PROFILES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-training", action="store_true", help="leave out models that are not trained yet")
    parser.add_argument("--stored", action="store_true", help="measure nothing: make the table of what is stored")
    args = parser.parse_args(argv)
    try:
        profile = profiles.get_profile(args.profile)
        if not args.stored:
            measure(profile, training=not args.no_training, device=args.device)
    except (settings.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))
    print(*make(profile), sep="\n")


if __name__ == "__main__":
    main()
