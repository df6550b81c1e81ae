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


def test_bounds_radii_and_certificates_are_theirs(monkeypatch):
    """Both draw noise of their own: certificates may differ by sampling only, here by five standard errors of a difference."""
    with warnings.catch_warnings():  # it imports much that is not ours, and some of it warns
        warnings.simplefilter("ignore")
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3))
        network[1].weight.data, network[1].bias.data = WEIGHT.clone(), BIAS.clone()
        theirs = PyTorchRandomizedSmoothing(
            model=network, loss=torch.nn.CrossEntropyLoss(), input_shape=(1, 1, 2), nb_classes=3, sample_size=100,
            scale=SIGMA, alpha=ALPHA, device_type="cpu",
        )  # fmt: skip
    x = np.random.default_rng(0).random((12, 1, 1, 2), np.float32)
    np.random.seed(0)  # their noise comes from numpy's global stream
    predicted, radius = theirs.certify(x, n=N, batch_size=N)
    model, sampling, certified = LinearDEQ(WEIGHT, BIAS), Sampling(3, n0=100, n=N, reference=STANDARD), 0
    for i, image in enumerate(torch.from_numpy(x)):
        ours = certify.certify_image(model, image, STANDARD, sampling, sigma=SIGMA, alpha=ALPHA, idx=i)
        slack = 5 * (2 * ours.p_lower * (1 - ours.p_lower) / N) ** 0.5
        low, high = (bounds.radius(min(p, 1 - 1e-9), SIGMA) for p in (ours.p_lower - slack, ours.p_lower + slack))
        assert low <= radius[i] <= high
        assert ours.predict == predicted[i] or low == 0 < high
        certified += low > 0
    assert certified >= 4
    for n, n_a in [(n, int(n_a)) for n in (1, 10, 100, 4_000) for n_a in np.unique(np.linspace(0, n, 15).astype(int))]:
        bound, reach = bounds.certify("cohen", Counts(n=n, n_a=n_a), SIGMA, ALPHA)
        assert float(bound) == pytest.approx(theirs._lower_confidence_bound(n_a, n), abs=1e-12)
        monkeypatch.setattr(theirs, "_prediction_counts", lambda *_, n_a=n_a, **__: np.array([0.0, n_a, 0.0]))
        answer, wanted = theirs.certify(np.zeros((1, 1, 1, 2), np.float32), n=n)
        assert not n_a or answer[0] == (1 if bound > 0.5 else ABSTAIN)
        assert float(reach) == pytest.approx(float(wanted[0]), abs=1e-12)
