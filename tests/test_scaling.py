"""The projection is work over cores until the driver, which does every task alone, is the slower."""

from srs import profiles
from srs.experiments import scaling


def test_work_over_cores_or_the_driver():
    cheap = {"driver, per task": 0.5, "evaluation of f, cifar10": 1e-3, "evaluation of f, imagenet": 0.1}
    found = scaling.projection(cheap, cores=100).set_index(["data", "N"])
    # 10,000 images of 30 * 10,100 evaluations: 303 s each; 3 for SRS, first batches of 10, 400 audits of 30: 45.8 s
    assert found.loc[("cifar10", "10,000"), "RS, 100 cores"] == "8 hours"  # 10,000 * 303 / 100 = 30,300 s
    assert found.loc[("cifar10", "10,000"), "SRS, 100 cores"] == "83 minutes"  # the driver's 5,000 s, not 4,600 s of votes
    assert found.loc[("cifar10", "10,000"), "cores that one driver keeps busy"] == "92"
    assert list(found.index) == [(data, n) for data in ("cifar10", "imagenet") for n in ("10,000", "100,000")]


def test_an_evaluation_and_a_task_cost_something():
    assert 0 < scaling.evaluation(profiles.DIGITS_SMALL, profiles.DIGITS, batch=2, times=1) < 1
    assert 0 < scaling.driver(tasks=3, workers=1, n=100) < 1
