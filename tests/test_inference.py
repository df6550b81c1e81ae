"""inference: the form that a model is run in computes what the trained one computes, and leaves that one alone."""

import pytest
import torch

from srs.deq import inference, mdeq
from srs.deq.solvers import SOLVERS
from srs.profiles import CIFAR10, SMALL
from srs.settings import Model

DEEP = Model("DEEP", (8, 16), (2, 4), 16, dropout=0.1, downsamples=2)


@pytest.mark.parametrize("size", [SMALL, DEEP], ids=lambda m: m.name)
def test_the_prepared_model_computes_the_same_and_leaves_its_original_alone(size):
    model = mdeq.build(size, CIFAR10, 0).train()
    model.anchor = torch.ones(sum(model.sizes))
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = inference.prepare(model)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(folded.anchor, model.anchor)
    parts = list(folded.modules())
    assert not any(part.training or isinstance(part, (torch.nn.BatchNorm2d, mdeq.WeightNormConv2d)) for part in parts)
    x = torch.rand(3, *CIFAR10.shape)

    def computed(network):
        u = network.inject(x)
        return u, network.head(SOLVERS["naive"](network.f, network.initial(u), u, max_steps=3).z)

    torch.testing.assert_close(computed(folded), computed(model.eval()), atol=1e-5, rtol=1e-5)
