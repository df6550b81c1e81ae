"""Counting stored votes anew is what fewer votes or another audit would have counted; measuring draws only what is missing."""

from dataclasses import replace
import shutil

import numpy as np
import pytest
import torch
from tests.helpers import save_untrained, smoke_run

from srs import ablation_report, ablations, profiles, recounts, variants
from srs.deq import checkpoints, mdeq
from srs.recounts import Key
from srs.settings import ConfigError, Method
from srs.smoothing import certify, votes
from srs.store.sealed import paths, results
from srs.training import train

RUN = smoke_run(images=2, n0=10, n=60, methods=profiles.paper_methods(batch=60, chains=20, warmup=10, audit=15))
PROFILE = RUN.profile
WAYS = {
    "RS": PROFILE.method("MDEQ-5A"),
    "SRS": PROFILE.method("SRS-MDEQ-1A"),
    "no warm-up": replace(PROFILE.method("SRS-MDEQ-1A"), warmup=0),
    "odd batches": replace(PROFILE.method("SRS-MDEQ-1A"), batch=17),
    "clean": Method("C", "anderson", 1, start="clean", batch=60, audit=15),
    "centroid": Method("D", "anderson", 1, start="centroid", batch=60, warmup=3, audit=15, pilot=4),
}


@pytest.fixture(scope="module")
def drawn():
    """A function that draws the votes of one image by a method and by the full solve, each pair once."""
    made = {}

    def draw(model, method: Method, n: int):
        if (method, n) not in made:
            sampling = replace(PROFILE.sampling, n=n)
            x = torch.linspace(0, 1, 64).view(1, 8, 8)
            made[method, n] = votes.draw_votes(model, x, method, sampling, RUN.sigma, idx=3, label=1)
        return made[method, n]

    return draw


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(tmp_path_factory.mktemp("model")))
        save_untrained(RUN)
        yield certify.load_model(RUN)


def whole(tally):
    """A tally as a dictionary without the time."""
    return {name: getattr(tally, name) for name in results.COLUMNS if name != "seconds"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "k"), [(60, 15), (60, 4), (60, 60), (40, 15), (25, 7)])
def test_a_recount_is_what_fewer_votes_and_another_audit_would_have_been(drawn, model, way, n, k):
    """Drawn afresh with that n and that K, audit included, and counted as the main tables are."""
    method = WAYS[way]
    k = k if method.serialized else 0
    reference = PROFILE.method(PROFILE.reference)
    found = ablations.recount(
        drawn(model, method, 60), method, PROFILE.sampling, drawn(model, reference, 60), n=n, k=k
    )
    other, sampling = replace(method, audit=min(k, n)), replace(PROFILE.sampling, n=n)
    fresh = certify.count_votes(drawn(model, other, n), other, sampling, drawn(model, reference, n))
    assert whole(found) == whole(fresh)
    assert np.isnan(found.seconds)


@pytest.mark.parametrize(("n", "k"), [(60, 60), (40, 15)])
def test_a_recount_audits_by_the_method_s_own_auditor_at_what_that_cost(drawn, model, n, k):
    auditor = Method("STOP", "safe_anderson", 30, batch=60, tol=0.1)
    method = replace(WAYS["centroid"], auditor=auditor)
    stop, full = (drawn(model, m, 60) for m in (auditor, PROFILE.method(PROFILE.reference)))
    found = ablations.recount(drawn(model, method, 60), method, PROFILE.sampling, full, n=n, k=k, auditor=stop)
    other = replace(method, audit=k)
    fresh = certify.count_votes(
        drawn(model, other, n), other, replace(PROFILE.sampling, n=n), drawn(model, PROFILE.method(PROFILE.reference), n), drawn(model, auditor, n)
    )
    measured = {"nfe_audit": round(found.k * stop.nfe[1] / 60)}
    assert whole(found) == whole(fresh) | measured
    assert stop.nfe[1] < 30 * 60 and found.nfe_audit == pytest.approx(fresh.nfe_audit, rel=0.2)


def test_the_votes_above_could_tell(drawn, model):
    """Otherwise equality is nothing: audits find something, and prefixes differ from the whole."""
    method, reference = PROFILE.method("SRS-MDEQ-1A"), drawn(model, PROFILE.method("MDEQ-30A"), 60)
    tallies = [
        ablations.recount(drawn(model, method, 60), method, PROFILE.sampling, reference, n=n, k=k)
        for n, k in ((60, 60), (60, 4), (25, 7))
    ]
    assert 0 < tallies[0].m < tallies[0].k == tallies[0].n_a < 60
    assert tallies[1].m < tallies[0].m and tallies[2].n_a < tallies[0].n_a


