"""Randomized smoothing against the adversarial-robustness-toolbox, an implementation that is not ours."""

import warnings

import numpy as np
import pytest
import torch

from srs.settings import Method, Sampling
from srs.smoothing import bounds, certify
from srs.smoothing.bounds import ABSTAIN, Counts
from tests.helpers import LinearDEQ

SIGMA, ALPHA, N = 0.4, 0.001, 4_000
STANDARD = Method("RS", "naive", 1, batch=N)
# Two pixels and three classes, the sectors around the image's centre; on a third of the images noise confuses two.
WEIGHT = torch.tensor([[4.0, 0.0], [-2.0, 3.4], [-2.0, -3.4]])
BIAS = -WEIGHT.sum(1) / 2


@pytest.fixture(scope="module")
def theirs():
    """Their smoothed classifier of the same linear model."""
    with warnings.catch_warnings():  # it imports much that is not ours, and some of it warns
        warnings.simplefilter("ignore")
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3))
        network[1].weight.data, network[1].bias.data = WEIGHT.clone(), BIAS.clone()
        return PyTorchRandomizedSmoothing(
            model=network, loss=torch.nn.CrossEntropyLoss(), input_shape=(1, 1, 2), nb_classes=3, sample_size=100,
            scale=SIGMA, alpha=ALPHA, device_type="cpu",
        )  # fmt: skip


@pytest.mark.parametrize("n", [1, 10, 100, 4_000])
def test_lower_bound_and_radius_are_theirs(theirs, monkeypatch, n):
    for n_a in np.unique(np.linspace(0, n, 15).astype(int)):
        bound, radius = bounds.certify("cohen", Counts(n=n, n_a=int(n_a)), SIGMA, ALPHA)
        assert float(bound) == pytest.approx(theirs._lower_confidence_bound(int(n_a), n), abs=1e-12)
        monkeypatch.setattr(theirs, "_prediction_counts", lambda *_, **__: np.array([0.0, n_a, 0.0]))
        predicted, wanted = theirs.certify(np.zeros((1, 1, 1, 2), np.float32), n=n)
        if n_a:
            assert predicted[0] == (1 if bound > 0.5 else ABSTAIN)
        assert float(radius) == pytest.approx(float(wanted[0]), abs=1e-12)


def test_certificates_of_one_model_agree(theirs):
    """Both draw noise of their own: bounds may differ by sampling only, here by five standard errors of a difference."""
    rng = np.random.default_rng(0)
    x = rng.random((12, 1, 1, 2), np.float32)
    np.random.seed(0)  # their noise comes from numpy's global stream
    predicted, radius = theirs.certify(x, n=N, batch_size=N)
    sampling = Sampling(3, n0=100, n=N, reference=STANDARD)
    model = LinearDEQ(WEIGHT, BIAS)
    certified = 0
    for i, image in enumerate(torch.from_numpy(x)):
        ours = certify.certify_image(model, image, STANDARD, sampling, sigma=SIGMA, alpha=ALPHA, idx=i)
        p = ours.p_lower
        slack = 5 * (2 * p * (1 - p) / N) ** 0.5
        low, high = bounds.radius(p - slack, SIGMA), bounds.radius(min(p + slack, 1 - 1e-9), SIGMA)
        assert low <= radius[i] <= high
        if low > 0:
            certified += 1
            assert ours.predict == predicted[i]
        elif high == 0:
            assert ours.predict == predicted[i] == ABSTAIN
    assert certified >= 4
