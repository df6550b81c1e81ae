"""The MDEQ against the authors' own outputs, its shapes and dropout, and the form in which it is run.

`python -m tests.test_models` makes tests/mdeq_regression.npz again: what our own model computed when it conformed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from srs.deq import inference, mdeq
from srs.deq.mdeq import MDEQ, VariationalDropout
from srs.deq.solvers import SOLVERS
from srs.profiles import CIFAR10, DIGITS, DIGITS_SMALL, SMALL
from srs.settings import Model
from tests.conftest import shared_data
from tests.helpers import digits

REGRESSION = Path(__file__).with_name("mdeq_regression.npz")
LADDER = ("naive-1", "naive-3", "naive-10", "anderson-1", "anderson-3", "anderson-10", "anderson-30", "broyden-5", "broyden-14")
SHUT = {"naive": 1e-4, "anderson": 1e-4, "broyden": 1e-3}  # largest difference of a logit


@torch.inference_mode()
def logits(model, x, key, z0=None):
    """Logits (B, classes) and solution after solver-k, from zero or from z0."""
    solver, k = key.split("-")
    u = model.inject(x)
    solution = SOLVERS[solver](model.f, model.initial(u) if z0 is None else z0, u, max_steps=int(k))
    return model.head(solution.z), solution.z


@pytest.fixture(scope="module")
def golden():
    """The authors' inputs and outputs, and our MDEQ with their weights."""
    stored = np.load(shared_data("golden", "mdeq_small_io.npz"))
    model = MDEQ(SMALL, CIFAR10).eval()
    model.load_state_dict({k[2:]: torch.from_numpy(stored[k]) for k in stored.files if k.startswith("w/")})
    return stored, model


@pytest.mark.parametrize("form", [lambda model: model, inference.prepare], ids=["trained", "prepared"])
@pytest.mark.parametrize("key", LADDER)
def test_logits_are_the_authors(golden, key, form):
    stored, model = golden
    assert {k for k in stored.files if k.startswith("logits/")} == {f"logits/{key}" for key in LADDER}  # all are compared
    ours, z = logits(form(model), torch.from_numpy(stored["x"]), key)
    np.testing.assert_allclose(ours, stored[f"logits/{key}"], atol=SHUT[key.split("-")[0]], rtol=0)
    np.testing.assert_allclose(z.norm(dim=1), stored[f"znorm/{key}"], rtol=1e-3)


@pytest.mark.parametrize("key", ["naive-1", "anderson-3"])
def test_warm_logits_are_the_authors(golden, key):
    stored, model = golden
    _, z = logits(model, torch.from_numpy(stored["x"]), "anderson-10")
    ours, _ = logits(model, torch.from_numpy(stored["x_next"]), key, z)
    np.testing.assert_allclose(ours, stored[f"logits_warm/{key}"], atol=1e-4, rtol=0)
    safe, _ = logits(model, torch.from_numpy(stored["x"]), "safe_anderson-30")
    np.testing.assert_allclose(safe, stored["logits/anderson-30"], atol=1e-3, rtol=0)


def regression_outputs() -> dict[str, np.ndarray]:
    """Logits of a seeded model with weights from numpy's own stream, which torch's versions do not change."""
    model = mdeq.build(Model("TINY", (8, 16, 32), (2, 4, 8), 16, dropout=0.1, expansion=1), DIGITS, 0).eval()
    rng = np.random.default_rng(3)
    state = {}
    for name, value in model.state_dict().items():
        drawn = torch.from_numpy(rng.standard_normal(tuple(value.shape)).astype(np.float32))
        if name.endswith("running_var") or (name.endswith("weight") and value.dim() == 1) or name.endswith("weight_g"):
            drawn = 1 + 0.2 * drawn.abs()
        elif value.dim() > 1:
            drawn = drawn * value[0].numel() ** -0.5
        state[name] = value if name.endswith("num_batches_tracked") else drawn
    model.load_state_dict(state)
    x = torch.from_numpy(rng.random((3, *DIGITS.shape), np.float32))
    x_next = (x + 0.1 * torch.from_numpy(rng.standard_normal(x.shape).astype(np.float32))).clip(0, 1)
    out = {key: logits(model, x, key)[0].numpy() for key in ("naive-1", "naive-3", "anderson-3", "anderson-10", "broyden-5")}
    return out | {"warm/anderson-3": logits(model, x_next, "anderson-3", logits(model, x, "anderson-10")[1])[0].numpy()}


