"""Attacks on a profile's images: the library's part, votes on what was attacked, resuming, and false certificates caught."""

import dataclasses
import math
import shutil
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import adversary, attack_report, attacks, certify, paths, points, results, tables, threats, votes
from srs.attack_report import Certified, FalseCertificate, flipped, require_sound, soundness
from srs.bounds import ABSTAIN, Rule
from srs.config import ConfigError, Method, replace
from srs.paths import DamagedFile
from srs.points import NOT_DRAWN, Point
from srs.threats import Attack, Gradient
from tests.helpers import LinearDEQ, digits, save_untrained, smoke_run

RUN = smoke_run(images=3, n0=10, n=40)
BATTERY = replace(threats.BATTERIES["smoke"], images=3, n=5, copies=8)
REFERENCE = RUN.profile.reference


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root where RUN, on an untrained model, is certified and attacked in one go, and the lines that came out."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(root))
        save_untrained(RUN)
        certify.certify(RUN, progress=False)
        yield root, texts(attacked())


@pytest.fixture
def done(finished, srs_root):
    """A copy of it, as it was; gives the lines."""
    shutil.copytree(finished[0] / "data", srs_root / "data", dirs_exist_ok=True)
    return finished[1]


def attacked(battery=BATTERY, run=RUN):
    return attacks.run_battery(run, battery, progress=False)


def texts(written):
    return {name: path.read_text() for name, path in written.items()}


def stored():
    return sorted(points.folder(RUN).glob("*/*.npz"))


# ---------------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize("kind", threats.KINDS)
def test_library_does_what_our_pgd_does_without_clipping(kind):
    from srs import library

    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model, x, y = LinearDEQ(weight, torch.zeros(3), 0.5), torch.ones(3, 1, 2, 2), torch.tensor([0, 1, 2])
    attack = Attack("PGD", gradient=Gradient(kind, 5, backward=5, unroll=2), steps=7)
    radius = torch.tensor([0.25, 0.5, 3.0])
    theirs = library.pgd(model, x, y, attack, radius)
    ours = adversary.pgd(
        x, lambda x: adversary.smoothed_gradient(model, x, y, torch.zeros(3, 1, 1, 2, 2), attack.gradient), radius, steps=7, step=0.1
    )
    assert torch.allclose(theirs, ours, atol=1e-6)
    moved = (theirs - x).flatten(1).norm(dim=1)
    assert torch.allclose(moved[:2], radius[:2], atol=1e-5) and 0.6 < moved[2] < 0.7 + 1e-5
    assert theirs.max() > 1.05


def test_attacks_of_many_radii_are_those_of_each_radius_alone():
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model, x, y = LinearDEQ(weight, torch.zeros(3), 0.5), torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    attack = Attack("Smooth", 3, Gradient("unrolled", 3, unroll=2), steps=9)
    noise, radii = 0.5 * torch.randn(2, 3, 1, 2, 2), torch.tensor([[0.25, 0.4, 2.0]] * 2)
    together = attacks.attack_images(model, x, y, noise, radii, attack)
    spent, model.evaluations = model.evaluations, 0
    for r in range(3):
        alone = attacks.attack_images(model, x, y, noise, radii[:, r : r + 1], attack)
        assert torch.allclose(together[:, r], alone[:, 0], atol=1e-6)
    assert spent < 0.8 * model.evaluations, "steps that attacks share are taken once"


# ---------------------------------------------------------------------------------------------- votes


