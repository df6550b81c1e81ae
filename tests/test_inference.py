"""inference: the precision and the form that a model is run in change what was asked for and nothing else."""

from dataclasses import replace

import pytest
import torch

from srs import profiles, store
from srs.deq import checkpoints, inference, mdeq
from srs.profiles import DIGITS
from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import certify, votes
from tests.helpers import TINY


def model():
    made = mdeq.build(TINY, DIGITS, seed=3).eval()
    made.anchor = torch.full((sum(c * h * w for c, h, w in made.shapes),), 0.25)
    return made


X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def logits(prepared, steps=3):
    with torch.inference_mode():
        u = prepared.inject(X)
        z = prepared.initial(u)
        for _ in range(steps):
            z = prepared.f(z, u)
        return prepared.head(z)


def test_float32_computes_what_the_model_computes():
    torch.testing.assert_close(logits(inference.prepare(model())), logits(model()), rtol=1e-4, atol=1e-5)


def test_bfloat16_is_another_classifier_close_to_the_first_and_hands_out_float32():
    exact, lowered = logits(inference.prepare(model())), logits(inference.prepare(model(), precision="bfloat16"))
    assert lowered.dtype == torch.float32 and not torch.equal(exact, lowered)
    assert not torch.equal(lowered, lowered.bfloat16().float())  # the last layer adds up in float32
    torch.testing.assert_close(lowered, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_anchor_comes_along(precision):
    prepared = inference.prepare(model(), precision=precision)
    assert torch.equal(prepared.anchor, model().anchor)
    drawn = votes.draw_votes(prepared, X[0], Method("A", "anderson", 2, start="anchor"), Sampling(10, n0=5, n=20), 0.5)
    assert (drawn.estimate >= 0).all()


def test_compiled_votes_for_any_batch_size(monkeypatch):
    """With dynamo but without a C++ compiler, which a machine that runs the tests may lack."""
    asked, real = [], torch.compile

    def compile_eagerly(f, *, options, **how):
        asked.append((options, how))
        return real(f, backend="eager", **how)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    stop = Method("S", "safe_anderson", 30, batch=8, tol=0.01)
    drawn = [
        votes.draw_votes(inference.prepare(model(), compiled=c), X[0], stop, Sampling(10, n0=5, n=20), 0.5).estimate
        for c in (False, True)
    ]
    assert asked == 2 * [({"freezing": True}, {"dynamic": True})] and (drawn[0] == drawn[1]).all()


def test_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision = 'float16' is refused: want one of float32, tf32, bfloat16"):
        inference.prepare(model(), precision="float16")


def test_a_profile_s_precision_reaches_the_model_its_votes_and_their_key(srs_root):
    run = replace(profiles.get_run("smoke", "SMALL", 0.5), model=TINY)
    checkpoints.save(mdeq.build(TINY, DIGITS, seed=3), store.own(run, store.WEIGHTS))
    lowered = replace(run, profile=replace(run.profile, precision="bfloat16"))
    assert isinstance(certify.load_model(lowered), inference.Bfloat16)
    assert not isinstance(certify.load_model(run), inference.Bfloat16)
    assert certify.vote_key(run) != certify.vote_key(lowered)
    assert lowered.profile.sampling.precision == "bfloat16"