def test_logits_are_what_they_were_when_the_model_conformed():
    ours = regression_outputs()
    with np.load(REGRESSION) as stored:
        assert set(stored.files) == set(ours)
        for key, value in ours.items():
            assert value.std() > 0.05, "weights that give the same logits to every image show nothing"
            np.testing.assert_allclose(value, stored[key], atol=1e-3 if "broyden" in key else 1e-4, rtol=0, err_msg=key)


def test_a_state_that_all_rows_share_is_convolved_once_and_gives_what_its_copies_give():
    model = inference.prepare(mdeq.build(DIGITS_SMALL, DIGITS, 0))
    u = model.inject(digits(5)[0])
    assert model.initial(u).stride(0) == 0  # the cold start is such a state, too
    shared = torch.randn(1, model.initial(u).shape[1], generator=torch.Generator().manual_seed(0)).expand(len(u), -1)
    weights, flops, found, grads = torch.arange(1.0, 6.0)[:, None], [], [], []
    for z in (shared, shared.contiguous()):
        with FlopCounterMode(display=False) as counter:
            found.append(model.f(z, u))
        flops.append(counter.get_total_flops())
        z = z.detach().requires_grad_()
        grads.append(torch.autograd.grad((weights * model.f(z, u) ** 2).sum(), z)[0])  # belongs to its row
    assert flops[0] < flops[1] / 3
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*grads)


def test_dropout_mask_lasts_one_solve():
    model = mdeq.build(replace(DIGITS_SMALL, dropout=0.5), DIGITS, 0).train()
    x, _ = digits(8)
    u = model.inject(x)
    z = torch.randn(8, model.initial(u).shape[1], generator=torch.Generator().manual_seed(0))
    first = model.f(z, u)
    assert torch.equal(model.f(z, u), first)  # one mask for all evaluations of a solve
    masks = [m.mask for m in model.modules() if isinstance(m, VariationalDropout)]
    model.inject(x)
    assert not torch.equal(model.f(z, u), first)  # and a new one for the next
    for mask, channels in zip(masks, DIGITS_SMALL.channels, strict=True):  # whole channels, each sample its own
        assert mask.shape == (8, channels, 1, 1) and set(mask.unique().tolist()) == {0.0, 2.0}  # 1 / (1 - p)
    rows = model.f(torch.ones_like(z[:1]).expand(8, -1), u[:1].expand(8, -1, -1, -1))  # rows that share a state, too
    assert not all(torch.equal(rows[0], row) for row in rows[1:])


@pytest.mark.parametrize("size", [SMALL, Model("DEEP", (8, 16), (2, 4), 16, dropout=0.1, downsamples=2)], ids=lambda m: m.name)
def test_the_prepared_model_computes_the_same_and_leaves_its_original_alone(size):
    model = mdeq.build(size, CIFAR10, 0).train()
    model.train_mean = torch.ones(sum(model.sizes))
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = inference.prepare(model)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(folded.train_mean, model.train_mean)
    parts = list(folded.modules())
    assert not any(part.training or isinstance(part, (torch.nn.BatchNorm2d, mdeq.WeightNormConv2d)) for part in parts)
    x = torch.rand(3, *CIFAR10.shape)
    mine, theirs = ((network.inject(x), logits(network, x, "naive-3")[0]) for network in (folded, model.eval()))
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_fused_votes_are_those_of_one_pass_after_the_other():
    model, (x, _), found = mdeq.build(DIGITS_SMALL, DIGITS, 0), digits(30), []
    torch.manual_seed(0)
    for weight in (p for p in model.parameters() if p.dim() == 4):
        torch.nn.init.kaiming_normal_(weight)
    model = inference.prepare(model)
    for grad in (True, False):  # with gradients nothing is fused
        with torch.set_grad_enabled(grad):
            z = model.f(model.initial(u := model.inject(x)), u)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model.head(z).float()
            found.append((u, model.head(z), rounded))
    torch.testing.assert_close(found[0][:2], found[1][:2])
    spread = found[0][1].std(dim=1, keepdim=True)
    assert 0 < ((found[0][2] - found[1][2]) / spread).abs().max() < 0.1  # rounded once instead of twice


if __name__ == "__main__":
    np.savez_compressed(REGRESSION, **regression_outputs())
    print(REGRESSION.name, REGRESSION.stat().st_size, "bytes")
