"""exact: grid noise has the stated distribution, down to the last bit, and loses nothing when it is added."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import profiles, settings
from srs.smoothing import exact, noise, votes
from tests.helpers import LinearDEQ

GRIDS = [(0.12, 16), (0.5, 16), (0.25, 255)]


def generator():
    return np.random.Generator(np.random.Philox(3))


@pytest.mark.parametrize("sigma, levels", GRIDS)
def test_the_table_is_the_normal_distribution_and_its_guide_gives_what_the_thresholds_give(sigma, levels):
    found = exact.table(sigma, levels)
    i = np.arange(-found.reach, found.reach)
    wanted = norm.cdf((i + 0.5) / (levels * sigma))
    np.testing.assert_allclose(found.thresholds / 2.0**64, wanted, rtol=1e-13, atol=1e-19)
    exactly = found.thresholds.astype(object)
    assert (np.diff(exactly) >= 0).all() and set(exactly + exactly[::-1]) == {2**64}
    assert norm.sf((found.reach + 0.5) / (levels * sigma)) < 2.0**-65 and exact.added_to_alpha(sigma, levels, 1, 1) < 3e-16
    u = generator().integers(0, 2**64, 50_000, np.uint64)
    drawn = exact.draw(generator(), (50_000,), sigma, levels)
    np.testing.assert_array_equal(drawn, np.searchsorted(found.thresholds, u, side="right") - found.reach)
    assert found.unsure.mean() < 0.05


def test_thresholds_are_exact_to_the_last_bit():
    found = exact.table(0.12, 16)
    with mpmath.workdps(80):
        t = [(2 * j + 1) / (32 * mpmath.mpf(0.12)) for j in range(found.reach)]
        wanted = [(1 - mpmath.erfc(t_j / mpmath.sqrt(2)) / 2) * 2**64 for t_j in t]
        assert all(abs(int(a) - b) <= 0.5 for a, b in zip(found.thresholds[found.reach :], wanted))


def test_the_ends_of_the_table():
    class Fixed:
        def integers(self, low, high, shape, dtype):
            return np.array([0, 2**64 - 1, 2**63 - 1, 2**63], np.uint64)

    reach = exact.table(0.25, 255).reach
    assert list(exact.draw(Fixed(), (4,), 0.25, 255)) == [-reach, reach, 0, 0]


@pytest.mark.parametrize("levels", [16, 255])
def test_the_sum_is_a_function_of_the_integer_alone(levels):
    whole = torch.randint(0, levels + 1, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    drawn = exact.draw(generator(), (50, 3, 8, 8), 0.5, levels)
    copies = exact.add(whole.float() / levels, drawn, levels)
    np.testing.assert_array_equal(copies.numpy(), (whole.numpy() + drawn).astype(np.float32) / np.float32(levels))


def test_an_image_off_the_grid_is_refused():
    x = torch.full((1, 2, 2), 0.5)
    assert exact.to_grid(x, 16).tolist() == [[[8, 8], [8, 8]]]
    for wrong, levels in ((x, 255), (x + 1e-4, 16)):
        with pytest.raises(settings.ConfigError, match=f"multiples of 1/{levels} for grid noise"):
            exact.to_grid(wrong, levels)


def test_votes_on_grid_noise():
    """A one-step DEQ that keeps its input: class 1 where the mean pixel is above a half."""
    where = ((1, 2, 2), 0, 5, "estimate")
    together, alone = (noise.grid_noise(*where, np.array(picked), sigma=0.5, levels=255) for picked in (range(250), (203, 17)))
    np.testing.assert_array_equal(alone, together[[203, 17]])
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
    digits = replace(profiles.get_profile("digits"), noise="grid")
    assert (digits.sampling.noise, digits.sampling.levels) == ("grid", 16)
