"""Gradients through a DEQ's solver and the PGD that uses them, against closed forms and autograd."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from srs import profiles
from srs.attacks.pgd import harden, pgd, smoothed_gradient
from srs.attacks.settings import Adversarial, Gradient
from srs.deq import mdeq
from srs.deq.solvers import fixed_point
from tests.helpers import LinearDEQ, digits, save_untrained, smoke_run


# z = A z + B x with logits C z, in double precision: every gradient is known in closed form.
A, B, C = torch.randn(17, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).split((6, 8, 3))
A = 0.7 * A / torch.linalg.matrix_norm(A, 2)
MODEL = SimpleNamespace(
    inject=lambda x: x.flatten(1) @ B, initial=torch.zeros_like, f=lambda z, u: z @ A.mT + u, head=lambda z: z @ C.mT
)
X = torch.rand(4, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("gradient", [
    Gradient("implicit", 60, backward=60), Gradient("implicit", 40, "broyden", 40), Gradient("unrolled", 60, unroll=100),
], ids=str)  # fmt: skip
def test_converged_gradients_are_that_of_the_mean_softmax_over_the_copies(gradient):
    noise = torch.randn(4, 3, *X.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaf = X.clone().requires_grad_()
    logits = MODEL.head(torch.linalg.solve(torch.eye(6) - A, MODEL.inject((leaf[:, None] + noise).flatten(0, 1)).mT).mT)
    mean = torch.softmax(logits, 1).view(4, 3, 3).mean(1)
    (-torch.log(mean[range(4), Y])).sum().backward()
    assert torch.allclose(smoothed_gradient(MODEL, X, Y, noise, gradient), leaf.grad, rtol=1e-6, atol=1e-9)


def test_unrolled_gradient_of_an_mdeq_is_autograd_s(srs_root):
    model, (x, y) = save_untrained(smoke_run()).double().requires_grad_(False), digits(3)
    leaf = x.double().requires_grad_()
    u = model.inject(leaf)
    z = fixed_point(model.f, model.initial(u), u.detach(), max_steps=3).z.detach()
    F.cross_entropy(model.head(model.f(model.f(z, u), u)), y, reduction="sum").backward()
    clean = torch.zeros_like(leaf)[:, None]
    got = smoothed_gradient(model, x.double(), y, clean, Gradient("unrolled", 3, "naive", unroll=2))
    assert torch.allclose(got, leaf.grad) and leaf.grad.abs().max() > 1e-3


@pytest.mark.parametrize("vectors", [0, 4])
def test_pgd_on_a_linear_deq_walks_straight_to_the_edge_of_the_ball(vectors):
    """Two classes and linear logits: the gradient points along w_1 - w_0 wherever it is taken."""
    weight = torch.tensor([[1.0, 0.5, -0.5, 2.0], [0.0, -1.0, 0.5, 1.0]])
    model, along = LinearDEQ(weight, torch.zeros(2), 0.5), weight[1] - weight[0]
    x, y, radius = torch.full((2, 1, 2, 2), 0.1), torch.tensor([0, 1]), torch.tensor([0.35, 1.2])
    noise = 0.3 * torch.randn(2, max(vectors, 1), 1, 2, 2) * (vectors > 0)
    gradient = lambda x: smoothed_gradient(model, x, y, noise, Gradient("unrolled", 2, unroll=2))  # noqa: E731
    toward = torch.stack([along, -along]) / along.norm()
    got, short = (pgd(x, gradient, radius, steps=steps, step=0.1) for steps in (20, 3))
    assert torch.allclose(got, x + (radius[:, None] * toward).view_as(x), atol=1e-5)
    assert torch.allclose((short - x).flatten(1).norm(dim=1), torch.tensor([0.3, 0.3]))
    assert got[1].min() < -0.02, "not clipped"
    assert torch.equal(pgd(x, torch.zeros_like, radius, steps=5, step=0.1), x), "without a gradient it stays"


def test_hardened_copies_are_the_attacked_ones_and_the_model_is_left_as_it_was():
    model, (x, y) = mdeq.build(profiles.DIGITS_SMALL, profiles.DIGITS, 0).train(), digits(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rule = Adversarial(radius=0.5, steps=2, vectors=3, gradient=Gradient("unrolled", 2, unroll=1))
    torch.manual_seed(0)
    copies, labels = harden(model, x, y, 0.25, rule)
    torch.manual_seed(0)
    noise = 0.25 * torch.randn(5, 3, *x.shape[1:])
    moved = (copies.view_as(noise) - noise - x[:, None]).flatten(2)
    assert labels.tolist() == [c for c in y.tolist() for _ in range(3)]
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-6), "the copies of an image share its attack"
    assert torch.allclose(moved.norm(dim=2), torch.tensor(0.5), atol=1e-4)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
