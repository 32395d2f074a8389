"""SGD against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dampening", [0.0, 0.3])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(rng, momentum, weight_decay, dampening, nesterov):
    if nesterov and (dampening or not momentum):
        pytest.skip("Nesterov needs a momentum and no dampening")
    shapes = [(4, 3, 3, 2), (5,), (1,)]
    options = {"momentum": momentum, "weight_decay": weight_decay, "dampening": dampening, "nesterov": nesterov}
    ours = [mr.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    our_opt, their_opt = mr.optim.SGD(ours, lr=0.1, **options), torch.optim.SGD(theirs, lr=0.1, **options)
    for step in range(8):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = None if step == 2 and p is ours[1] else rng.standard_normal(p.shape)
            q.grad = None if p.grad is None else torch.tensor(p.grad)
        our_opt.lr = their_opt.param_groups[0]["lr"] = 0.1 if step < 5 else 0.01
        our_opt.step()
        their_opt.step()
    for p, q in zip(ours, theirs, strict=True):
        # Eight float64 steps whose roundings come in another order.
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-14)
