"""What each choice of the method is worth: the ablations as frames and figures, from stored counts only; no torch.

`ablation_report` gives them captions and files.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from srs import figures, metrics, tables, variants
from srs.metrics import Certificates
from srs.recounts import Key, Recounts
from srs.settings import Method, Profile, Run, Train
from srs.smoothing import audit_size, bounds
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, shipped
from srs.store.shipped import Tallies
from srs.tables import number, percent, RULE_LABELS
from srs.variants import Variant

NOTHING = "none (unsound): cohen on SRS votes"
STORED, FAR = "stored votes", "extrapolated"
DRAWS = 40  # simulated samples of each image, over which what is extrapolated is averaged
PAPER_K = 400


# ------------------------------------------------------------------------------------------------ what is stored


def alone(run: Run) -> Profile:
    """The profile with this run and no other."""
    return replace(run.profile, models=((run.model, run.train),), sigmas=(run.sigma,), baselines=())


def has_tallies(run: Run) -> bool:
    """Whether the counts of all the profile's methods are there, made here or shipped."""
    methods = run.profile.methods
    return any(all(place(run, m).is_file() for m in methods) for place in (paths.tallies, paths.shipped_tallies))


def usual(run: Run, method: Method) -> Key:
    """All votes of a method, with the profile's K."""
    return Key(run.id, method.name, run.profile.n, variants.usual_k(run.profile) if method.serialized else 0)


def lacking(counted: Recounts, keys: Iterable[Key]) -> bool:
    """Whether the counts of one of the keys are not there."""
    return any(key not in counted for key in keys)


# ------------------------------------------------------------------------------------------------ cells


def certificates(run: Run, tallies: np.ndarray, rule: Rule, alpha: float | None = None) -> Certificates:
    """Certificates under a rule at the profile's alpha or another, to be shown under a label that says if it is unsound."""
    with bounds.silent_about_released():
        return metrics.certificates(tallies, rule=rule, sigma=run.sigma, alpha=alpha or run.profile.alpha)


def accuracy(run: Run, tallies: np.ndarray, rule: Rule, alpha: float | None = None) -> dict[str, str]:
    """Cells: certified accuracy in percent at the profile's radii, and ACR."""
    held = certificates(run, tallies, rule, alpha)
    right = metrics.correct(held, tallies["label"])
    counts = metrics.certified_counts(right, held.radius, run.profile.radii)
    cells = {f"r={r:.2f}": percent(count, len(tallies)) for r, count in zip(run.profile.radii, counts)}
    return cells | {"ACR": tables.radius(metrics.average_certified_radius(right, held.radius))}


def acr(run: Run, tallies: np.ndarray, rule: Rule, alpha: float | None = None) -> float:
    """The average certified radius, as a number."""
    held = certificates(run, tallies, rule, alpha)
    return metrics.average_certified_radius(metrics.correct(held, tallies["label"]), held.radius)


def _holding(method: Method) -> Rule:
    """The rule that holds for a method's votes."""
    return bounds.rules_for(method.serialized)[0]


def _measured(run: Run, method: Method, own: np.ndarray) -> dict[str, str]:
    """Cells of a method under the rule that holds: what it certifies, how often it disagrees, what it costs."""
    cost = metrics.cost(own)
    return {
        "method": method.name,
        "rule": RULE_LABELS[_holding(method)],
        **accuracy(run, own, _holding(method)),
        "disagreement %": number(100 * metrics.disagreement(own), 2),
        "NFE/vote": number(cost.nfe_per_vote, 2),
        "NFE/image": number(cost.nfe, 0),
    }


# ------------------------------------------------------------------------------------------------ from tallies


def elimination(run: Run, tallies: Tallies) -> pd.DataFrame:
    """Certified accuracy of the same SRS votes with correlation elimination (three rules) and without any."""
    reference = tallies[run.id, run.profile.reference]
    standard = certificates(run, reference, Rule.COHEN)
    rows = [{"method": run.profile.reference, "elimination": "not needed: cohen", **accuracy(run, reference, Rule.COHEN)}]
    for method in tables.serialized(run.profile):
        own = tallies[run.id, method.name]
        for rule in (*tables.SRS_RULES, Rule.COHEN):
            beyond = int((certificates(run, own, rule).radius > standard.radius).sum())
            label = NOTHING if rule is Rule.COHEN else RULE_LABELS[rule]
            rows.append({
                "method": method.name, "elimination": label, **accuracy(run, own, rule),
                "images above RS's radius": str(beyond), "mean p_m %": _mean_p_m(own),
            })  # fmt: skip
    return pd.DataFrame(rows).fillna("")


def _mean_p_m(own: np.ndarray) -> str:
    p_m = metrics.p_m(own)
    return number(100 * float(np.nanmean(p_m)) if not np.isnan(p_m).all() else None, 2)


