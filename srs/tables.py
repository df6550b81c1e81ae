"""Every table, from stored tallies only. Cells are text as printed: what .md, .tex, .csv and the report show is one.

Percentages come from integer counts, to one decimal; radii are rounded down, never up. Columns made from wall time
have "seconds" in their name, so that two runs can be compared with times aside.
"""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from srs import metrics, published, shown
from srs.metrics import Certificates
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, sealed, shipped
from srs.store.shipped import certified, load, Tallies

ACCURACY_NOTEBOOK = "30_certified_accuracy"
CONSISTENCY_NOTEBOOK = "31_consistency"

SRS_RULES = bounds.rules_for(serialized=True)
RULE_LABELS = {
    Rule.COHEN: "cohen",
    Rule.AUDIT: "audit (ours)",
    Rule.THEOREM31: "theorem31 (paper)",
    Rule.RELEASED: "released (unsound)",
}
PUBLISHED_LABEL = "as published (paper, CIFAR-10)"
PUBLISHED_IMAGENET_LABEL = "as published (paper, ImageNet)"
UNSOUND_NOTE = (
    "Rows under 'released (unsound)' follow the authors' code, whose certificates do not hold: they are shown for "
    "comparison with the published tables only."
)
CONFIDENCE = 0.95  # of the intervals over images
RHO = 0.001  # failure probability of the high-probability statement, as Cohen et al. 2019 set it


# ------------------------------------------------------------------------------------------------ certificates


def serialized(profile: Profile) -> tuple[Method, ...]:
    """The SRS methods of a profile."""
    return tuple(method for method in profile.methods if method.serialized)


def best_of_the_paper(profile: Profile) -> Method:
    """SRS-MDEQ-3A where the profile has it, else its last SRS method."""
    srs = serialized(profile)
    return next((method for method in srs if method.name == "SRS-MDEQ-3A"), srs[-1])


def certify(run: Run, method: Method, tallies: Tallies, rule: Rule) -> Certificates:
    """Certificates to be shown under the rule's label, which says so where the rule is unsound."""
    with bounds.silent_about_released():
        return metrics.certificates(tallies[run.id, method.name], rule=rule, sigma=run.sigma, alpha=run.profile.alpha)


def rrd(run: Run, method: Method, tallies: Tallies, rule: Rule) -> np.ndarray:
    """RRD of a method under a rule against the reference method under `cohen`, per image that this one certifies."""
    reference = run.profile.method(run.profile.reference)
    standard = certify(run, reference, tallies, Rule.COHEN)
    return metrics.relative_radius_difference(standard, certify(run, method, tallies, rule))


# ------------------------------------------------------------------------------------------------ cells


def percent(count: int, images: int) -> str:
    """100 count / images to one decimal in integer arithmetic, halves up; empty without images."""
    tenths = (2000 * int(count) + images) // (2 * images) if images else None
    return "" if tenths is None else f"{tenths // 10}.{tenths % 10}"


def number(value: float | None, digits: int) -> str:
    """A number with that many decimals; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def radius(value: float) -> str:
    """A radius to three decimals, rounded down."""
    return number(bounds.round_down(value, 3), 3)


def outward(low: float, high: float) -> str:
    """An interval of shares in percent to one decimal, its ends rounded away from each other."""
    return f"{math.floor(1000 * low) / 10:.1f}-{math.ceil(1000 * high) / 10:.1f}"


def _at(r: float) -> str:
    return f"r={r:.2f}"


# ------------------------------------------------------------------------------------------------ certified accuracy


def certified_accuracy(run: Run, tallies: Tallies) -> pd.DataFrame:
    """The paper's main table of one model and sigma: accuracy, ACR, agreement and cost of every method and rule."""
    known, rows = _published_rows(run), []
    for method in run.profile.methods:
        rows += [_measured(run, method, tallies, rule) for rule in bounds.rules_for(method.serialized)]
        if method.name in known:
            rows.append(_published(run, method.name, known[method.name]))
    return pd.DataFrame(rows).fillna("")


