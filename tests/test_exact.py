"""exact: grid noise has the stated distribution, down to the last bit, and loses nothing when it is added."""

from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import settings
from srs.smoothing import exact, votes
from tests.helpers import LinearDEQ

@pytest.mark.parametrize("sigma, levels", [(0.12, 16), (0.5, 16), (0.25, 255)])
def test_the_table_is_the_normal_distribution(sigma, levels):
    found = exact.thresholds(sigma, levels)
    reach = len(found) // 2
    wanted = norm.cdf((np.arange(-reach, reach) + 0.5) / (levels * sigma))
    np.testing.assert_allclose(found / 2.0**64, wanted, rtol=1e-13, atol=1e-19)
    exactly = found.astype(object)
    assert (np.diff(exactly) >= 0).all() and set(exactly + exactly[::-1]) == {2**64}
    assert norm.sf((reach + 0.5) / (levels * sigma)) < 2.0**-65 and exact.added_to_alpha(sigma, levels, 1, 1) < 3e-16


def test_thresholds_are_exact_to_the_last_bit_and_the_ends_are_drawn():
    found = exact.thresholds(0.12, 16)
    reach = len(found) // 2
    with mpmath.workdps(80):
        t = [(2 * j + 1) / (32 * mpmath.mpf(0.12)) for j in range(reach)]
        wanted = [(1 - mpmath.erfc(t_j / mpmath.sqrt(2)) / 2) * 2**64 for t_j in t]
        assert all(abs(int(a) - b) <= 0.5 for a, b in zip(found[reach:], wanted))
    numbers = SimpleNamespace(integers=lambda *_: np.array([0, 2**64 - 1, 2**63 - 1, 2**63], np.uint64))
    assert list(exact.draw(numbers, (4,), 0.12, 16)) == [-reach, reach, 0, 0]


@pytest.mark.parametrize("levels", [16, 255])
def test_the_sum_is_a_function_of_the_integer_alone(levels):
    whole = torch.randint(0, levels + 1, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    drawn = exact.draw(np.random.default_rng(3), (50, 3, 8, 8), 0.5, levels)
    copies = exact.add(whole.float() / levels, drawn, levels)
    np.testing.assert_array_equal(copies.numpy(), (whole.numpy() + drawn).astype(np.float32) / np.float32(levels))


def test_votes_on_grid_noise():
    """A one-step DEQ that keeps its input: class 1 where the mean pixel is above a half."""
    x, model = torch.full((1, 2, 2), 11 / 16), LinearDEQ(torch.tensor([[0.0] * 4, [0.25] * 4]), torch.tensor([0.5, 0.0]))
    method = settings.Method("m", "naive", 1, start="previous", batch=7, audit=10)
    sampling = settings.Sampling(2, n0=20, n=150, reference=settings.Method("r", "naive", 1), noise="grid", levels=16)
    drawn = votes.draw_votes(model, x, method, sampling, 0.25)
    given = torch.cat([u for _, u in model.calls])
    assert len(given) == 20 + 150 + 10 and (given * 16 == (given * 16).round()).all()
    np.testing.assert_array_equal(drawn.standard, drawn.estimate[drawn.audited])  # the same noise again
    assert 0.8 < (drawn.estimate == 1).mean() < 1
    with pytest.raises(settings.ConfigError, match="off the grid"):
        votes.draw_votes(model, x + 0.01, method, sampling, 0.25)