@pytest.mark.parametrize("n", [0, 61])
def test_votes_that_are_not_there_are_not_counted(drawn, model, n):
    one = drawn(model, PROFILE.method("MDEQ-30A"), 60)
    with pytest.raises(ConfigError, match=f"n = {n} is refused: want 1 to the 60 votes"):
        ablations.recount(one, PROFILE.method("MDEQ-30A"), PROFILE.sampling, one, n=n, k=0)


# ---------------------------------------------------------------------------------------------- a whole profile


def trained(run, **_):
    """In place of training: untrained weights and some anchor, unless they are there."""
    if not paths.weights(run).is_file():
        model = save_untrained(run)
        state = model.initial(model.inject(torch.zeros(1, 1, 8, 8)))
        checkpoints.save_anchor(torch.full_like(state[0], 0.1), paths.anchor(run))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root where RUN, untrained, is certified and ablated, further models untrained as well."""
    root = tmp_path_factory.mktemp("ablated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(root))
        patch.setattr(train, "train", trained)
        trained(RUN)
        certify.certify(RUN, progress=False)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        ablations.measure(PROFILE, progress=False)
        yield root, before


@pytest.fixture
def done(finished, srs_root):
    shutil.copytree(finished[0], srs_root, dirs_exist_ok=True)
    return recounts.stored(variants.base(PROFILE))


def test_nothing_of_the_main_tables_is_touched(finished):
    root, before = finished
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(root.rglob("*.tsv"))) > len([path for path in before if path.suffix == ".tsv"])


def test_every_key_that_is_shown_is_counted(done):
    run = variants.base(PROFILE)
    for variant in (*variants.solvers(PROFILE), *variants.starts(PROFILE), *variants.chains(PROFILE), *variants.warmups(PROFILE)):
        key = Key(run.id, variant.method.name, 60, 15 if variant.method.serialized else 0)
        assert (done[key]["n"] == 60).all()
    assert len(done[Key(run.id, "SRS-MDEQ-3N", 60, 15)]) == 2 and len(done[Key(run.id, "SRS-MDEQ-3B", 60, 15)]) == 1
    for k in variants.ks(PROFILE):
        own = done[Key(run.id, "SRS-MDEQ-1A", 60, k)]
        assert (own["k"] == np.minimum(k, own["n_a"])).all()
    for other in variants.further(run):
        assert {key.method for key in done if key.run == other.id} == {m.name for m in PROFILE.methods}


def test_the_usual_count_is_the_main_table_s_own(done):
    for method in PROFILE.methods:
        main = results.read_tallies(paths.tallies(RUN, method))
        own = done[Key(RUN.id, method.name, 60, 15 if method.serialized else 0)]
        for name in results.COLUMNS[:-1]:
            assert own[name].tolist() == main[name].tolist(), (method.name, name)


def test_a_second_call_draws_nothing(done, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("votes were drawn")

    monkeypatch.setattr(train, "train", lambda run, **_: None)
    monkeypatch.setattr(votes, "draw_votes", refuse)
    monkeypatch.setattr(checkpoints, "load", refuse)
    path = paths.measured(RUN, recounts.NAME)
    before = path.read_bytes()
    path.unlink()
    ablations.measure(PROFILE, progress=False)
    assert path.read_bytes() == before


def test_without_training_only_models_that_are_there_take_part(done, monkeypatch):
    gone = variants.further(variants.base(PROFILE))[0]
    paths.weights(gone).unlink()
    monkeypatch.setattr(train, "train", lambda run, **_: None)
    ablations.measure(PROFILE, training=False, progress=False)
    runs = {key.run for key in recounts.stored(variants.base(PROFILE))}
    assert gone.id not in runs and len(runs) == len(variants.further(variants.base(PROFILE)))


def test_tallies_without_votes_are_left_as_they_are(done, srs_root):
    shutil.rmtree(srs_root / "data" / "smoke" / "votes")
    before = paths.measured(RUN, recounts.NAME).read_bytes()
    with pytest.warns(UserWarning, match="the votes of SMALL-s0.50-paper are not here, only their counts"):
        ablations.measure(PROFILE, progress=False)
    assert paths.measured(RUN, recounts.NAME).read_bytes() == before


def test_a_profile_without_the_run_makes_nothing(srs_root):
    ablations.measure(profiles.get_profile("imagenet"))
    assert ablation_report.make(profiles.get_profile("imagenet")) == ({}, {})
    assert not list(srs_root.rglob("*"))


def test_command_line_refuses_in_one_sentence(srs_root, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablations.main(["--profile", "digit"])
    assert stopped.value.code == 2 and "profile = 'digit' is refused" in capsys.readouterr().err
