"""Ways around the guarantee that were found from outside: each is refused in a sentence, or gives the right votes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from srs import profiles, settings
from srs.deq import mdeq
from srs.deq.solvers import SOLVERS
from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import certify, votes
from srs.smoothing.bounds import ABSTAIN
from srs.smoothing.noise import Copies
from tests import synthetic
from tests.helpers import save_untrained, smoke_run, three_classes, TINY

RS = Method("RS", "naive", 1, batch=50)
CHAIN = Method("CHAIN", "naive", 1, start="previous", batch=50, warmup=5, audit=40)
SAMPLING = Sampling(3, n0=20, n=200, reference=Method("REF", "naive", 1))
X = torch.tensor([[[0.7, 0.2], [0.4, 0.5]]])
COPIES, PILOT = (Copies(X, 0.5, 0, 0, stage) for stage in ("estimate", "pilot"))


def draw(model, x, method, sampling):
    """The way in that every certificate takes, `votes.draw_votes` on it."""
    return certify.certify_image(model, x, method, sampling, sigma=0.5)


@pytest.mark.parametrize("start", [s for s in settings.STARTS if s != "zero"])
def test_what_audits_starts_from_zero(start):
    """f = 0.9 z + 0.1 u, class = sign z: an audit from the audited method's own state found nothing in 100 of 100."""
    other = Method("OTHER", "naive", 2, start=start, warmup=1)
    with pytest.raises(ConfigError, match="reference method = 'OTHER' is refused: want one that starts from zero"):
        Sampling(2, reference=other)
    with pytest.raises(ConfigError, match="auditor of CHAIN = 'OTHER' is refused: want one that starts from zero"):
        replace(CHAIN, auditor=other)
    with pytest.raises(ConfigError, match="'AUDITED' is refused: want one that starts from zero, without an auditor"):
        Sampling(2, reference=replace(RS, name="AUDITED", auditor=RS))


def test_a_state_that_was_not_asked_for_is_no_start():
    """Neither a method that starts from the training mean and that is given none, nor a standard one that is given a state."""
    state = votes.Fixed(torch.ones(1, 4))
    for method, fixed in ((replace(RS, start="train_mean"), None), (RS, state)):
        with pytest.raises(ConfigError, match="fixed = .*is refused: want what `fixed_start` gives"):
            votes.sample(three_classes(), COPIES, method, np.arange(5), fixed=fixed)


def test_wrong_votes_are_those_that_the_method_s_own_auditor_does_not_give(srs_root):
    """With every vote audited, p_m is the audited share; against the reference method it would be another one."""
    small = smoke_run(images=3, n0=10, n=40)
    save_untrained(small)
    auditor, n, srs = small.profile.method("MDEQ-1A"), small.profile.n, small.profile.method("SRS-MDEQ-1A")
    own, by_reference = replace(srs, name="OWN", audit=n, auditor=auditor), replace(srs, name="OTHER", audit=n, auditor=None)
    run = replace(small, profile=replace(small.profile, methods=(*small.profile.methods, own, by_reference)))

    def counted(method):
        return pd.DataFrame(synthetic.counted(run, run.profile.method(method)))

    assert certify.certify(run, methods=("OWN",), progress=False) == ["OWN"]
    assert (counted("OWN")["n_wrong"] == -1).all()  # the auditor's votes are not there: not measured
    certify.certify(run, methods=("OWN", "OTHER", "MDEQ-1A", "MDEQ-30A"), progress=False)
    found, other = counted("OWN"), counted("OTHER")
    for t in (found, other):
        assert (t["n_wrong"] == t["m"]).all() and (t["k"] == t["n_a"]).all()
    assert (found["n_wrong"] != other["n_wrong"]).any()
    assert np.array_equal(found["n_differ"], other["n_differ"])  # from the reference method's votes, whoever audits


@pytest.mark.parametrize("start", ["previous", "clean", "pilot_mean", "corrected_pilot_mean"])
def test_cohen_is_refused_where_votes_need_an_audit(start):
    with pytest.raises(ConfigError, match="rule = 'cohen' is refused: want audit for CHAIN"):
        certify.certify_image(three_classes(), X, replace(CHAIN, start=start), SAMPLING, sigma=0.5, rule="cohen")