def _measured(run: Run, method: Method, tallies: Tallies, rule: Rule) -> dict[str, str]:
    own = tallies[run.id, method.name]
    certificates = certify(run, method, tallies, rule)
    right = metrics.correct(certificates, own["label"])
    held = metrics.certified_counts(right, certificates.radius, run.profile.radii)
    cost = metrics.cost(own)
    faster = metrics.speed_up(metrics.cost(tallies[run.id, run.profile.reference]), cost)
    return {
        "method": method.name,
        "rule": RULE_LABELS[rule],
        **{_at(r): percent(count, len(own)) for r, count in zip(run.profile.radii, held)},
        "ACR": radius(metrics.average_certified_radius(right, certificates.radius)),
        "disagreement %": number(100 * metrics.disagreement(own), 2),
        "NFE/image": number(cost.nfe, 0),
        "NFE/vote": number(cost.nfe_per_vote, 2),
        "audit NFE": number(cost.nfe_audit, 0),
        "speed-up (NFE)": number(faster.nfe, 2),
        "seconds/image": number(cost.seconds, 3),
        "speed-up (seconds)": number(faster.seconds, 2),
    }


def _published_rows(run: Run) -> dict[str, published.Row]:
    return published.rows(run.model.name, run.sigma, run.profile.data.name)


def _published(run: Run, method: str, row: published.Row) -> dict[str, str]:
    at = dict(zip(row.radii, row.percent or ()))
    return {
        "method": method,
        "rule": PUBLISHED_IMAGENET_LABEL if run.profile.data.name == "imagenet" else PUBLISHED_LABEL,
        **{_at(r): str(at.get(r, "")) for r in run.profile.radii},
        "ACR": number(row.acr, 2),
        "seconds/image": number(row.seconds, 2),
    }


def accuracy_with_confidence(run: Run, tallies: Tallies) -> pd.DataFrame:
    """How sure the main table is, sound rules only: certified accuracy, its interval, and what holds for g itself."""
    alpha, rows = run.profile.alpha, []
    for method in run.profile.methods:
        own = tallies[run.id, method.name]
        for rule in filter(lambda rule: rule.sound, bounds.rules_for(method.serialized)):
            certificates = certify(run, method, tallies, rule)
            right = metrics.correct(certificates, own["label"])
            held = metrics.certified_counts(right, certificates.radius, run.profile.radii)
            low, high = bounds.proportion_interval(held, len(own), CONFIDENCE)
            sure = bounds.high_probability_accuracy(held, len(own), alpha, RHO)
            cells = {
                "measured": [percent(count, len(own)) for count in held],
                f"{100 * CONFIDENCE:g} % interval": [outward(*ends) for ends in zip(low, high)],
                f"holds with {100 * (1 - RHO):g} %": [f">= {math.floor(1000 * share) / 10:.1f}" for share in sure],
            }
            for statement, texts in cells.items():
                at = {_at(r): text for r, text in zip(run.profile.radii, texts)}
                rows.append({"method": method.name, "rule": RULE_LABELS[rule], "statement": statement, **at})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ consistency


def mean_rrd(profile: Profile, tallies: Tallies) -> pd.DataFrame:
    """Mean RRD of every SRS method under every rule, model by model; `images` are those that standard RS certifies."""
    rows = []
    for run in certified(profile, tallies):
        for method in serialized(run.profile):
            by_rule = {rule: rrd(run, method, tallies, rule) for rule in SRS_RULES}
            means = {RULE_LABELS[rule]: number(v.mean() if v.size else None, 3) for rule, v in by_rule.items()}
            images = str(by_rule[Rule.AUDIT].size)
            rows.append({**identity(run), "method": method.name, "images": images, **means})
    return pd.DataFrame(rows)


def p_m_and_gap(profile: Profile, tallies: Tallies) -> pd.DataFrame:
    """Per SRS method: how many votes for c_A the standard DEQ does not give, and Theorem 3.1's bound on that."""
    rows = []
    for run in certified(profile, tallies):
        for method in serialized(run.profile):
            own = tallies[run.id, method.name]
            p_m = metrics.p_m(own)
            measured = ~np.isnan(p_m)
            p_m, gap = p_m[measured], metrics.gap(own, profile.alpha)[measured]
            some = bool(p_m.size)
            rows.append({
                **identity(run), "method": method.name, "images": str(p_m.size),
                "mean p_m %": number(100 * p_m.mean() if some else None, 2),
                "largest p_m %": number(100 * p_m.max() if some else None, 2),
                "mean gap %": number(100 * gap.mean() if some else None, 2),
                "images with gap < 0": str(np.count_nonzero(gap < 0)),
            })  # fmt: skip
    return pd.DataFrame(rows)


