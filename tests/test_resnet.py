"""The explicit network: its architecture against a plain reading of the paper that made it, and its votes against Cohen's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srs import settings, store
from srs.deq import checkpoints, inference, mdeq
from srs.profiles import CIFAR10, DIGITS
from srs.settings import ResNet
from srs.smoothing import certify, noise, votes
from srs.training import losses, train
from tests.helpers import digits, smoke_run

TINY = ResNet("ResNet8", 8, (4, 6, 8))
EXPLICIT = smoke_run().profile.explicit[0]


def network(model=TINY, data=CIFAR10, seed=0):
    """An untrained network in eval mode whose batch norms do something."""
    built = mdeq.build(model, data, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*built.named_parameters(), *built.named_buffers()):
            if ("bn" in name or ".downsample.1." in name) and value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=generator)
    return built.eval()


def images(count, data=CIFAR10):
    return torch.rand(count, *data.shape, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def logits(model, x):
    u = model.inject(x)
    return model.head(model.f(model.initial(u), u))


def by_hand(state, x, data, blocks):
    """He et al. (2016), section 4.2, written out on a state dict: what the class must compute."""

    def conv_bn(h, conv, bn, stride):
        weight = state[f"{conv}.weight"]
        h = F.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)
        scale = state[f"{bn}.weight"] / torch.sqrt(state[f"{bn}.running_var"] + 1e-5)
        return (h - state[f"{bn}.running_mean"][:, None, None]) * scale[:, None, None] + state[f"{bn}.bias"][:, None, None]

    h = (x - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
    h = conv_bn(h, "conv1", "bn1", 1).clamp(min=0)
    for stage in (1, 2, 3):
        for i in range(blocks):
            at, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            shortcut = conv_bn(h, f"{at}.downsample.0", f"{at}.downsample.1", stride) if stride == 2 else h
            inner = conv_bn(h, f"{at}.conv1", f"{at}.bn1", stride).clamp(min=0)
            h = (conv_bn(inner, f"{at}.conv2", f"{at}.bn2", 1) + shortcut).clamp(min=0)
    return h.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(("depth", "data"), [(8, CIFAR10), (14, DIGITS)])
def test_logits_are_those_of_the_architecture_written_out(depth, data):
    model, x = network(ResNet("X", depth, (4, 6, 8)), data), images(5, data)
    want, folded = by_hand(model.state_dict(), x, data, (depth - 2) // 6), inference.prepare(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    for form in (model, folded):
        torch.testing.assert_close(logits(form, x), want, atol=1e-4, rtol=1e-4)
    assert want.std(dim=0).min() > 1e-3


def test_votes_are_cohen_s_on_the_same_noise():
    """The sampling code of the DEQs gives what his loop gives: the argmax of each noisy copy."""
    model, (x, _), sigma = network(data=DIGITS), digits(2), 0.5
    sampling = settings.Sampling(10, n0=30, n=250, seed=4)  # of which Cohen's rule alone is asked: no vote is audited
    with torch.no_grad():  # no class is ahead of the others
        model.fc.bias -= logits(model, x[1] + sigma * noise.noise(DIGITS.shape, 5, 0, "select", np.arange(64))).mean(0)
    drawn = votes.draw_votes(model, x[1], settings.EXPLICIT, sampling, sigma, idx=7)
    for stage, votes_drawn in (("select", drawn.select), ("estimate", drawn.estimate)):
        noisy = x[1] + sigma * noise.noise(DIGITS.shape, 4, 7, stage, np.arange(len(votes_drawn)))
        assert np.array_equal(votes_drawn, by_hand(model.state_dict(), noisy, DIGITS, 1).argmax(1).numpy())
    assert drawn.nfe.tolist() == [30, 250, 0] and len(drawn.audited) == 0
    assert len(set(drawn.estimate.tolist())) > 2


def test_a_checkpoint_of_cohen_et_al_loads(tmp_path):
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model.head(model.f(None, model.inject(images(2)))).sum().backward()
    optimiser.step()  # so that its state holds tensors, as theirs does
    state = {k: v.clone() for k, v in model.state_dict().items()}
    theirs = {f"1.{k}": v for k, v in state.items()}
    content = {"epoch": 90, "arch": "cifar_resnet110", "state_dict": theirs, "optimizer": optimiser.state_dict()}
    torch.save(content, tmp_path / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)  # as torch 1.0 wrote it
    loaded = checkpoints.load(tmp_path / "checkpoint.pth.tar", TINY, CIFAR10)
    torch.testing.assert_close(logits(loaded, images(3)), by_hand(state, images(3), CIFAR10, 1), atol=1e-4, rtol=1e-4)


def test_training_and_certifying_go_through_the_same_steps_as_a_deq(srs_root):
    model, (x, y) = mdeq.build(TINY, DIGITS, 0).eval(), digits(200)
    ours, _ = losses.loss(model, x[:8], y[:8], EXPLICIT.train, pretrain=True, penalise=False)  # cross-entropy alone
    assert ours.item() == pytest.approx(F.cross_entropy(by_hand(model.state_dict(), x[:8], DIGITS, 1), y[:8]).item(), rel=1e-4)
    train.train(EXPLICIT, progress=False)
    assert certify.certify(replace(EXPLICIT, profile=replace(EXPLICIT.profile, images=2)), progress=False) == ["RS"]
    trained = checkpoints.load(store.own(EXPLICIT, store.WEIGHTS), EXPLICIT.model, DIGITS)
    assert (logits(trained, x).argmax(1) == y).float().mean() > 0.5  # one epoch, clean images it was trained on
