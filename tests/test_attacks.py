"""Attacks on a run's images: votes on what was attacked, resuming, false certificates caught, and the tables of notebook 33."""

import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from scipy.stats import norm

from srs import profiles, store
from srs.attacks import attack
from srs.attacks.settings import Attack, Gradient
from srs.deq import checkpoints
from srs.experiments import attacks
from srs.experiments.attacks import FalseCertificate, flipped, require_sound
from srs.sealed import DamagedFile
from srs.settings import ConfigError, Method
from srs.smoothing import certify, noise
from srs.smoothing.bounds import ABSTAIN, Rule
from tests import synthetic
from tests.helpers import digits, killed_after, LinearDEQ, save_untrained, smoke_run, untrained_root

RUN = smoke_run(images=3, n0=10, n=40)
SUITE = replace(profiles.PROFILES["smoke"].attacks, images=3, n=5, copies=8)
REFERENCE = RUN.profile.reference


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root where RUN, on an untrained model, is certified and attacked in one go, and the table that came out."""
    with untrained_root(tmp_path_factory, RUN) as root:
        certify.certify(RUN, progress=False)
        yield root, attacked().read_text()


@pytest.fixture
def done(finished, srs_root):
    """A copy of it, as it was; gives the table."""
    shutil.copytree(finished[0] / "data", srs_root / "data", dirs_exist_ok=True)
    return finished[1]


def attacked(suite=SUITE, run=RUN):
    return attack.run_suite(run, suite, progress=False)


def test_attacks_of_many_radii_are_those_of_each_radius_alone():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model, x, y = LinearDEQ(weight, torch.zeros(3), 0.5), torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    smooth = Attack("Smooth", 3, Gradient("unrolled", 3, unroll=2), steps=9)
    noise, radii = 0.5 * torch.randn(2, 3, 1, 2, 2), torch.tensor([[0.25, 0.4, 2.0]] * 2)
    together = attack.attack_images(model, x, y, noise, radii, smooth)
    spent, model.evaluations = model.evaluations, 0
    for r in range(3):
        alone = attack.attack_images(model, x, y, noise, radii[:, r : r + 1], smooth)
        assert torch.allclose(together[:, r], alone[:, 0], atol=1e-6)
    assert spent < 0.8 * model.evaluations, "steps that attacks share are taken once"


def test_noise_of_attacks_is_neither_the_certificates_nor_the_predictions(done, monkeypatch):
    drawn = []
    monkeypatch.setattr(noise, "noise", lambda shape, seed, idx, stage, samples: drawn.append(
        {(seed, idx, stage, int(s)) for s in samples}) or torch.zeros(len(samples), *shape))  # fmt: skip
    held = pd.DataFrame({  # one of two is contradicted, whatever the votes
        "idx": 0, "method": REFERENCE, "rule": "cohen", "c_a": 8, "predict": [8, 9], "radius": 9.0,
    })  # fmt: skip
    model = checkpoints.load(store.own(RUN, store.WEIGHTS), RUN.model, RUN.profile.data).requires_grad_(False)
    attack._attack_group(model, RUN, SUITE, held, "cpu", SUITE.attacks[2], digits(1)[0], {0: 8})
    search, predict, *confirm = drawn
    confirm = set.union(*confirm)
    assert not search & predict and not predict & confirm and not search & confirm
    certificates = {(RUN.profile.seed, 0, stage, s) for stage in noise.STAGES for s in range(1000)}
    assert not certificates & (search | predict | confirm)


def test_killed_run_goes_on_and_ends_the_same(done, monkeypatch):
    files = sorted(store.own(RUN, "attacks").glob("*/*.csv"))
    for file in files:
        file.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        made = killed_after(5, patch, store, "save_frame")
        attacked()
    before = {path: path.stat().st_mtime_ns for path in made}
    assert attacked().read_text() == done
    assert before == {path: path.stat().st_mtime_ns for path in made}, "what was finished was done again"
    files[0].write_bytes(b"no")
    with pytest.raises(DamagedFile):
        attacked()
    assert attacked().read_text() == done
    found = store.read_attacks(RUN)
    assert len(found) == 3 * sum(max(1, len(a.radii)) for a in SUITE.attacks) and (found["n"] == SUITE.n).all()
    assert (found["distance"] <= found["radius"] * (1 + 1e-6)).all()


def test_other_settings_are_not_taken_for_the_same(done):
    held, one = attack.certificates(RUN, SUITE), SUITE.attacks[1]
    variants = (
        (SUITE, one, held, "weights"), (replace(SUITE, images=1), one, held, "weights"), (SUITE, one, held, "others"),
        (replace(SUITE, n=10), one, held, "weights"), (SUITE, one, held.assign(radius=9.0), "weights"),
        (SUITE, replace(one, gradient=Gradient("unrolled")), held, "weights"),
    )  # fmt: skip
    keys = [attack.attack_key(RUN, *variant) for variant in variants]
    assert keys[0] == keys[1] and len(set(keys)) == 5


def test_what_cannot_be_attacked_is_refused(srs_root):
    with pytest.raises(ConfigError, match="noise = 'grid'"):
        attacked(run=smoke_run(images=3, noise="grid"))
    otherwise = replace(RUN.profile.method("SRS-MDEQ-1A"), name="audited by few steps", auditor=RUN.profile.method("MDEQ-5A"))
    more = replace(RUN, profile=replace(RUN.profile, methods=(*RUN.profile.methods, otherwise)))
    for name in ("MDEQ-5A", otherwise.name):  # a false one of theirs would be none: the votes are about another classifier
        with pytest.raises(ConfigError, match=f"attacked method = '{name}'"):
            attacked(replace(SUITE, methods=(REFERENCE, name)), more)
    with pytest.raises(ConfigError, match="weight file"):
        attacked()
    save_untrained(RUN)
    with pytest.raises(ConfigError, match="result file"):
        attacked()
    with pytest.raises(ConfigError, match="attacked profile = 'imagenet'"):
        attacks.runs_of(profiles.PROFILES["imagenet"])


def test_flip_test_is_conservative():
    """At p_A = p_B = 1/2, the worst case, even at a large alpha it errs no more often than that."""
    assert [flipped(votes, 0) for votes in ("200 200 0", "190 210 0", "10 390 0", "")] == [False, False, True, False]
    n, alpha = 60, 0.05
    wrong = sum(math.comb(n, k) / 2**n for k in range(n + 1) if flipped(f"{n - k} {k}", 0, alpha))
    assert 0 < wrong <= alpha / 2


def tried(radius, predict=3, rule=Rule.COHEN, **point):
    """An attacked point at distance 0.5, 10 of whose 400 further votes are for c_A, put to the test of a certificate."""
    image = dict(model="SMALL", recipe="paper", sigma=0.5, idx=0)
    point = image | dict(distance=0.5, further="0 0 0 10 0 0 0 380 10 0") | point
    certificate = image | dict(method=REFERENCE, rule=str(rule), c_a=3, predict=predict, radius=radius)
    return attacks.put_to_the_test(pd.DataFrame([point]), pd.DataFrame([certificate]))


def within_and_flipped(*certificate, **point):
    return tuple(tried(*certificate, **point)[["within", "flipped"]].iloc[0])


def test_a_wrong_certificate_is_caught_and_only_within_its_radius():
    assert within_and_flipped(0.6) == (True, True)
    assert within_and_flipped(0.5) == (False, False), "a certificate holds inside its radius, not on it"
    assert within_and_flipped(0.6, further="0 0 0 390 0 0 0 0 10 0") == (True, False)
    assert within_and_flipped(9.0, ABSTAIN) == (False, False)
    assert "were tested 1 times, by a point within the radius of one: 1 points" in attacks.soundness_finding(tried(0.6))
    with pytest.raises(FalseCertificate, match="cohen"):
        require_sound(tried(0.6))
    require_sound(released := tried(0.6, rule=Rule.RELEASED))
    assert "tested 0 times" in (told := attacks.soundness_finding(released)) and "1 of 1 tests are flipped" in told


@pytest.mark.parametrize(("share", "caught"), [(0.9, False), (1.25, True)])
def test_attack_refutes_a_radius_beyond_the_true_one_and_no_other(share, caught):
    """Two classes and linear logits: the smoothed classifier's radius is the distance to the half-space, exactly."""
    weight, sigma, x = torch.tensor([[1.0, 0.5, -0.5, 2.0], [0.0, -1.0, 0.5, 1.0]]), 0.4, torch.rand(1, 1, 2, 2)
    along, true = weight[1] - weight[0], 0.6
    model = LinearDEQ(weight, torch.tensor([0.0, float((-x.flatten() @ along - true * along.norm()))]))
    smooth, g = Attack("Smooth", 4, Gradient("unrolled", 2), steps=12, step=0.1), torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(1, 4, 1, 2, 2, generator=g)
    found = attack.attack_images(model, x, torch.tensor([0]), noise, torch.tensor([[share * true]]), smooth)[0]
    e = torch.randn(1, 2_000, 1, 2, 2, generator=g)
    drawn = attack.vote(model, found, Method("RS", "naive", 1), sigma, e, together=5_000)[0]
    assert (drawn == 0).mean() == pytest.approx(norm.cdf((true - share * true) / sigma), abs=0.05)
    line = dict(distance=share * true, further=f"0 {(drawn == 1).sum()} 0 {(drawn == 0).sum()}")
    assert within_and_flipped(1.3 * true, **line) == (True, caught)


def test_a_seeded_wrong_certificate_is_caught_from_votes_to_table(done):
    """Unanimous stored votes for a class that the classifier does not give: the first votes at the image contradict."""
    method = RUN.profile.method("SRS-MDEQ-3A")
    own = synthetic.counted(RUN, method)
    false = next(i for i in range(3) if own["n_a"][i] < own["n"][i])
    lines = [store.ImageCounts(**{k: row[k].item() for k in store.COLUMNS}) for row in own]
    lines[false] = replace(lines[false], c_a=(lines[false].c_a + 1) % 10, n_a=40, k=20, m=0, n_2=20, n_1=20)
    synthetic.write_counts(RUN, method, lines)
    profile = replace(RUN.profile, attacks=replace(SUITE, attacks=SUITE.attacks[:2], confirm=120))
    attacks.measure(profile)
    with pytest.raises(FalseCertificate, match="SRS-MDEQ-3A"):
        attacks.tables(*attacks.read(profile), profile)
    for name in ("attack_soundness", "robust_accuracy_SMALL_s0.50", "pointwise_SMALL_s0.50"):
        assert store.shown(RUN.profile, f"{name}.csv").is_file(), "the tables are there to be looked at"
