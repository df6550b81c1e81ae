"""`tune`: its choice follows the model and costs what a certificate then spends; its noise is another one."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import srs
from srs import data, profiles, settings, store
from srs.analysis import measures
from srs.experiments import own_model
from srs.settings import ConfigError
from tests.helpers import LinearDEQ, three_classes

SIGMA = 0.25
IMAGES = list(torch.rand(10, 1, 2, 2, generator=torch.Generator().manual_seed(1)))


def labels_of(model: LinearDEQ) -> list[int]:
    return [int(model.head(x.flatten()[None]).argmax()) for x in IMAGES]


@pytest.mark.parametrize(("rate", "most"), [(0.0, 1), (0.6, 4)])
def test_a_model_is_solved_as_long_as_it_needs(rate, most):
    model = three_classes(rate)
    found = srs.tune(model, IMAGES, labels_of(model), classes=3, sigma=SIGMA)
    table = found.table.assign(name=[method.name for method in found.table["method"]]).set_index("name")
    assert found.method.steps <= most and not found.method.needs_audit
    assert table["kept"]["zero-anderson-30"] == 1 and table["kept"][found.method.name] >= 0.95
    assert table["NFE"][found.method.name] < 33_000
    # What it costs is what a certificate spends, its audit included.
    for name in (found.method.name, "previous-anderson-3 audited by zero-anderson-30"):
        own = srs.Smooth(found.model, 3, SIGMA, method=table["method"][name]).certificate(IMAGES[0])
        auditor = table["method"][name].auditor or found.method
        assert own.votes.nfe[:2].sum() + len(own.votes.audited) * auditor.steps == own.nfe
        assert own.nfe <= table["NFE"][name] <= own.nfe + 400 * 30 * ("audited" in name)
    assert [line.partition(":")[0] for line in str(found).splitlines()][:-1] == [
        "cheapest sound method", "full solve", "from zero", "from a shared start", "with an audit"
    ]  # fmt: skip


def test_radii_are_those_that_are_then_certified_and_noise_is_another_one(monkeypatch):
    seeds, copies_of = [], own_model.Copies
    monkeypatch.setattr(own_model, "Copies", lambda *where: seeds.append(where[2]) or copies_of(*where))
    model = three_classes()
    found = srs.tune(model, IMAGES, labels_of(model), classes=3, sigma=SIGMA, copies=400)
    smooth = srs.Smooth(found.model, 3, SIGMA, method=found.method)
    right = [radius * (predict == label) for (predict, radius), label in zip(map(smooth.certify, IMAGES), labels_of(model))]
    assert found.table["radius"][0] == pytest.approx(sum(right) / len(right), rel=0.1)
    assert set(seeds) == {own_model.OTHER_NOISE} and smooth.sampling.seed not in seeds


def test_radii_that_scatter_are_not_taken_for_kept():
    full = np.linspace(0.1, 1, 20)
    assert own_model.keeps(0.98 * full, full, 0.95) and not own_model.keeps(0.94 * full, full, 0.95)
    scattered = np.where(np.arange(20) % 2, 2.0, 0.0) * full
    assert scattered.mean() > full.mean() and not own_model.keeps(scattered, full, 0.95)


def test_margins_of_three_copies_tell_the_share_of_votes_better_than_their_votes():
    means = np.linspace(-1, 2, 4_000)
    margins = means + np.random.default_rng(0).normal(size=(3, 4_000))
    wrong = [np.abs(share - norm.cdf(means)).mean() for share in (own_model.share_of(margins), (margins > 0).mean(axis=0))]
    assert wrong[0] < 0.75 * wrong[1]
    margins[0, 0] = np.nan
    assert own_model.share_of(margins)[0] == 0 and np.isfinite(own_model.share_of(margins)).all()


def test_an_explicit_network_gets_plain_rs():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    labels = [int(network(x[None]).argmax()) for x in IMAGES]
    found = srs.tune(network, IMAGES, labels, classes=3, sigma=0.01)
    assert found.method == settings.EXPLICIT and str(found).startswith("plain RS: 1,100 evaluations of f per image")
    with pytest.raises(ConfigError, match="mean radius = 0.0 is refused"):
        srs.tune(network, IMAGES, [(label + 1) % 3 for label in labels], classes=3, sigma=0.01)
    with pytest.raises(ConfigError, match=r"labels = \[3\] is refused: want classes from 0 to 2"):
        srs.tune(network, IMAGES, [3] * 10, classes=3)


@pytest.mark.parametrize("recipe", ["path_independent", "paper"])
def test_the_choice_for_a_shipped_model_costs_little_more_than_the_best_measured_row(shared, recipe):
    """The best row of the shipped counts: the cheapest sound one with 95 % of the full solve's average certified radius."""
    source, run = data.image_folder(shared("cifar10", "train")), profiles.get_run("cifar10", "SMALL", 0.5, recipe)
    some = torch.linspace(0, len(source.labels) - 1, 100).long()
    found = srs.tune(srs.load(f"cifar10/{run.id}"), source.x(some), source.labels[some])
    counted = store.read_run(run)
    radius = measures.certified_accuracy(measures.holding(counted, alpha=run.profile.alpha), (0.0,), ["method"])["ACR"]
    best = measures.cost(counted, ["method"])["NFE/image"][radius >= 0.95 * radius[run.profile.reference]].min()
    assert found.table["NFE"][found.table["method"] == found.method].iloc[0] <= 1.1 * best
