"""Certifying a data set: resumed, shared out, filed under what it is of; and one image with a classifier that is known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import data, profiles, sealed, store
from srs.attacks import attack
from srs.deq import checkpoints, inference
from srs.experiments import ablations
from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import bounds, certify, noise, votes
from srs.smoothing.bounds import ABSTAIN, UnsoundRuleWarning
from srs.training import train
from tests import synthetic
from tests.helpers import killed_after, LinearDEQ, save_untrained, smoke_run, untrained_root

RUN = smoke_run(images=3, n0=10, n=40)
METHODS = ("MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-1A")
SRS = RUN.profile.method("SRS-MDEQ-1A")


def counts(run, name):
    """All of a run's counts under a method but the times."""
    stored = synthetic.counted(run, run.profile.method(name))
    return [tuple(row[c].item() for c in store.COLUMNS if c != "seconds") for row in stored]


def all_counts(run=RUN):
    return {name: counts(run, name) for name in METHODS}


def certified(run=RUN, **more):
    return certify.certify(run, methods=METHODS, progress=False, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root where RUN, on an untrained model, is certified in one go, and what came out."""
    with untrained_root(tmp_path_factory, RUN, METHODS) as root:
        yield root, all_counts()


@pytest.fixture
def done(finished, srs_root):
    """A copy of the finished root; gives what it holds."""
    shutil.copytree(finished[0], srs_root, dirs_exist_ok=True)
    return finished[1]


@pytest.fixture
def fresh(done):
    """The same without votes and counts."""
    shutil.rmtree(store.own(RUN, "votes"))
    store.own(RUN, store.COUNTS).unlink()
    return done


def test_counts_are_of_all_images_and_provenance_says_what_made_them(done):
    every = {name: [dict(zip(store.COLUMNS, row)) for row in rows] for name, rows in done.items()}
    assert all([t["idx"] for t in rows] == list(RUN.profile.evaluated) for rows in every.values())
    assert any(0 < t["n_a"] < t["n"] and t["n_differ"] > 0 for t in every[SRS.name])  # else nothing below could fail
    assert all(t["n_differ"] == 0 for t in every["MDEQ-30A"])
    told = json.loads(store.own(RUN, "counts.json").read_text())[SRS.name]
    assert (told["run"], told["sigma"], told["method"]["name"]) == (RUN.id, RUN.sigma, SRS.name)
    assert told["weights"] == checkpoints.digest(store.own(RUN, store.WEIGHTS)) and told["sampling"]["n"] == 40
    assert {"torch", "numpy", "scipy", "python", "device"} <= set(told)


def test_killed_at_any_image_goes_on_where_it_was(fresh, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        written = killed_after(4, patch, votes, "write")
        certified()
    assert not store.own(RUN, store.COUNTS).exists()
    stamps = [p.stat().st_mtime_ns for p in written]
    certified()
    assert all_counts() == fresh
    assert [p.stat().st_mtime_ns for p in written] == stamps


def test_two_workers_draw_the_same_files_as_a_plain_loop(finished, fresh, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(Path(profiles.__file__).parents[1]))
    assert set(certify.certify(RUN, methods=METHODS, workers=2)) == set(METHODS)
    assert all_counts() == fresh
    told = capsys.readouterr().err
    assert "workers: http://127.0.0.1:" in told and f"certify {RUN.id}, 9 of 9, 100 % of the evaluations of f" in told
    own = store.own(RUN, "votes")
    serial = finished[0] / own.relative_to(sealed.root())
    files = sorted(path.relative_to(serial) for path in serial.rglob("*.npz"))
    assert files == sorted(path.relative_to(own) for path in own.rglob("*.npz"))
    for file in files:
        one, other = (dict(np.load(folder / file)) for folder in (serial, own))
        assert all(np.array_equal(one[name], other[name]) for name in one if name != "seconds") and len(one) == 8


def test_a_worker_of_another_torch_is_refused(done, monkeypatch):
    prepare = certify.prepared(lambda device: device, "cpu", certify.VOTES_DEPEND_ON)
    assert prepare("") == prepare("0") == "cpu"
    monkeypatch.setattr(certify.inference, "computed_on", lambda device: "CPU, torch 0.1")
    with pytest.raises(ConfigError, match="worker = 'CPU, torch 0.1' .*the driver's kind of device, torch and srs"):
        prepare("0")


def test_other_settings_weights_and_methods_have_votes_of_their_own(done):
    inputs = certify.read_inputs(RUN)
    for change in (dict(n=41), dict(n0=11), dict(seed=1)):
        other = replace(RUN, profile=replace(RUN.profile, **change))
        assert certify.read_inputs(other).key != inputs.key and certify.count_run(other) == []
    changed = [replace(SRS, **change) for change in (dict(steps=2), dict(start="clean"), dict(batch=21), dict(audit=19))]
    assert len({certify.vote_file(RUN, m, inputs, 0) for m in (SRS, *changed)}) == 5
    save_untrained(RUN, seed=1)
    assert certify.read_inputs(RUN).key != inputs.key and certify.count_run(RUN) == []


LOAD = data.load


def change_images(patch, change):
    patch.setattr(data, "load", lambda which, split: change(LOAD(which, split)))


def darker(images):
    return images._replace(pixels=images.pixels / 2)


def drawn_by(call, patch):
    draw, drawn = votes.draw_votes, []
    patch.setattr(votes, "draw_votes", lambda *a, **k: drawn.append(k["idx"]) or draw(*a, **k))
    call()
    return len(drawn)


@pytest.mark.parametrize("change", [darker, lambda images: images._replace(labels=(images.labels + 1) % 10)])
def test_other_images_are_certified_anew(done, monkeypatch, change):
    old = {file: file.read_bytes() for file in store.own(RUN, "votes").rglob("*.npz")}
    with monkeypatch.context() as patch:
        change_images(patch, change)
        assert certify.count_run(RUN) == []
        assert drawn_by(certified, patch) == 9
    assert all(file.read_bytes() == content for file, content in old.items())  # nobody's votes are lost
    assert drawn_by(certified, monkeypatch) == 0 and all_counts() == done


def test_only_what_is_new_is_drawn_and_counted_in_any_order_of_methods(done, monkeypatch):
    where = RUN.profile.evaluated[1]
    with monkeypatch.context() as patch:
        change_images(patch, lambda images: images._replace(pixels=images.pixels.index_fill(0, torch.tensor(where), 0.5)))
        assert drawn_by(certified, patch) == len(METHODS)
    assert drawn_by(lambda: certified(replace(RUN, profile=replace(RUN.profile, images=4))), monkeypatch) == len(METHODS)
    store.own(RUN, store.COUNTS).unlink()
    in_turn = drawn_by(lambda: [certify.certify(RUN, methods=(m,), progress=False) for m in METHODS[::-1]], monkeypatch)
    assert in_turn == 0 and all_counts() == done


@pytest.mark.parametrize("where", [(inference, "device_name", lambda *_, **__: "another CPU"), (torch, "__version__", "9.9")])
def test_another_device_and_another_torch_have_votes_of_their_own(done, monkeypatch, where):
    monkeypatch.setattr(*where)
    assert certify.count_run(RUN) == []
    assert drawn_by(certified, monkeypatch) == 9


def test_weights_that_change_meanwhile_are_not_mixed_up(done, monkeypatch):
    """What is read when the key is made is what votes are drawn from."""
    shutil.rmtree(store.own(RUN, "votes"))
    read = certify.read_inputs
    with monkeypatch.context() as patch:
        patch.setattr(certify, "read_inputs", lambda *a: (read(*a), save_untrained(RUN, seed=1))[0])
        certified()
    assert all_counts() == done and certify.count_run(RUN) == []  # the old model's votes, all of them


@pytest.mark.parametrize("device", ["cuda:99", "meta", "", None])
@pytest.mark.parametrize("call", [
    lambda device: certify.certify(RUN, methods=METHODS, device=device, progress=False),
    lambda device: train.train(RUN, device=device, progress=False),
    lambda device: attack.run_suite(RUN, RUN.profile.attacks, device=device, progress=False),
    lambda device: ablations.measure(RUN.profile, device=device, progress=False),
], ids=["certify", "train", "attacks", "ablations"])  # fmt: skip
def test_a_device_that_is_not_here_is_refused_before_work(srs_root, device, call):
    with pytest.raises(ConfigError, match=f"^device = {device!r} is refused: want cpu"):
        call(device)
    assert [*srs_root.iterdir()] == []


BAD = {
    "method = 'MDEQ-7A' is refused: want one of MDEQ-1A": dict(methods=("MDEQ-7A",)), "deadline = 0.0": dict(deadline=0.0),
    "digits test images = 360 is refused: want at least 2001": dict(run=smoke_run(images=3, stride=1_000)),
    rf"weight file = .*s0.25.*/{store.WEIGHTS}.*srs train": dict(run=smoke_run(0.25)),
}


@pytest.mark.parametrize(("named", "arguments"), BAD.items(), ids=BAD)
def test_bad_arguments_are_refused_before_work(fresh, named, arguments):
    with pytest.raises(ConfigError, match=named):
        certify.certify(**dict(run=RUN, progress=False) | arguments)
    assert not store.own(RUN, "votes").exists()


def hand_made(select, estimate, audited, standard):
    return votes.ImageVotes(
        5, 1, np.array(select, np.int16), np.array(estimate, np.int16), np.array(audited, np.int32),
        np.array(standard, np.int16), np.array([1, 2, 3]), np.array([0.5, 0.25, 0.125]),
    )  # fmt: skip


@pytest.mark.parametrize("k", [0, 12, 60])
def test_counts_equal_brute_force(k):
    rng, n, seed = np.random.default_rng(k), 60, 3
    select, estimate = (rng.choice([ABSTAIN, 0, 1, 2], size, p=[0.1, 0.1, 0.6, 0.2]) for size in (9, n))
    reference = np.where(rng.random(n) < 0.3, rng.choice([ABSTAIN, 0, 1, 2], n), estimate)
    sampling = Sampling(3, n0=9, n=n, seed=seed)
    c_a = bounds.top_class(select, 3)
    order = noise.audit_order(seed, 5, n).tolist()
    audited = [i for i in order if estimate[i] == c_a][:k]
    drawn = hand_made(select, estimate, audited, reference[audited])
    standard = hand_made(select, reference, [], [])
    t = certify.count_votes(drawn, replace(SRS, audit=k), sampling, standard, standard)
    assert (t.idx, t.label, t.c_a, t.n) == (5, 1, c_a, n)
    assert t.n_a == sum(1 for v in estimate if v == c_a)
    assert t.k == len(audited) == min(k, t.n_a)
    assert t.m == sum(1 for i in audited if reference[i] != c_a)
    assert t.n_2 == sum(1 for i in order[:k] if estimate[i] == c_a)  # Theorem 3.1 audits K of all N
    assert t.n_1 == sum(1 for i in order[:k] if estimate[i] == c_a and reference[i] == c_a)
    assert t.n_wrong == sum(1 for i in range(n) if estimate[i] == c_a and reference[i] != c_a)
    assert t.n_differ == sum(1 for i in range(n) if estimate[i] != reference[i])
    assert (t.nfe_select, t.nfe_estimate, t.nfe_audit, t.seconds) == (1, 2, 3, 0.875)
    without = certify.count_votes(drawn, replace(SRS, audit=k), sampling)
    assert without == replace(t, n_wrong=-1, n_differ=-1)


WEIGHT = torch.tensor([[3.0, -1.0, 2.0, 0.5], [0.0, 1.0, -1.0, 0.5]])
HALF_SPACE = (WEIGHT[0] - WEIGHT[1]).norm().item()
SAMPLING = Sampling(2, n0=20, n=2_000, seed=1, reference=Method("REF", "naive", 1))
STANDARD = Method("RS", "naive", 1)
CHAIN = Method("SRS", "naive", 1, start="previous", batch=100, warmup=5, audit=400)


def half_space(margin, rate=0.0):
    """A two-class DEQ and an image at l2 distance `margin` inside class 0."""
    x = torch.full((1, 2, 2), 0.5)
    bias = margin * HALF_SPACE - float((WEIGHT[0] - WEIGHT[1]) @ x.flatten())
    return LinearDEQ(WEIGHT, torch.tensor([bias, 0.0]), rate), x


CHECK = 5 * certify.SEVERAL  # evaluations of f by which `check_image` looks at a model


@pytest.mark.parametrize("method", [STANDARD, CHAIN], ids=lambda m: m.name)
def test_radius_is_below_and_near_the_true_one(method):
    """The true radius of a smoothed half-space is the distance to it, whatever sigma is."""
    for i, (share, sigma) in enumerate(((0.3, 0.25), (0.8, 0.5), (1.5, 1.0))):
        model, x = half_space(share * sigma)
        found = certify.certify_image(model, x, method, SAMPLING, sigma=sigma, idx=i)
        true_p = norm.cdf(share)
        assert found.predict == 0 and 0 < found.radius <= share * sigma
        assert true_p - 0.08 < found.p_lower <= true_p
        assert found.radius == pytest.approx(sigma * norm.ppf(found.p_lower))
        assert found.nfe == model.evaluations - CHECK == found.votes.nfe.sum()


def test_rule_follows_the_method_and_can_be_chosen():
    def p_lower(method, rule=None, margin=0.5):
        model, x = half_space(margin)
        found = certify.certify_image(model, x, method, SAMPLING, sigma=0.5, rule=rule)
        assert (found.predict == ABSTAIN) == (found.p_lower <= 0.5) == (found.radius == 0)
        return found.p_lower

    assert p_lower(STANDARD) == p_lower(STANDARD, "cohen") and p_lower(CHAIN) == p_lower(CHAIN, "audit")
    assert p_lower(CHAIN, "theorem31") < p_lower(CHAIN, "audit")
    with pytest.warns(UnsoundRuleWarning):
        p_lower(CHAIN, "released")
    assert p_lower(STANDARD, margin=0.0) <= 0.5  # on the border


def test_bad_surrogate_is_caught_by_its_audit():
    """A chain that hardly moves repeats its first answer: cohen's rule believes it, the audit does not."""
    model, x = half_space(0.05, rate=0.998)
    first = replace(CHAIN, batch=1, warmup=2_500)
    sampling = replace(SAMPLING, n0=5, n=200, reference=Method("REF", "naive", 2_500))
    caught = certify.certify_image(model, x, replace(first, audit=60), sampling, sigma=1.0, idx=1)
    t = certify.count_votes(caught.votes, first, sampling)
    assert bounds.cohen(bounds.Counts(t.n, t.n_a), 0.001) > 0.75 > norm.cdf(0.05)
    assert caught.p_lower < norm.cdf(0.05) and caught.predict == ABSTAIN


@pytest.mark.parametrize(("named", "change"), [
    ("sigma = 0.0", dict(sigma=0.0)), ("alpha = 0.0", dict(alpha=0.0)), ("'wald'", dict(rule="wald")),
    ("K = 2001", dict(method=replace(CHAIN, audit=2_001))), (r"samples = \(-1, 0\)", dict(idx=-1)),
    ("audit of .* = 0", dict(method=replace(CHAIN, audit=0))), ("'cohen'", dict(rule="cohen")),
])  # fmt: skip
def test_one_image_refuses_before_work(named, change):
    model, x = half_space(0.5)
    with pytest.raises(ValueError, match=named):
        certify.certify_image(model, x, **dict(method=CHAIN, sampling=SAMPLING, sigma=0.5) | change)
    assert model.evaluations in (0, CHECK)