@pytest.mark.parametrize("name", ["MDEQ-30A", "SRS-MDEQ-1A", "SRS-MDEQ-3A"])
@pytest.mark.parametrize("together", [1, 12, 1000])
def test_votes_on_many_images_are_those_on_each_alone(srs_root, name, together):
    model, x, method = save_untrained(RUN), digits(3)[0], replace(RUN.profile.method(name), batch=2)
    e = torch.randn(3, 10, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    many = attacks.vote(model, x, method, 0.5, e, together=together)
    assert many.shape == (3, 10) and len(np.unique(many)) > 1
    for image, noise, got in zip(x, e, many):
        alone, _ = votes.sample(model, image, method, 0.5, np.arange(10), lambda i: noise[i])
        assert np.array_equal(got, alone)


def test_noise_of_attacks_is_neither_the_certificates_nor_the_predictions(finished, monkeypatch):
    drawn = []
    monkeypatch.setenv("SRS_ROOT", str(finished[0]))
    monkeypatch.setattr(votes, "noise", lambda shape, seed, idx, stage, samples: drawn.append(
        {(seed, idx, stage, int(s)) for s in samples}) or torch.zeros(len(samples), *shape))  # fmt: skip
    x = digits(1)[0]
    held = {0: [(8, 9.0, True), (9, 9.0, True)]}  # one of them is contradicted, whatever the votes
    attacks._attack_group(_model(), RUN, BATTERY, BATTERY.attacks[2], x, [8], [8], held)
    attack, predict, confirm = drawn
    assert not attack & predict and not predict & confirm and not attack & confirm
    certificates = {(RUN.profile.seed, 0, stage, s) for stage in votes.STAGES for s in range(1000)}
    assert not certificates & (attack | predict | confirm)


def _model():
    from srs import models

    return models.load(paths.weights(RUN), RUN.model, RUN.profile.data).requires_grad_(False)


# ---------------------------------------------------------------------------------------------- a run


def test_lines_say_what_was_stored(finished, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(finished[0]))
    by_method = {m: results.read_tallies(paths.tallies(RUN, RUN.profile.method(m))) for m in BATTERY.methods}
    for attack in BATTERY.attacks:
        lines = points.read(points.points_file(RUN, attack))
        assert len(lines) == 3 * max(1, len(attack.radii)) * len(BATTERY.methods)
        for line in lines:
            assert line.distance <= line.radius * (1 + 1e-6)
            assert line.c_a == by_method[line.method]["c_a"][by_method[line.method]["idx"] == line.idx][0]
            assert line.n == BATTERY.n and line.n_confirm in (0, BATTERY.confirm)
            assert line.n_c_a + line.n_rival <= line.n_confirm
    assert {line.radius for line in points.read(points.points_file(RUN, BATTERY.attacks[1]))} == {0.25, 0.5}


def test_what_is_stored_is_an_attack_within_its_steps(finished, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(finished[0]))
    one = attacks.read(next(file for file in stored() if file.parent.name.startswith("Smooth-PGD-m=2")))
    assert (one.distance > 0.05).all() and (one.distance < 0.2 + 1e-5).all(), "two steps of 0.1, within 0.25 and 0.5"
    assert one.votes.shape == (3, 2, 5) and (one.votes >= 0).all()


@pytest.mark.parametrize("kill_at", [1, 4, 8])
def test_killed_run_goes_on_and_ends_the_same(done, monkeypatch, kill_at):
    for file in stored():
        file.unlink()
    write, made = attacks.write, []

    def killed(path, one):
        if len(made) == kill_at:
            raise KeyboardInterrupt
        made.append(path)
        write(path, one)

    monkeypatch.setattr(attacks, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        attacked()
    before = {path: path.stat().st_mtime_ns for path in made[: kill_at - 2]}
    monkeypatch.setattr(attacks, "write", write)
    assert texts(attacked()) == done
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "what was finished was done again"


def test_second_call_attacks_nothing(done, monkeypatch):
    monkeypatch.setattr(attacks, "_attack_group", lambda *_: pytest.fail("attacked again"))
    assert texts(attacked()) == done


def test_other_settings_are_not_taken_for_the_same(done):
    held = attacks.certificates(RUN, BATTERY, RUN.profile.evaluated, attacks.tallies_of(RUN))
    one = BATTERY.attacks[1]
    keys = {
        attacks.attack_key(RUN, battery, attack, h, ("weights",))
        for battery, attack, h in (
            (BATTERY, one, held), (replace(BATTERY, n=10), one, held), (replace(BATTERY, confirm=7), one, held),
            (BATTERY, replace(one, step=0.2), held), (BATTERY, replace(one, gradient=Gradient("phantom")), held),
            (BATTERY, one, held | {0: [(1, 0.5, True)]}),
        )
    }  # fmt: skip
    assert len(keys | {attacks.attack_key(RUN, BATTERY, one, held, ("others",))}) == 7
    assert attacks.attack_key(RUN, replace(BATTERY, images=1), one, held, ("weights",)) in keys


def test_damaged_files_are_set_aside(done):
    stored()[0].write_bytes(b"no")
    with pytest.raises(DamagedFile):
        attacked()
    assert texts(attacked()) == done
    path = points.points_file(RUN, BATTERY.attacks[0])
    path.write_text(path.read_text().replace("none", "none\t", 1))
    with pytest.raises(DamagedFile):
        points.read(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(images=4), "attacked images = 4"), (dict(n=7), "n = 7"), (dict(methods=("SRS-MDEQ-1A",)), "methods"),
        (dict(methods=("MDEQ-30A", "MDEQ-1A")), "MDEQ-1A"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(done, change, named):
    with pytest.raises(ConfigError, match=named):
        attacked(replace(BATTERY, **change))


def test_grid_noise_and_missing_results_are_refused(srs_root):
    with pytest.raises(ConfigError, match="noise = 'grid'"):
        attacked(run=smoke_run(images=3, noise="grid"))
    with pytest.raises(ConfigError, match="weight file"):
        attacked()
    save_untrained(RUN)
    with pytest.raises(ConfigError, match="result file"):
        attacked()
    with pytest.raises(ConfigError, match="attack results"):
        points.read(points.points_file(RUN, BATTERY.attacks[0]))


@pytest.mark.parametrize("line", [["--sigma", "0.3"], ["--profile", "smoke"]])
def test_command_line_refuses_in_one_sentence(srs_root, capsys, line):
    with pytest.raises(SystemExit):
        attacks.main(line)
    assert "is refused: want" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- soundness


@pytest.mark.parametrize(
    ("n_c_a", "n_rival", "want"), [(200, 200, False), (390, 10, False), (190, 210, False), (10, 390, True), (0, 5, False), (0, 40, True)]
)
def test_flip_is_proven_or_not(n_c_a, n_rival, want):
    assert flipped(n_c_a, n_rival, classes=10) == want


def test_flip_test_is_conservative():
    """At p_A = p_B = 1/2, the worst case, even at a large alpha it errs no more often than that."""
    n, alpha = 60, 0.05
    wrong = sum(math.comb(n, k) / 2**n for k in range(n + 1) if flipped(n - k, k, classes=2, alpha=alpha))
    assert 0 < wrong <= alpha / 2


def point(**change):
    plain = dict(
        idx=0, label=3, attack="PGD", radius=0.5, distance=0.5, base=3, method=REFERENCE, n=25, own=3, c_a=3,
        n_confirm=400, n_c_a=10, rival=7, n_rival=380,
    )  # fmt: skip
    return Point(**plain | change)


def false_within(radius, **change):
    table = soundness([point(**change)], [Certified(REFERENCE, Rule.COHEN, {0: 3}, {0: radius})], classes=10)
    return table["points within a certified radius"][0], table["flipped"][0]


def test_a_wrong_certificate_is_caught_and_only_within_its_radius():
    assert false_within(0.6) == ("1", "1")
    assert false_within(0.5) == ("0", "0"), "a certificate holds inside its radius, not on it"
    assert false_within(0.6, n_c_a=390, n_rival=10) == ("1", "0")
    assert false_within(0.6, n_confirm=0, n_c_a=0, n_rival=0) == ("1", "0")
    table = soundness([point()], [Certified(REFERENCE, Rule.COHEN, {0: 3}, {0: 0.6})], classes=10)
    with pytest.raises(FalseCertificate, match="cohen"):
        require_sound(table)
    require_sound(soundness([point()], [Certified(REFERENCE, Rule.RELEASED, {0: 3}, {0: 0.6})], classes=10))
    require_sound(soundness([point()], [Certified(REFERENCE, Rule.COHEN, {0: ABSTAIN}, {0: 0.0})], classes=10))


def test_points_of_another_class_than_the_certificate_are_refused():
    with pytest.raises(ValueError, match="attack again"):
        soundness([point(c_a=4)], [Certified(REFERENCE, Rule.COHEN, {0: 3}, {0: 0.6})], classes=10)


@pytest.mark.parametrize(("share", "caught"), [(0.9, False), (1.25, True)])
def test_attack_refutes_a_radius_beyond_the_true_one_and_no_other(share, caught):
    """Two classes and linear logits: the smoothed classifier's radius is the distance to the half-space, exactly."""
    weight, sigma, x = torch.tensor([[1.0, 0.5, -0.5, 2.0], [0.0, -1.0, 0.5, 1.0]]), 0.4, torch.rand(1, 1, 2, 2)
    along = weight[1] - weight[0]
    true = 0.6
    model = LinearDEQ(weight, torch.tensor([0.0, float((-x.flatten() @ along - true * along.norm()))]))
    attack = Attack("Smooth", 4, Gradient("phantom", 2), steps=12, step=0.1, radii=(share * true,))
    g = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(1, 4, 1, 2, 2, generator=g)
    found = attacks.attack_images(model, x, torch.tensor([0]), noise, torch.tensor([attack.radii]), attack)[0]
    e = torch.randn(1, 2_000, 1, 2, 2, generator=g)
    drawn = attacks.vote(model, found, Method("RS", "naive", 1), sigma, e, together=5_000)[0]
    share_of_a = norm.cdf((true - share * true) / sigma)
    assert (drawn == 0).mean() == pytest.approx(share_of_a, abs=0.05)
    line = point(distance=share * true, c_a=0, rival=1, n_c_a=int((drawn == 0).sum()), n_rival=int((drawn == 1).sum()))
    table = soundness([line], [Certified(REFERENCE, Rule.COHEN, {0: 0}, {0: 1.3 * true})], classes=2)
    assert (table["flipped"][0] == "1") == caught


def test_a_seeded_wrong_certificate_is_caught_from_votes_to_table(done, monkeypatch):
    """Unanimous stored votes for a class that the classifier does not give: the first votes at the image contradict."""
    method = RUN.profile.method("SRS-MDEQ-3A")
    path = paths.tallies(RUN, method)
    counts = results.read_tallies(path)
    false = next(i for i in range(3) if counts["n_a"][i] < counts["n"][i])
    names = results.COLUMNS
    lines = [results.Tally(**{k: row[k].item() for k in names}) for row in counts]
    wrong = dict(c_a=(lines[false].c_a + 1) % 10, n_a=40, k=20, m=0, n_2=20, n_1=20)
    lines[false] = dataclasses.replace(lines[false], **wrong)
    results.write_tallies(path, lines)
    monkeypatch.setitem(threats.BATTERIES, "smoke", replace(BATTERY, attacks=BATTERY.attacks[:2], confirm=400))
    profile = replace(RUN.profile, models=((RUN.model, RUN.train),), sigmas=(RUN.sigma,))
    attacked(threats.BATTERIES["smoke"])
    with pytest.raises(FalseCertificate, match="SRS-MDEQ-3A"):
        attack_report.make_attacks(profile)
    assert paths.shown(profile, "attack_soundness").with_suffix(".csv").is_file(), "the table is there to be looked at"


# ---------------------------------------------------------------------------------------------- tables


def test_robust_accuracy_counts_images_right_before_and_after(srs_root):
    battery = replace(BATTERY, methods=(REFERENCE,), images=4)
    own = {0: (3, 3, 3), 1: (3, 3, 0), 2: (3, 0, 3), 3: (1, 3, 3)}  # answers at r = 0, 0.25, 0.5; the label is 3
    some = [
        point(idx=i, attack=attack, radius=r, own=answer, base=3, n_confirm=0)
        for i, answers in own.items()
        for attack, r, answer in (("none", 0.0, answers[0]), ("PGD", 0.25, answers[1]), ("PGD", 0.5, answers[2]))
    ]
    certificate = Certified(REFERENCE, Rule.COHEN, {0: 3, 1: 3, 2: ABSTAIN, 3: 1}, {0: 0.3, 1: 0.6, 2: 0.0, 3: 0.9})
    table = attack_report.robust_accuracy(RUN, battery, some, [certificate], {}).set_index(["attack", "classifier"])
    at = ["r=0.00", "r=0.25", "r=0.50"]
    assert table.loc[("certified", "MDEQ-30A, cohen"), at].tolist() == ["50.0", "50.0", "25.0"]
    assert table.loc[("PGD", REFERENCE), at].tolist() == ["75.0", "50.0", "50.0"]
    assert table.loc[(attack_report.ALL, REFERENCE), at].tolist() == ["75.0", "50.0", "25.0"], "wrong once is wrong for good"
    assert table.loc[("PGD", "base classifier"), at].tolist() == ["100.0", "100.0", "100.0"]


def test_pointwise_table_parts_certified_from_uncertified(srs_root):
    battery = replace(BATTERY, methods=(REFERENCE,))
    some = [point(idx=i, radius=0.25, own=own, n_confirm=0) for i, own in enumerate((3, 4, 4))]
    certificate = Certified(REFERENCE, Rule.COHEN, {0: 3, 1: 3, 2: 3}, {0: 0.3, 1: 0.25, 2: 0.2})
    table = attack_report.pointwise(RUN, battery, some, [certificate])
    table = table[table["attack"] == "PGD"].set_index("images")
    assert table.loc["certified", "r=0.25"] == "1 of 2" and table.loc["not certified", "r=0.25"] == "1 of 1"


def test_everything_is_made_from_what_is_stored(done, monkeypatch):
    from srs import models

    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("a network was asked for"))
    monkeypatch.setitem(threats.BATTERIES, "smoke", BATTERY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made, drawn = attack_report.make_attacks(RUN.profile)
    assert set(made) == {"robust_accuracy_SMALL_s0.50", "pointwise_SMALL_s0.50", "attack_soundness"}
    for name in (*made, *drawn):
        assert paths.shown(RUN.profile, name).with_name(f"{name}.json").is_file()
    axes = drawn["robust_curves_SMALL"].axes
    assert [ax.get_title() for ax in axes if ax.get_title()] == ["sigma = 0.50"]