def identity(run: Run) -> dict[str, str]:
    """The cells that say which run a line is about."""
    return {"model": run.model.name, "recipe": run.train.recipe, "sigma": f"{run.sigma:.2f}"}


# ------------------------------------------------------------------------------------------------ models


def model_quality(profile: Profile) -> pd.DataFrame:
    """What each model card says of accuracy, convergence and cost; empty cells where there is no card or field."""
    return pd.DataFrame([{**identity(run), **_quality(run)} for run in profile.runs])


def _quality(run: Run) -> dict[str, str]:
    card = shipped.card(run)
    residual, agreement = card.get("residual", {}), card.get("agreement", {})
    full = run.profile.method(run.profile.reference).steps
    return {
        "parameters": number(card.get("parameters"), 0),
        "clean accuracy %": _share(card.get("clean_accuracy")),
        "noisy accuracy %": _share(card.get("noisy_accuracy")),
        "residual after 1 step": _scientific(residual.get("1")),
        f"residual after {full} steps": _scientific(residual.get(str(full))),
        f"votes as after {full} steps, 1 step %": _share(agreement.get("1")),
        f"votes as after {full} steps, 5 steps %": _share(agreement.get("5")),
        "training steps": number(card.get("steps"), 0),
        "training seconds": number(card.get("seconds"), 0),
    }


def _share(value: float | None) -> str:
    return number(None if value is None else 100 * value, 1)


def _scientific(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.1e}"


# ------------------------------------------------------------------------------------------------ files


def save(frame: pd.DataFrame, stem: Path, *, caption: str, made_by: str) -> None:
    """Write a table as .md, .tex and .csv with its sidecar; the same frame gives the same bytes.

    Args:
        frame: cells as printed.
        stem: path without an ending, see `paths.shown`.
        caption: plain text.
        made_by: name of the notebook.
    """
    caption = shown.marked(stem, caption)
    markdown = frame.to_markdown(index=False, disable_numparse=True)
    tex = frame.to_latex(
        index=False, escape=True, caption=_escape(caption), label=f"tab:{stem.name}", column_format="l" * frame.shape[1]
    )
    csv = frame.to_csv(index=False, lineterminator="\n")
    for ending, text in ((".md", f"{markdown}\n\n{caption}\n"), (".tex", tex), (".csv", csv)):
        shown.write_whole(shown.beside(stem, ending), text.encode())
    shown.describe(stem, shown.About("table", caption, made_by))


def read_csv(path: Path, *, by: str = "", separator: str = ",") -> pd.DataFrame:
    """A stored table of measurements, as `store.save` wrote it; raises what `store.read` raises."""
    return sealed.read(path, "table of measurements", lambda body: pd.read_csv(io.BytesIO(body), sep=separator), by=by)


def _escape(text: str) -> str:
    """Plain text as LaTeX wants it in a caption."""
    return text.translate({ord(c): "\\" + c for c in "%_&#$"} | {ord("<"): "$<$", ord(">"): "$>$"})


def name_of(prefix: str, run: Run) -> str:
    """The stable name of a run's artefact; the paper's recipe goes without saying."""
    recipe = "" if run.train.recipe == "paper" else f"_{run.train.recipe}"
    return f"{prefix}_{run.model.name}_s{run.sigma:.2f}{recipe}"


def source_note(run: Run) -> str:
    """What a caption must say of the images that a run was trained on."""
    return " (JPEG copies of the images)" if "JPEG" in shipped.card(run).get("data", "") else ""


def _setting(run: Run) -> str:
    p = run.profile
    return (
        f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {p.data.name}{source_note(run)}, sigma = {run.sigma:.2f}, {p.images} test "
        f"images, N = {p.n}, alpha = {p.alpha:g}"
    )


def _published_note(run: Run) -> str:
    if not _published_rows(run):
        return ""
    imagenet = run.profile.data.name == "imagenet"
    label, images = (PUBLISHED_IMAGENET_LABEL, "ImageNet") if imagenet else (PUBLISHED_LABEL, "CIFAR-10")
    cap = radius(float(bounds.largest_radius(Rule.THEOREM31, published.N, published.K, run.sigma, published.ALPHA)))
    other = "" if run.profile.data.name in ("cifar10", "imagenet") else (
        f" They are of other data and larger models than these on {run.profile.data.name}: compare how rows relate to "
        "each other, not their values."
    )  # fmt: skip
    return (
        f" Rows '{label}' are the paper's own figures (500 {images} images, N = {published.N}, one A100)."
        f"{other} At the paper's settings Theorem 3.1 certifies no radius above {cap}: published SRS entries beyond it "
        "are out of the theorem's reach and within the released formula's."
    )


