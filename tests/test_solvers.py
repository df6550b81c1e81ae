"""Solvers against problems with known fixed points, and against torchdeq's solvers, iterate by iterate."""

import warnings

import pytest
import torch

from srs.deq import solvers
from srs.deq.released import anderson_as_released
from srs.deq.solvers import anderson, broyden, fixed_point, relative_residual, safe_anderson, SOLVERS
from tests.helpers import difficulties, PROBLEMS

ENOUGH = {"naive": 400, "anderson": 1500, "safe_anderson": 60, "broyden": 40}  # evaluations that solve every problem to 1e-9
TOL = 1e-9

each_solver = pytest.mark.parametrize("solver", SOLVERS)
each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@each_problem
@each_solver
def test_solution_is_the_fixed_point(solver, problem):
    found = SOLVERS[solver](problem.f, problem.z0, problem.u, max_steps=ENOUGH[solver], tol=TOL)
    torch.testing.assert_close(found.z, problem.solution, atol=1e-6, rtol=0)
    assert (found.steps < ENOUGH[solver]).all()


@pytest.mark.parametrize("tol", [0.0, 1e-5])
@each_solver
def test_answer_does_not_depend_on_batch_mates(solver, tol):
    """The same samples beside easier, harder and hopeless ones: same answer, same cost."""
    solve, few = SOLVERS[solver], difficulties()
    wanted = solve(few.f, few.z0, few.u, max_steps=30, tol=tol)
    for rates in ((0.0,) * 3, (0.99,) * 3, (5.0, -5.0, float("nan"))):
        mates = difficulties(rates)
        u = torch.cat([mates.u[:2], few.u, mates.u[2:]])
        among = solve(few.f, torch.zeros(len(u), 3, dtype=torch.float64), u, max_steps=30, tol=tol)
        kept = slice(2, 2 + len(few.u))
        assert among.steps[kept].tolist() == wanted.steps.tolist()
        torch.testing.assert_close(among.z[kept], wanted.z, atol=1e-9, rtol=0)


@pytest.mark.parametrize("tol", [0.0, 1e-6])
@each_solver
def test_cost_is_that_of_the_evaluations_and_who_leaves_has_met_the_tolerance(solver, tol):
    problem, seen = difficulties(), []

    def f(z, u):
        seen.append(len(z))
        return problem.f(z, u)

    found = SOLVERS[solver](f, problem.z0, problem.u, max_steps=25, tol=tol)
    assert sum(seen) == int(found.steps.sum())
    if tol:  # the harder a sample, the later it leaves
        assert found.steps.tolist() == sorted(found.steps) and found.steps[0] < found.steps[-1]
        left = found.steps < 25
        assert (relative_residual(found.z, problem.f(found.z, problem.u))[left] <= tol).all()


@each_problem
@each_solver
def test_a_solved_problem_stays_solved_in_long_runs(solver, problem):
    """Broyden's update divides rounding errors here; torchdeq's goes to infinity and then to NaN."""
    z0, u = problem.solution.float(), problem.u.float()

    def f(z, u):
        return problem.f(z.double(), u.double()).float()

    found = SOLVERS[solver](f, z0 + 1, u, max_steps=60)
    assert found.z.isfinite().all() and (found.z - z0).norm() <= 0.02 * torch.ones_like(z0).norm()
    torch.testing.assert_close(SOLVERS[solver](f, z0, u, max_steps=60).z, z0, atol=1e-5, rtol=0)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing it warns of things that are not ours
    from torchdeq import solver as torchdeq

@pytest.mark.parametrize("k", [2, 3, 6, 7, 11])
@each_problem
def test_iterates_are_torchdeq_s(problem, k):
    """x_k itself, past the end of Anderson's memory of 6; torchdeq's Anderson returns f(x_k) for k + 1 steps."""
    z0 = problem.solution + 1.0

    def theirs(solver, steps):
        return getattr(torchdeq, solver)(lambda z: problem.f(z, problem.u), z0, max_iter=steps, return_final=True)[0]

    def ours(solve):
        return solve(problem.f, z0, problem.u, max_steps=k).z

    torch.testing.assert_close(ours(fixed_point), theirs("fixed_point_iter", k), atol=1e-10, rtol=0)
    torch.testing.assert_close(problem.f(ours(anderson), problem.u), theirs("anderson_solver", k + 1), atol=1e-7, rtol=0)
    # Broyden is done with these two after a few steps; then torchdeq's divides rounding errors to infinity.
    if problem.name not in ("rotation", "difficulties") or k < 4:
        torch.testing.assert_close(ours(broyden), theirs("broyden_solver", k), atol=1e-7, rtol=0)


def test_safe_anderson_does_not_depend_on_scale_and_takes_the_plain_step_for_a_singular_sample_alone(monkeypatch):
    """A sample that has settled gives a gram matrix of zeros; its neighbour's mix must not notice."""
    problem = PROBLEMS["linear"]
    plain, scaled = (safe_anderson(problem.f, problem.z0, s * problem.u, max_steps=6).z / s for s in (1, 1e6))
    torch.testing.assert_close(scaled, plain, atol=1e-6, rtol=1e-6)
    z0 = torch.cat([problem.solution[:1], problem.z0[1:]])
    together = safe_anderson(problem.f, z0, problem.u, max_steps=5)
    alone = safe_anderson(problem.f, z0[1:], problem.u[1:], max_steps=5)
    torch.testing.assert_close(together.z, torch.cat([problem.solution[:1], alone.z]), atol=1e-9, rtol=0)
    monkeypatch.setattr(solvers, "LARGEST_MIX", 0.0)  # now no mix is safe
    guarded = safe_anderson(problem.f, z0, problem.u, max_steps=5)
    torch.testing.assert_close(guarded.z, fixed_point(problem.f, z0, problem.u, max_steps=5).z)


@each_solver
def test_a_decided_sample_leaves_and_the_others_do_not_notice(solver):
    problem, solve, seen = PROBLEMS["tanh"], SOLVERS[solver], []

    def decided(step, active, z):
        seen.append(len(active))
        return (active % 2 == 0) & (step == 1)

    found = solve(problem.f, problem.z0, problem.u, max_steps=5, decided=decided)
    short, long = (solve(problem.f, problem.z0, problem.u, max_steps=k) for k in (2, 5))
    assert found.steps.tolist() == [2, 5] * 3 and seen == [6, 6, 3, 3, 3]
    torch.testing.assert_close(found.z[::2], short.z[::2], atol=1e-9, rtol=0)
    torch.testing.assert_close(found.z[1::2], long.z[1::2], atol=1e-9, rtol=0)


def test_released_answer_costs_two_more_evaluations_and_a_batch_stops_at_its_worst_residual():
    """Its slowest sample decides for all; it stops at the first iterate after x_1 at which none is above the tolerance."""
    problem, tol = difficulties(), 1e-3
    spent, f = [], problem.f
    found = anderson_as_released(lambda z, u: spent.append(len(z)) or f(z, u), problem.z0, problem.u, max_steps=30, tol=tol)
    k = int(found.steps[0]) - 2
    assert sum(spent) == int(found.steps.sum()) == (k + 2) * len(problem.u)
    iterates = [anderson(problem.f, problem.z0, problem.u, max_steps=i).z for i in range(2, k + 1)]
    worst = [float(relative_residual(z, problem.f(z, problem.u)).max()) for z in iterates]
    assert 2 < k < 30 and worst[-1] < tol <= min(worst[:-1])
    torch.testing.assert_close(found.z, iterates[-1], atol=1e-8, rtol=0)
