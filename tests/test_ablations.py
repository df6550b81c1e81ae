"""The ablations: a recount is what fewer votes and another audit would have been; tables and sentences follow the counts."""

import dataclasses
import functools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import synthetic
from tests.helpers import save_untrained, smoke_run, untrained_root

from srs import profiles, store
from srs.analysis import show
from srs.attacks.settings import Adversarial, hardened
from srs.deq import checkpoints
from srs.experiments import ablations
from srs.profiles import PROFILES
from srs.settings import Method
from srs.smoothing import bounds, certify, votes
from srs.smoothing.bounds import Counts, Rule
from srs.training import train

RUN = smoke_run(images=2, n0=10, n=60, methods=profiles.paper_methods(batch=60, chains=20, warmup=10, audit=15))
PROFILE, REFERENCE = RUN.profile, RUN.profile.method("MDEQ-30A")
DIGITS = replace(PROFILES["digits"], images=4)
BASE = ablations.base(DIGITS)
SRS = PROFILE.method("SRS-MDEQ-1A")
STOP = Method("STOP", "safe_anderson", 30, batch=60, tol=0.3)
OTHERWISE = Method("E", "naive", 1, start="corrected_pilot_mean", batch=60, warmup=3, audit=15, pilot=4, auditor=STOP)
WAYS = {
    "RS": PROFILE.method("MDEQ-5A"), "SRS": SRS, "no warm-up": replace(SRS, warmup=0), "odd batches": replace(SRS, batch=17),
    "clean": Method("C", "anderson", 1, start="clean", batch=60, audit=15), "audited otherwise": OTHERWISE,
}  # fmt: skip


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """A function that draws the votes of one image by a method, each once."""
    with untrained_root(tmp_path_factory, RUN):
        model, x = certify.load_model(RUN), torch.linspace(0, 1, 64).view(1, 8, 8)
    given = {"sigma": RUN.sigma, "idx": 3, "label": 1}
    return functools.cache(lambda m, n: votes.draw_votes(model, x, m, replace(PROFILE.sampling, n=n), **given))


def recount(draw, method: Method, n: int, k: int) -> store.ImageCounts:
    drawn = (draw(m, 60) for m in (method, REFERENCE, method.auditor or REFERENCE))
    return ablations.first_n(method, PROFILE.sampling, *drawn, n=n, k=k)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "k"), [(60, 60), (25, 7)])
def test_a_recount_is_what_fewer_votes_and_another_audit_would_have_been(draw, way, n, k):
    """Drawn afresh with that n and that K, audit included, and counted as the main tables are."""
    method = WAYS[way]
    k = k if method.needs_audit else 0
    found, other = recount(draw, method, n, k), replace(method, audit=min(k, n))
    others = draw(REFERENCE, n), draw(method.auditor or REFERENCE, n)
    fresh = certify.count_votes(draw(other, n), other, replace(PROFILE.sampling, n=n), *others)
    aside = {"seconds"} if method.auditor is None else {"seconds", "nfe_audit"}
    for name in (name for name in store.COLUMNS if name not in aside):
        assert getattr(found, name) == getattr(fresh, name), name
    assert np.isnan(found.seconds) and found.k <= found.nfe_audit <= 30 * found.k


def test_the_votes_above_could_tell(draw):
    """Audits find something, and prefixes differ from the whole."""
    whole, few, short = (recount(draw, SRS, n, k) for n, k in ((60, 60), (60, 4), (25, 7)))
    assert 0 < whole.m < whole.k == whole.n_a < 60 and few.m < whole.m and short.n_a < whole.n_a
    assert recount(draw, OTHERWISE, 60, 60).m != recount(draw, replace(OTHERWISE, auditor=None), 60, 60).m


def trained(run, **_):
    """In place of training: untrained weights and some training mean, unless they are there."""
    if not store.own(run, store.WEIGHTS).is_file():
        network = save_untrained(run)
        state = network.initial(network.inject(torch.zeros(1, 1, 8, 8)))
        checkpoints.save_tensors({"train_mean": torch.full_like(state[0], 0.1)}, store.own(run, store.TRAIN_MEAN))