def by_alpha(run: Run, tallies: Tallies) -> pd.DataFrame:
    """Certified accuracy at other failure probabilities, every method under its rules."""
    rows = []
    for method in (run.profile.method(run.profile.reference), *tables.serialized(run.profile)):
        for rule in bounds.rules_for(method.serialized):
            for alpha in variants.ALPHAS:
                told = {"method": method.name, "rule": RULE_LABELS[rule], "alpha": f"{alpha:g}"}
                rows.append(told | accuracy(run, tallies[run.id, method.name], rule, alpha))
    return pd.DataFrame(rows)


def alpha_figure(run: Run, tallies: Tallies) -> Figure:
    """ACR against alpha, a panel per SRS method, a line per rule and one for standard RS."""
    reference, panels = tallies[run.id, run.profile.reference], {}
    at = np.array(variants.ALPHAS)
    for method in tables.serialized(run.profile):
        own = tallies[run.id, method.name]
        lines = {f"{run.profile.reference}, cohen": [acr(run, reference, Rule.COHEN, a) for a in at]}
        lines |= {RULE_LABELS[rule]: [acr(run, own, rule, a) for a in at] for rule in tables.SRS_RULES}
        panels[method.name] = {label: (at, np.array(line)) for label, line in lines.items()}
    return swept(panels, label=r"failure probability $\alpha$")


# ------------------------------------------------------------------------------------------------ from recounts: K, N


def by_k(run: Run, counted: Recounts) -> pd.DataFrame:
    """Certified accuracy and cost of every audit size K, under the three rules that audit."""
    rows = []
    for method in tables.serialized(run.profile):
        for rule in tables.SRS_RULES:
            for k in variants.ks(run.profile):
                own = counted[Key(run.id, method.name, run.profile.n, k)]
                told = {"method": method.name, "rule": RULE_LABELS[rule], "K": str(k)}
                rows.append(told | accuracy(run, own, rule) | {"NFE/image": number(metrics.cost(own).nfe, 0)})
    return pd.DataFrame(rows)


def k_figure(run: Run, counted: Recounts) -> Figure:
    """ACR against K, a panel per SRS method, a line per rule and one for standard RS."""
    standard = acr(run, counted[usual(run, run.profile.method(run.profile.reference))], Rule.COHEN)
    at, panels = np.array(variants.ks(run.profile)), {}
    for method in tables.serialized(run.profile):
        own = [counted[Key(run.id, method.name, run.profile.n, k)] for k in at.tolist()]
        lines = {f"{run.profile.reference}, cohen": (at, np.full(len(at), standard))}
        lines |= {RULE_LABELS[rule]: (at, np.array([acr(run, t, rule) for t in own])) for rule in tables.SRS_RULES}
        panels[method.name] = lines
    return swept(panels, label="audited votes K")


def k_keys(run: Run) -> list[Key]:
    """What `by_k` and `k_figure` need."""
    reference = usual(run, run.profile.method(run.profile.reference))
    pairs = ((m, k) for m in tables.serialized(run.profile) for k in variants.ks(run.profile))
    return [reference, *(Key(run.id, m.name, run.profile.n, k) for m, k in pairs)]


def extrapolated(own: np.ndarray, n: int, k: int) -> np.ndarray:
    """Tallies of n votes at each image's measured shares, DRAWS simulated ones per image, with K = k audited (0: none)."""
    rng, tiled = np.random.default_rng(0), np.tile(own, DRAWS)
    p_m = np.nan_to_num(metrics.p_m(tiled))
    n_a = rng.binomial(n, tiled["n_a"] / tiled["n"])
    agreeing = rng.binomial(n_a, 1 - p_m)
    counts = audit_size.audited_counts(rng, n, n_a, agreeing, k)
    for name in ("n", "n_a", "k", "m", "n_2", "n_1"):
        tiled[name] = getattr(counts, name)
    tiled["n_wrong"] = n_a - agreeing
    tiled["n_differ"] = -1  # only the votes for c_A are simulated
    return tiled


def of_n(run: Run, counted: Recounts) -> list[tuple[Method, str, int, int, np.ndarray]]:
    """Every N that is shown of standard RS and of three steps of SRS: method, source, N, K, tallies."""
    profile, k_usual, found = run.profile, variants.usual_k(run.profile), []
    for method in (profile.method(profile.reference), *variants.three_steps(profile)):
        for n in variants.stored_ns(profile):
            k = min(k_usual, n) if method.serialized else 0
            found.append((method, STORED, n, k, counted[Key(run.id, method.name, n, k)]))
        for k in dict.fromkeys((k_usual, PAPER_K) if method.serialized else (0,)):
            own = counted[usual(run, method)]
            found += [(method, FAR, n, k, extrapolated(own, n, k)) for n in variants.far_ns(profile)]
    return found


def n_keys(run: Run) -> list[Key]:
    """What `of_n` needs."""
    profile, k_usual = run.profile, variants.usual_k(run.profile)
    methods = (profile.method(profile.reference), *variants.three_steps(profile))
    pairs = [(m, n) for m in methods for n in variants.stored_ns(profile)]
    return [Key(run.id, m.name, n, min(k_usual, n) if m.serialized else 0) for m, n in pairs]