def _accuracy_caption(run: Run) -> str:
    return (
        f"Certified accuracy in percent of all images at l2 radius r ({_setting(run)}). ACR is the average certified "
        "radius, rounded down. 'disagreement' is the share of votes that differ from "
        f"{run.profile.reference}'s on the same noise; NFE are evaluations of f on one noisy copy, selection, warm-up "
        f"and audit included ('NFE/vote': estimation only); speed-ups are against {run.profile.reference}. "
        f"{UNSOUND_NOTE}{_published_note(run)}"
    )


def _confidence_caption(run: Run) -> str:
    return (
        f"How sure the certified accuracy is ({_setting(run)}), for the rules that hold. The interval "
        "(Clopper-Pearson, ends rounded outward) is over the draw of the images. The last statement bounds the true "
        "certified accuracy of the smoothed classifier on these very images, since each certificate may fail with "
        "probability alpha (Cohen et al. 2019, Bernstein's inequality)."
    )


def make_quality(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the table of model quality."""
    caption = (
        f"The trained models of profile '{profile.name}': accuracy on clean and on noisy test images at the training "
        "sigma, mean relative residual of the solver on noisy images, and how many votes of a solver stopped early are "
        "those of the full solve, from a zero start. Empty cells: no model card was found."
    )
    return _save_all(profile, {"model_quality": (model_quality(profile), caption)}, ACCURACY_NOTEBOOK)


def make_certified_accuracy(profile: Profile, tallies: Tallies) -> dict[str, pd.DataFrame]:
    """Make and save the main table and the table of confidence of every run."""
    made = {}
    for run in certified(profile, tallies):
        made[name_of("certified_accuracy", run)] = (certified_accuracy(run, tallies), _accuracy_caption(run))
        made[name_of("confidence", run)] = (accuracy_with_confidence(run, tallies), _confidence_caption(run))
    return _save_all(profile, made, ACCURACY_NOTEBOOK)


def make_consistency(profile: Profile, tallies: Tallies) -> dict[str, pd.DataFrame]:
    """Make and save the tables that compare SRS with standard RS image by image; none for a profile without SRS."""
    if not serialized(profile):
        return {}
    rrd_caption = (
        f"Mean relative radius difference |r_RS - r_SRS| / r_RS against {profile.reference} under 'cohen', over the "
        "images that it certifies (their number in the column 'images'); where SRS abstains or certifies another class "
        "the difference is 1. All methods saw the same noise. Radii under 'released (unsound)' do not hold: a small "
        "difference there is no merit."
    )
    p_m_caption = (
        f"p_m: share of an image's SRS votes for c_A that {profile.reference}, or the method's own auditor, does not give on the "
        "same noise. gap: "
        "Theorem 3.1's upper bound on p_m, from the audited votes, minus the p_m measured on all votes; below 0 the "
        f"bound failed, which it may with probability alpha/2 = {profile.alpha / 2:g} per image."
    )
    made = {
        "mean_rrd": (mean_rrd(profile, tallies), rrd_caption),
        "p_m_and_gap": (p_m_and_gap(profile, tallies), p_m_caption),
    }
    return _save_all(profile, made, CONSISTENCY_NOTEBOOK)


def _save_all(profile: Profile, made: dict[str, tuple[pd.DataFrame, str]], made_by: str) -> dict[str, pd.DataFrame]:
    for name, (frame, caption) in made.items():
        save(frame, paths.shown(profile, name), caption=caption, made_by=made_by)
    return {name: frame for name, (frame, _) in made.items()}


def make_tables(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save every table of a profile; returns them by name."""
    tallies = load(profile)
    return make_quality(profile) | make_certified_accuracy(profile, tallies) | make_consistency(profile, tallies)


if __name__ == "__main__":
    for name in make_tables(shown.profile_argument("python -m srs.tables", "Make every table of a profile.")):
        print(name)
