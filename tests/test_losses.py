"""losses: the gradient through a fixed point is the right one, the Jacobian penalty is unbiased, and every loss decreases."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from srs.deq import inference, mdeq
from srs.deq.solvers import implicit, relative_residual
from srs.profiles import DIGITS
from srs.settings import PathIndependence
from srs.training import losses, train
from tests.helpers import digits, TINY
from tests.test_train import RECIPE, THEN


def test_implicit_gradient_is_that_of_a_long_unroll():
    w, u = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).split((6, 4))
    w, u = (0.8 * w / torch.linalg.matrix_norm(w, 2)).requires_grad_(), u.requires_grad_()

    def f(z, u):
        return torch.tanh(z @ w.mT + u)

    z, weigh = torch.zeros_like(u), torch.linspace(-1, 2, u.numel(), dtype=torch.float64).view_as(u)
    for _ in range(250):
        z = f(z, u)
    states = (implicit(f, z.detach(), u, steps=40), z)
    ours, wanted = (torch.autograd.grad((weigh * state.square()).sum(), (w, u)) for state in states)
    torch.testing.assert_close(ours, wanted, atol=1e-8, rtol=1e-6)


def test_jacobian_penalty_is_unbiased():
    d = 5
    a = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model = SimpleNamespace(f=lambda z, u: z @ a.mT + u)
    torch.manual_seed(0)
    z = torch.zeros(50_000, d, dtype=torch.float64)
    estimate = losses.jacobian_penalty(model, z, z)
    assert estimate.item() == pytest.approx(float(a.detach().square().sum()) / d, rel=0.02)  # standard error: 0.3 to 0.6 %
    gradient = torch.autograd.grad(estimate, a)[0]
    torch.testing.assert_close(gradient, 2 * a.detach() / d, atol=0.05, rtol=0.05)


def test_disagreement_is_the_divergence_of_the_mean_prediction_and_its_entropy():
    p = np.array([[0.9, 0.1], [0.5, 0.5]])  # two copies of one image
    divergence = np.mean([entropy(p.mean(0), own) for own in p])
    found = losses.disagreement(torch.tensor(p).log()[:, None] + 3.0, 4.0)  # logits, up to a constant
    assert found.item() == pytest.approx(4 * divergence + 0.5 * entropy(p.mean(0)))


def descend(recipe, steps, pretrain=False, penalise=False):
    """Losses and the model, trained on a few images without dropout."""
    (x, y), seen = (torch.cat([part] * (1 + bool(recipe.consistency))) for part in digits(48)), []
    torch.manual_seed(0)
    model = mdeq.build(replace(TINY, dropout=0.0), DIGITS, 0).train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        value, earlier = losses.loss(model, x, y, recipe, pretrain=pretrain, penalise=penalise, way=losses.draw_way(recipe))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        seen.append(value.item())
        assert not earlier.requires_grad
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    return seen, model.eval(), x


LOSSES = {
    "unrolled": (RECIPE, dict(pretrain=True)), "implicit": (RECIPE, {}), "path_independent": (THEN, {}),
    "last alone": (replace(THEN, path_independence=PathIndependence(both=False)), {}),
    "consistent": (replace(THEN, consistency=1.0), {}),
    "penalised": (replace(RECIPE, jacobian_weight=0.1), dict(penalise=True)),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "how"), LOSSES.values(), ids=LOSSES)
def test_loss_decreases(recipe, how):
    seen, _, _ = descend(recipe, 15, **how)
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")
@pytest.mark.parametrize("recipe", (RECIPE, THEN), ids=("implicit", "path_independent"))
def test_a_graph_gives_the_gradients_of_the_loss_that_it_was_captured_from(recipe):
    inference.choose_kernels()
    model, (x, y) = mdeq.build(replace(TINY, dropout=0.0), DIGITS, 0).cuda().train(), (part.cuda() for part in digits(48))
    gradients, z = train.Gradients(model, recipe), None
    for way in 4 * [("zero", 0), ("other", 1), ("mean", 2)]:
        earlier, how = z, dict(pretrain=False, penalise=False, way=way)
        z = gradients(x, y, earlier, **how).clone()
        found = [p.grad.clone() for p in model.parameters()]
        torch.testing.assert_close(z, gradients._compute(x, y, earlier, how))
        torch.testing.assert_close(found, [p.grad for p in model.parameters()])
    assert sum(map(bool, gradients.graphs.values())) == 3  # the first batch of an epoch has no earlier solutions


def test_a_path_independent_recipe_lessens_the_change_of_the_last_step():
    changes = {}
    for weight in (0.0, 10.0):
        recipe = replace(THEN, path_independence=PathIndependence(weight=weight, most_free_steps=2))
        _, model, x = descend(recipe, 20)
        with torch.no_grad():
            u = model.inject(x)
            z = model.f(model.f(model.initial(u), u), u)
            changes[weight] = float(relative_residual(z, model.f(z, u)).mean())
    assert changes[10.0] < 0.7 * changes[0.0]