def test_every_line_of_every_table_is_counted_and_main_tables_stay(srs_root, monkeypatch):
    monkeypatch.setattr(train, "train", trained)
    trained(RUN)
    certify.certify(RUN, progress=False)
    before = {path: path.read_bytes() for path in srs_root.rglob("*") if path.is_file()}
    ablations.measure(PROFILE, progress=False)
    assert {path: path.read_bytes() for path in before} == before
    done = ablations.read(PROFILE)
    assert list(done) == ["main", "k", "n", "solver", "start", "batch", "warmup", "jacobian", "smoothadv"]
    for line in ablations.lines(RUN):
        key, rows = [line.value, line.train.recipe, line.method.name, line.n, line.k], done[line.table]
        own = rows[(rows[["value", "recipe", "method", "n", "K"]].astype(object) == key).all(axis=1)]
        assert len(own) == ablations.images_of(line.table, PROFILE), line
        assert not line.k or (own["k"] == np.minimum(line.k, own["n_a"])).all()

    monkeypatch.setattr(votes, "draw_votes", lambda *_, **__: pytest.fail("votes were drawn"))
    path = store.own(RUN, ablations.NAME)
    measured = path.read_bytes()
    path.unlink()
    ablations.measure(PROFILE, progress=False)
    assert path.read_bytes() == measured
    store.own(replace(RUN, train=ablations.further_recipes(RUN)["jacobian"]), store.WEIGHTS).unlink()
    ablations.measure(PROFILE, training=False, progress=False)
    assert done.keys() - ablations.read(PROFILE).keys() == {"jacobian"}
    measured = path.read_bytes()
    shutil.rmtree(store.own(RUN, "votes"))
    with pytest.warns(UserWarning, match="the votes of SMALL-s0.50-paper are not here, only their counts"):
        ablations.measure(PROFILE, progress=False)
    assert path.read_bytes() == measured


@pytest.mark.parametrize("profile", ["digits", "cifar10", "cifar10_gpu", "paper", "smoke"])
def test_a_name_stands_for_one_way_to_vote(profile):
    """Names are folders of votes and keys of counts."""
    profile = PROFILES[profile]
    run = ablations.base(profile)
    lines = ablations.lines(run)
    methods, recipes = {line.method for line in lines} | set(profile.methods), {line.train for line in lines}
    assert len({m.name for m in methods}) == len(methods) and len({recipe.recipe for recipe in recipes}) == len(recipes) == 3
    assert not {replace(run, train=recipe).id for recipe in recipes - {run.train}} & {r.id for r in profile.every_run}


def test_one_thing_is_varied_and_what_is_stored_is_not_drawn_anew():
    def differing(one, other):
        return {f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name)}

    stored = {}
    for table, value, method in ablations.varied(DIGITS):
        parent = DIGITS.method("SRS-MDEQ-3A" if method.needs_audit else "MDEQ-30A")
        assert table == "start" or differing(method, parent) <= {"name", "steps", "audit", table}
        assert value == str(getattr(method, table))
        stored.setdefault(table, set()).update({method.name} if method in DIGITS.methods else ())
    srs = {"SRS-MDEQ-1A", "SRS-MDEQ-3A"}
    assert stored == {"solver": {"MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-3A"}, "start": srs | {"MDEQ-1A"}, "batch": srs, "warmup": srs}
    run, paper = ablations.base(PROFILES["digits"]), ablations.base(PROFILES["paper"])
    without, hard = ablations.further_recipes(run).values()
    assert differing(without, run.train) == {"recipe", "jacobian_weight", "jacobian_frequency"}
    assert (hard.adversarial.radius, hard.adversarial.steps, hard.adversarial.vectors, hard.init_from) == (0.5, 2, 1, run.train)
    published = hardened(paper.train, "smoothadv", Adversarial(0.5, 2, 4))  # from random weights
    assert ablations.further_recipes(paper)["smoothadv"] == published and published.init_from is None


