"""quickstart: residuals are those of the solver, certificates those of one image, and findings follow the numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from tests.helpers import save_untrained, smoke_run

from srs import data, store
from srs.deq.solvers import relative_residual, SOLVERS
from srs.experiments import quickstart
from srs.smoothing import certify, noise

RUN = smoke_run()


@pytest.fixture
def model(srs_root):
    save_untrained(RUN)
    return certify.load_model(RUN)


def test_residuals_are_the_solver_s_from_each_start_on_the_copies_that_the_estimation_sees(model):
    x = data.load(RUN.profile.data, "test").x(0)
    noisy = x + RUN.sigma * noise.noise(tuple(x.shape), RUN.profile.seed, 0, "estimate", np.arange(4))
    frame = quickstart.residuals(model, RUN, 0, copies=2, steps=3)
    each = frame.groupby(["start", "evaluations"]).size()
    assert each.to_dict() == {(s, k): 2 for s in ("zero", "clean", "previous") for k in (1, 2, 3)}
    reference = RUN.profile.method(RUN.profile.reference)
    with torch.inference_mode():
        u = model.inject(noisy[2:])
        z = SOLVERS[reference.solver](model.f, model.initial(u), u, max_steps=1).z
        expected = relative_residual(z, model.f(z, u))
    np.testing.assert_array_equal(frame.query("start == 'zero' and evaluations == 2")["residual"], expected.numpy())
    assert quickstart.convergence(RUN, frame, 0).png == quickstart.stored(RUN.profile)[0].png
    assert store.shown(RUN.profile, "quickstart_residuals.pdf").is_file()


def test_certificates_are_those_of_one_image(model):
    frame = quickstart.certificates(model, RUN, 1).set_index("rule")
    p, x = RUN.profile, data.load(RUN.profile.data, "test").x(1)
    c = certify.certify_image(model, x, p.method(p.reference), p.sampling, sigma=RUN.sigma, alpha=p.alpha, idx=1)
    assert frame.loc["cohen", ["class", "radius", "NFE"]].tolist() == [c.predict, c.radius, c.nfe]
    assert frame.loc["audit", "NFE"] == frame.loc["audit", ["NFE select", "NFE estimate", "NFE audit"]].sum()


def test_findings_follow_the_numbers():
    starts = pd.DataFrame({"start": np.repeat(["zero", "clean", "previous"], 3), "evaluations": [1, 2, 3] * 3})
    for last, told in ((0.2, "comes as near with evaluation 3"), (0.4, "does not come as near within 3")):
        made = starts.assign(residual=[1, 0.5, last, 0.4, 0.2, 0.1, 0.3, 0.2, 0.1])
        assert f"0.3 from another copy's; zero {told}." in quickstart.start_finding(made)
    spent = pd.DataFrame({"method": ["RS", "SRS"], "NFE": [3000, 1000], "NFE audit": [0, 250], "radius": [0.5, 0.4]})
    assert "3.0 times fewer evaluations than RS, 25 % of them on the audit" in quickstart.cost_finding(spent)
