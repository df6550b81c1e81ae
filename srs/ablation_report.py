"""What each choice of the method is worth: the ablations' tables and figures with captions, as files; no torch.

`python -m srs.ablation_report --profile digits`
"""

import math
import warnings

import pandas as pd
from matplotlib.figure import Figure

from srs import ablation_tables, figures, recounts, shown, tables, variants
from srs.recounts import Recounts
from srs.settings import Profile, Run
from srs.store.sealed import paths
from srs.tables import UNSOUND_NOTE

NOTEBOOK = "32_ablations"

Made = dict[str, tuple[pd.DataFrame, str]]  # table and caption by name
Drawn = dict[str, tuple[Figure, str]]


# ------------------------------------------------------------------------------------------------ captions and files


def _where(run: Run, images: int) -> str:
    p = run.profile
    few = "test images" if images == p.images else f"of the {p.images} evaluated test images, the first ones"
    return (
        f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {p.data.name}{tables.source_note(run)}, sigma = {run.sigma:.2f}, "
        f"{images} {few}, N = {p.n:,}, K = {variants.usual_k(p)}, alpha = {p.alpha:g}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


HELD = (
    " Certified accuracy in percent at l2 radius r, under the rule that holds for the votes: 'cohen' for standard RS, 'audit' for "
    "SRS. 'disagreement' is the share of votes that differ from {reference}'s on the same noise; NFE are evaluations of f "
    "('NFE/vote': estimation, warm-up included; 'NFE/image': everything, audit included)."
)
SOLVER = (
    "Solvers at equal evaluations of f ({where}): naive iteration, Anderson's and Broyden's method, for standard RS with {few} and "
    "with {full} steps from zero and for SRS with three. With {full} steps the solver should make no difference."
)
START = (
    "Where the solver of a noisy copy starts, at one and at three Anderson steps ({where}): zero (standard RS), the clean image's "
    "solution, the previous copy's (the paper's SRS), the mean solution of 16 pilot copies (centroid), the same with what the "
    "pilot's logits miss added to every copy's (calibrated), and one state for all images (anchor). Votes from zero and from the "
    "anchor are independent and need no audit."
)
BATCH = (
    "How many noisy copies SRS solves side by side, which is its number of chains, at one and at three Anderson steps ({where}). "
    "The first copy of every chain is warmed up, so more chains cost more and leave less to be serialized."
)
WARMUP = (
    "How many Anderson steps the first batch of SRS gets, at one and at three steps for all others ({where}; {chains} chains). "
    "0: no warm-up, the first batch starts from zero with as many steps as the others. The {n0} votes that select c_A come from "
    "chains of their own, {links} long, so without a warm-up c_A may be another class and nothing is left to certify."
)
FURTHER = (
    " Lines '{base}' are the model of the main tables, on the same images. 'penalised batches' is the expected number of training "
    "batches with the Jacobian penalty; residuals are those of noisy test images."
)
JACOBIAN = (
    "With and without Jacobian regularisation in training ({where}). The shorter the training, the fewer batches the penalty has been "
    "on: where these are few, the two lines differ by chance."
)
SMOOTHADV = "SmoothAdv training: noisy images attacked by PGD, l2 {radius:g}, {steps} steps, {vectors} noise vectors ({where}).{begun}"
BEGUN = (
    " To be short, it is not trained from random weights but goes on from '{base}' for {epochs} at half the learning rate."
)
ELIMINATION = (
    "With and without correlation elimination ({where}): the same SRS votes under three rules that subtract what an audit finds, "
    "and under Cohen et al.'s rule, which takes dependent votes for independent ones. 'images above RS's radius' counts images whose "
    "certified radius exceeds the one that {reference} certifies on the same noise. "
)
ALPHA = "Failure probability alpha of a certificate, from the same stored votes ({where}, but for alpha). "
K = (
    "How many votes are audited ({where}, but for K). Every K is counted from stored votes: the full solve's votes on the same noise "
    "tell what an audit of any size finds. K = N audits every vote for c_A, which saves little against standard RS. "
)
N = (
    "How many votes are drawn ({where}, but for N), for standard RS and for three steps of SRS, Anderson's and naive, under the rule "
    "that holds. Lines 'stored votes' count the first N stored votes. Lines 'extrapolated' are simulations, not measurements: {draws} "
    "samples per image at its measured shares of votes and of disagreements, so an image whose {n} votes all agree keeps doing so. "
    "They stand for the profile's K and for the paper's, {paper_k}."
)
N_FIGURE = (
    "Certified accuracy against l2 radius for several numbers of votes N at fixed K ({where}, but for N). Solid: the first N stored "
    "votes. Broken: extrapolated at the measured shares of votes, a simulation. A fixed K caps the radius of SRS however large N is."
)


def make(profile: Profile) -> tuple[dict[str, pd.DataFrame], dict[str, Figure]]:
    """Make and save all tables and figures of the ablations for which there are counts; warns of those left out.

    Both are empty for a profile without the run that is ablated.
    """
    run = variants.base(profile)
    if run is None:
        return {}, {}
    made, drawn, left_out = from_tallies(run)
    counted = recounts.stored(run)
    for part in (_sweeps(run, counted), _variants(run, counted), _recipes(run, counted)):
        made, drawn, left_out = made | part[0], drawn | part[1], left_out + part[2]
    for name, (frame, caption) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    for name, (fig, caption) in drawn.items():
        figures.save(fig, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    if left_out:
        warnings.warn(f"no counts are stored for {', '.join(left_out)}: run `python -m srs.ablations`", stacklevel=2)
    return {name: frame for name, (frame, _) in made.items()}, {name: fig for name, (fig, _) in drawn.items()}


def from_tallies(run: Run) -> tuple[Made, Drawn, list[str]]:
    """What follows from the counts of the main tables: elimination and alpha, on all images."""
    if not ablation_tables.has_tallies(run):
        return {}, {}, ["ablation_elimination", "ablation_alpha"]
    tallies, where = tables.load(ablation_tables.alone(run)), _where(run, run.profile.images)
    caption = ELIMINATION.format(where=where, reference=run.profile.reference) + UNSOUND_NOTE
    alpha = ALPHA.format(where=where) + UNSOUND_NOTE
    made = {
        "ablation_elimination": (ablation_tables.elimination(run, tallies), caption),
        "ablation_alpha": (ablation_tables.by_alpha(run, tallies), alpha),
    }
    return made, {"ablation_alpha_figure": (ablation_tables.alpha_figure(run, tallies), alpha)}, []


def _sweeps(run: Run, counted: Recounts) -> tuple[Made, Drawn, list[str]]:
    """What follows from the votes of the main tables, and of three naive steps: K and N, on all images."""
    where, made, drawn, left_out = _where(run, run.profile.images), {}, {}, []
    if ablation_tables.lacking(counted, ablation_tables.k_keys(run)):
        left_out.append("ablation_k")
    else:
        caption = K.format(where=where) + UNSOUND_NOTE
        made["ablation_k"] = (ablation_tables.by_k(run, counted), caption)
        drawn["ablation_k_figure"] = (ablation_tables.k_figure(run, counted), caption)
    if ablation_tables.lacking(counted, ablation_tables.n_keys(run)):
        left_out.append("ablation_n")
    else:
        caption = N.format(where=where, n=run.profile.n, draws=ablation_tables.DRAWS, paper_k=ablation_tables.PAPER_K)
        made["ablation_n"] = (ablation_tables.by_n(run, counted), caption)
        drawn["ablation_n_figure"] = (ablation_tables.n_figure(run, counted), N_FIGURE.format(where=where))
    return made, drawn, left_out


def _variants(run: Run, counted: Recounts) -> tuple[Made, Drawn, list[str]]:
    """What needs votes of its own: solver, start, chains and warm-up, on the first images."""
    profile, made, left_out = run.profile, {}, []
    facts = dict(
        where=_where(run, variants.images(profile)), few=variants.RS_STEPS[0], full=profile.method(profile.reference).steps,
        chains=profile.method("SRS-MDEQ-3A").batch, n0=profile.n0,
        links=_counted(math.ceil(profile.n0 / profile.method("SRS-MDEQ-3A").batch), "link"),
    )  # fmt: skip
    for name, what, chosen, caption in (
        ("ablation_solver", "solver", variants.solvers(profile), SOLVER),
        ("ablation_start", "start", variants.starts(profile), START),
        ("ablation_batch", "chains", variants.chains(profile), BATCH),
        ("ablation_warmup", "warm-up steps", variants.warmups(profile), WARMUP),
    ):
        if ablation_tables.lacking(counted, (ablation_tables.usual(run, variant.method) for variant in chosen)):
            left_out.append(name)
        else:
            told = caption.format(**facts) + HELD.format(reference=profile.reference)
            made[name] = (ablation_tables.varied(run, counted, what, chosen), told)
    return made, {}, left_out


def _recipes(run: Run, counted: Recounts) -> tuple[Made, Drawn, list[str]]:
    """What needs models of its own: the Jacobian penalty and SmoothAdv, on the first images."""
    where, base, made, left_out = _where(run, variants.images(run.profile)), run.train.recipe, {}, []
    hard = variants.smoothadv_recipe(run)
    pgd, begun = hard.adversarial, BEGUN.format(base=base, epochs=_counted(hard.epochs, "epoch")) if hard.begin == run.train else ""
    captions = {
        "ablation_jacobian": JACOBIAN.format(where=where),
        "ablation_smoothadv": SMOOTHADV.format(
            radius=pgd.radius, steps=pgd.steps, vectors=pgd.vectors, where=where, begun=begun),
    }  # fmt: skip
    for (name, caption), other in zip(captions.items(), (variants.nojacobian_recipe(run), hard)):
        chosen = (run.train, other)
        if ablation_tables.lacking(counted, ablation_tables.recipe_keys(run, chosen)):
            left_out.append(name)
        else:
            caption += FURTHER.format(base=base) + HELD.format(reference=run.profile.reference)
            made[name] = (ablation_tables.recipes(run, counted, chosen), caption)
    return made, {}, left_out


if __name__ == "__main__":
    for names in make(shown.profile_argument("python -m srs.ablation_report", "Make the tables and figures of the ablations.")):
        print(*names, sep="\n")
