"""losses: the gradient through a fixed point is the right one, and the Jacobian penalty is unbiased."""

from types import SimpleNamespace

import pytest
import torch

from srs import settings
from srs.deq import mdeq
from srs.training.losses import implicit, jacobian_penalty
from tests.helpers import TINY


def tanh_layer(seed=0, d=6):
    """A contractive layer with a parameter, in float64."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(d, d, dtype=torch.float64, generator=generator)
    w = (0.8 * w / torch.linalg.matrix_norm(w, 2)).requires_grad_()
    u = torch.randn(4, d, dtype=torch.float64, generator=generator).requires_grad_()
    return SimpleNamespace(f=lambda z, u: torch.tanh(z @ w.mT + u)), w, u


def iterated(model, u, steps=250):
    z = torch.zeros_like(u)
    for _ in range(steps):
        z = model.f(z, u)
    return z


def test_implicit_gradient_is_that_of_a_long_unroll():
    model, w, u = tanh_layer()
    weigh = torch.linspace(-1, 2, u.numel(), dtype=torch.float64).reshape(u.shape)
    wanted = torch.autograd.grad((weigh * iterated(model, u).square()).sum(), (w, u))
    with torch.no_grad():
        z = iterated(model, u)
    z = implicit(model, z, u, steps=40)
    ours = torch.autograd.grad((weigh * z.square()).sum(), (w, u))
    for a, b in zip(ours, wanted):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-6)
    one_step = torch.autograd.grad((weigh * model.f(z.detach(), u).square()).sum(), (w, u))
    assert (one_step[0] - wanted[0]).norm() > 0.1 * wanted[0].norm()  # the phantom gradient is another one


def test_implicit_gradient_of_an_mdeq_solves_its_adjoint_equation():
    """grad (I - J)^-1 df/du with the Jacobian written out, at any z."""
    small = settings.Data("tiny", (1, 4, 4), 3, (0.0,), (1.0,))
    model = mdeq.build(TINY, small, 0).eval().double()
    u = torch.rand(1, 8, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = torch.rand(1, 8 * 16 + 16 * 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    d = z.shape[1]
    jacobian = torch.autograd.functional.jacobian(lambda z: model.f(z, u), z, vectorize=True).reshape(d, d)
    grad = torch.linspace(-1, 1, d, dtype=torch.float64)[None]
    adjoint = torch.linalg.solve(torch.eye(d) - jacobian.mT, grad.mT).mT
    wanted = torch.autograd.grad(model.f(z, u), u, adjoint)[0]
    ours = torch.autograd.grad(implicit(model, z, u, steps=2 * d), u, grad)[0]
    torch.testing.assert_close(ours, wanted, atol=1e-6 * float(wanted.abs().max()), rtol=1e-6)


def test_jacobian_penalty_is_unbiased():
    d = 5
    a = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model = SimpleNamespace(f=lambda z, u: z @ a.mT + u)
    exact = float(a.detach().square().sum()) / d
    torch.manual_seed(0)
    z = torch.zeros(50_000, d, dtype=torch.float64)
    estimate = jacobian_penalty(model, z, z)
    assert estimate.item() == pytest.approx(exact, rel=0.02)  # the standard error is 0.3 to 0.6 %
    gradient = torch.autograd.grad(estimate, a)[0]
    torch.testing.assert_close(gradient, 2 * a.detach() / d, atol=0.05, rtol=0.05)
    few = torch.stack([jacobian_penalty(model, z[:1], z[:1]).detach() for _ in range(4_000)])
    assert float(few.mean()) == pytest.approx(exact, abs=4 * float(few.std()) / 4_000**0.5)
