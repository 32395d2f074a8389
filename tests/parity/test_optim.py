"""SGD and Adam against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr

torch = pytest.importorskip("torch")


# momentum, weight decay, dampening, nesterov
OPTIONS = [
    (0.0, 0.0, 0.0, False),
    (0.0, 1e-2, 0.0, False),
    (0.9, 0.0, 0.0, False),
    (0.9, 1e-2, 0.0, False),
    (0.9, 1e-2, 0.3, False),
    (0.9, 0.0, 0.0, True),
    (0.9, 1e-2, 0.0, True),
]


@pytest.mark.parametrize(("momentum", "weight_decay", "dampening", "nesterov"), OPTIONS)
def test_sgd(rng, momentum, weight_decay, dampening, nesterov):
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("betas", "eps", "weight_decay"),
    [((0.9, 0.999), 1e-8, 0.0), ((0.9, 0.999), 1e-8, 1e-2), ((0.0, 0.5), 1e-2, 0.0), ((0.7, 0.0), 0.1, 0.3)],
)
def test_adam(rng, betas, eps, weight_decay, dtype):
    shapes = [(4, 3, 3, 2), (5,), ()]
    options = {"lr": 0.1, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    ours = [mr.tensor(np.asarray(rng.standard_normal(shape), dtype), requires_grad=True) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    our_opt, their_opt = mr.optim.Adam(ours, **options), torch.optim.Adam(theirs, **options)
    for step in range(8):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = None if step == 2 and p is ours[1] else np.asarray(rng.standard_normal(p.shape), dtype)
            q.grad = None if p.grad is None else torch.tensor(p.grad)
        our_opt.lr = their_opt.param_groups[0]["lr"] = 0.1 if step < 5 else 0.01
        our_opt.step()
        their_opt.step()
    # Eight steps whose roundings come in another order; their sizes are of order lr.
    rtol, atol = (1e-12, 1e-14) if dtype == np.float64 else (2e-5, 2e-6)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=rtol, atol=atol)
    their_state, our_state = their_opt.state_dict()["state"], our_opt.state_dict()
    assert set(our_state) == {f"{name}.{i}" for i, values in their_state.items() for name in values}
    for name, array in our_state.items():
        kind, _, position = name.partition(".")
        np.testing.assert_allclose(array, their_state[int(position)][kind].numpy(), rtol=rtol, atol=atol)