def by_n(run: Run, counted: Recounts) -> pd.DataFrame:
    """Certified accuracy against the number of votes N, stored ones and extrapolated ones, under the rule that holds."""
    rows = []
    for method, source, n, k, own in of_n(run, counted):
        told = {"method": method.name, "rule": RULE_LABELS[_holding(method)], "N": f"{n:,}", "K": str(k or ""), "from": source}
        cost = metrics.cost(own).nfe if source == STORED else audit_size.nfe(run, method, counted[usual(run, method)], n, k)
        rows.append(told | accuracy(run, own, _holding(method)) | {"NFE/image": number(cost, 0)})
    return pd.DataFrame(rows)


def n_figure(run: Run, counted: Recounts) -> Figure:
    """Certified accuracy against radius for every N at the profile's K, a panel per method; extrapolated ones broken."""
    panels: dict[str, dict[str, figures.Curve]] = {}
    for method, source, n, k, own in of_n(run, counted):
        if source == STORED or k in (0, variants.usual_k(run.profile)):
            held = certificates(run, own, _holding(method))
            label = f"N = {n:,}" if source == STORED else f"extrapolated: {n:,}"
            panels.setdefault(method.name, {})[label] = (metrics.correct(held, own["label"]), held.radius)
    fig = figures.accuracy_curves(panels)
    furthest = max(radius.max(initial=0.0) for panel in panels.values() for _, radius in panel.values())
    for ax in fig.axes:
        ax.set_xlim(0, 1.05 * furthest or 1)  # one scale: panels are compared
    return fig


# ------------------------------------------------------------------------------------------------ from recounts: variants


def varied(run: Run, counted: Recounts, what: str, chosen: tuple[Variant, ...]) -> pd.DataFrame:
    """A line per variant on the first images: its value, what it certifies under the rule that holds, what it costs."""
    images, rows = variants.images(run.profile), []
    for variant in chosen:
        own = counted[usual(run, variant.method)][:images]
        rows.append({what: variant.value, **_measured(run, variant.method, own)})
    return pd.DataFrame(rows)


def recipes(run: Run, counted: Recounts, chosen: Iterable[Train]) -> pd.DataFrame:
    """Every method on models of several recipes, the run's own first, with what their cards say of them."""
    images, rows = variants.images(run.profile), []
    for other in (replace(run, train=train) for train in chosen):
        quality = tables.model_quality(alone(other)).iloc[0]
        for method in run.profile.methods:
            own = counted[Key(other.id, *usual(run, method)[1:])][:images]
            rows.append({
                "recipe": other.train.recipe,
                "penalised batches": number(penalised_batches(other), 0),
                "noisy accuracy %": quality["noisy accuracy %"],
                **{name: quality[name] for name in quality.index if name.startswith("residual after")},
                **_measured(run, method, own),
            })  # fmt: skip
    return pd.DataFrame(rows)


def penalised_batches(run: Run) -> float | None:
    """How many training batches the Jacobian penalty is expected on; None without a model card."""
    recipe, steps = run.train, shipped.card(run).get("steps")
    if steps is None:
        return None
    penalised = math.ceil(recipe.jacobian_until * recipe.epochs) * steps / recipe.epochs
    return recipe.jacobian_frequency * penalised if recipe.jacobian_weight else 0.0


def recipe_keys(run: Run, chosen: Iterable[Train]) -> list[Key]:
    """What `recipes` needs."""
    runs = [replace(run, train=train) for train in chosen]
    return [Key(other.id, *usual(run, m)[1:]) for other in runs for m in run.profile.methods]


# ------------------------------------------------------------------------------------------------ figure of a sweep


def swept(panels: Mapping[str, Mapping[str, figures.Curve]], *, label: str) -> Figure:
    """ACR against a setting on a logarithmic axis: a panel per title, a line with points per legend entry."""
    rows = -(-len(panels) // 2)
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 1.35 * rows + 0.6), layout="constrained")
        axes = fig.subplots(rows, min(2, len(panels)), sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (title, lines)) in enumerate(zip(axes, panels.items())):
            palette, broken = figures.colours(lines), iter(figures.BROKEN)
            for name, (x, y) in lines.items():
                plain = name.endswith("cohen")
                line = figures.SOLID if plain else next(broken)
                ax.plot(x, y, label=name, color=palette[name], linestyle=line, marker=None if plain else "o", markersize=2.5)
            ax.set(title=title, xscale="log")
            if i >= len(panels) - 2:
                ax.set_xlabel(label)
            if i % 2 == 0:
                ax.set_ylabel("ACR ([0, 1] pixels)")
        axes[0].set_ylim(bottom=0)  # after all have drawn: they share the axis
        figures.legend_below(fig, 2)
    return fig