BAD_IMAGES = {
    "bool": X > 0.4, "uint8": (255 * X).byte(), "complex": X.to(torch.complex64), "array": X.numpy(), "255 times": 255 * X,
    "negative": -X, "infinite": X / 0, "a batch": X.expand(2, 1, 2, 2), "nothing": X[:, :0],
}  # fmt: skip


@pytest.mark.parametrize("x", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_image_is_refused(x):
    """The noise used to be cast to the image's type: a half-space of radius 0.2 got larger certificates in 50 of 50."""
    model = three_classes()
    with pytest.raises(ConfigError, match="^image"):
        draw(model, x, CHAIN, SAMPLING)
    assert model.evaluations == 0


def test_other_floating_images_are_converted_before_the_noise():
    x = X.bfloat16()
    drawn, one, wanted = (votes.draw_votes(three_classes(), v, CHAIN, SAMPLING, 0.5) for v in (x, x[None], x.float()))
    np.testing.assert_array_equal(drawn.estimate, wanted.estimate)
    np.testing.assert_array_equal(one.estimate, wanted.estimate)


def test_a_head_of_another_width_is_refused_before_a_vote():
    with pytest.raises(ConfigError, match="classes = 32769 is refused: want at most 32,768"):  # a stored vote has 16 bits
        Sampling(32_769)
    model = three_classes()
    with pytest.raises(ConfigError, match=r"logits of two images = \(2, 3\) is refused: want \(2, 4\)"):
        draw(model, X, CHAIN, replace(SAMPLING, classes=4))
    assert model.evaluations == 0


class Wrapped:
    """A DEQ that is no network and holds one."""

    def __init__(self, network):
        self.network, self.inject, self.initial = network, network.inject, network.initial
        self.f, self.head = network.f, network.head


@pytest.mark.parametrize("held", [lambda m: m, Wrapped], ids=["itself", "wrapped"])
@pytest.mark.parametrize("part", [lambda m: m, lambda m: m.fullstage], ids=["whole", "part"])
def test_a_network_in_train_mode_or_of_another_type_is_refused(held, part):
    model, sampling = mdeq.build(TINY, profiles.DIGITS, 0).eval(), replace(SAMPLING, classes=10, n=4)
    x = torch.rand(1, 8, 8)
    draw(held(model), x, RS, sampling)
    part(model).train()
    with pytest.raises(ConfigError, match="train mode' is refused: want model.eval()"):
        draw(held(model), x, RS, sampling)
    with pytest.raises(ConfigError, match="weights of the model = {torch.float64} is refused"):
        draw(held(model.eval().double()), x, RS, sampling)


def breaking(pixel: np.ndarray, count: int):
    """A DEQ whose layer is not a number for `count` of the copies: those with the largest first pixel."""
    model, above = three_classes(rate=0.5), float(np.sort(pixel)[-count - 1])
    f = model.f
    model.f = lambda z, u: torch.where(u[:, :1] > above, torch.nan, f(z, u))
    return model


@pytest.mark.parametrize("change", [{}, dict(tol=0.01), dict(margin=0.3)], ids=["steps", "tol", "margin"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_copy_without_a_vote_does_not_spoil_its_chain(solver, change):
    pixel = COPIES(np.arange(1_000))[:, 0, 0, 0].numpy()
    model, method = breaking(pixel, 10), replace(CHAIN, solver=solver, steps=2, **change)
    drawn, nfe = votes.sample(model, COPIES, method, np.arange(1_000))
    assert np.flatnonzero(drawn == ABSTAIN).tolist() == np.flatnonzero(pixel > np.sort(pixel)[-11]).tolist()
    assert (drawn == ABSTAIN).sum() == 10 and nfe == model.evaluations


def test_no_product_is_rounded_to_tf32_wherever_votes_are_drawn():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    for drawn in (
        lambda: votes.sample(three_classes(), COPIES, RS, np.arange(4)),
        lambda: votes.fixed_start(three_classes(), PILOT, replace(RS, start="pilot_mean", warmup=1), reference=RS),
    ):
        for backend in backends:
            backend.allow_tf32 = True
        drawn()
        assert not any(backend.allow_tf32 for backend in backends) and torch.backends.cudnn.deterministic