@pytest.mark.filterwarnings("ignore::srs.smoothing.bounds.UnsoundRuleWarning")
def test_elimination_is_each_rule_s_own_radius(srs_root):
    """One image: 390 SRS votes of 400 for c_A, 20 of 100 audited ones wrong; the full solve gives 320."""
    run = ablations.base(replace(PROFILES["smoke"], images=1, n=400))
    by_method = {"MDEQ-30A": {"n_a": 320}, "SRS-MDEQ-3A": dict(n_a=390, k=100, m=20, n_2=98, n_1=79, n_wrong=78, n_differ=80)}
    counts = {m.name: [synthetic.image_counts(n=400, **by_method.get(m.name, {"n_a": 400}))] for m in run.profile.methods}
    store.write_counts(run, counts, synthetic.drawn_as(run))
    found = ablations.sweeps(ablations.read(run.profile), run.profile)
    assert set(found) == {"elimination", "alpha"}
    rows = found["elimination"].query("method == 'SRS-MDEQ-3A'").set_index("elimination")
    known = Counts(n=400, n_a=390, k=100, m=20, n_2=98, n_1=79)
    rules = {show.RULE_LABELS[r]: r for r in (Rule.AUDIT, Rule.THEOREM31, Rule.RELEASED)} | {ablations.NOTHING: Rule.COHEN}
    for label, rule in rules.items():
        radius = bounds.certify(rule, known, 0.5, 0.001)[1]
        assert rows.loc[label, "ACR"] == pytest.approx(radius) and rows.loc[label, "mean p_m %"] == pytest.approx(20), label
    # Without elimination the votes are believed: 390 of 400 certify more than the 320 that there are.
    above = rows[ablations.ABOVE].to_dict()
    assert above == {"audit (ours)": 0, "theorem31 (paper)": 0, "released (unsound)": 1, ablations.NOTHING: 1}


def test_findings_follow_the_counts(srs_root):
    """They are other sentences where all votes are fewer and those of SRS differ more often."""
    synthetic.write_profile(replace(DIGITS, plan=tuple(run for run in DIGITS.plan if run.id == BASE.id)))
    store.save_frame(store.own(BASE, ablations.NAME), synthetic.recounted(BASE))
    stored = ablations.read(DIGITS)

    def worse(rows):
        rows, srs = rows.copy(), rows["needs_audit"]
        rows.loc[srs, "n_differ"] = rows.loc[srs, "n"] // 2 + rows.loc[srs, "nfe_estimate"] % 7
        rows.loc[srs, ["m", "n_1"]] = 0
        rows.loc[srs, "n_a"] = np.maximum(rows["n_a"] - 10, rows[["k", "n_2"]].max(axis=1))[srs]
        rows.loc[~srs, "n_a"] = rows["n_a"][~srs] * 9 // 10
        return rows.assign(n_wrong=np.minimum(rows["n_wrong"], rows["n_a"]))

    swept = [ablations.sweeps(counted, DIGITS) for counted in (stored, {name: worse(rows) for name, rows in stored.items()})]
    for name in ("elimination", *ablations.RECOUNTED, *ablations.VARIED):
        before, after = (ablations.finding(found, name, DIGITS) for found in swept)
        assert before != after and "nan" not in before, name


def test_a_profile_without_images_to_draw_shows_what_its_stored_votes_tell():
    fixed = profiles.get_profile("cifar10_fixed")
    every, counted = ablations.lines(ablations.base(fixed)), ablations.read(fixed)
    assert {line.table for line in every} == {"k", "n"} and {line.method for line in every} <= {*fixed.methods}
    assert list(counted) == ["main", "k", "n"] and set(counted["n"]["n"]) == {100, 200, 400, 1_000, 10_000}
