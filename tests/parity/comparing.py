"""A network of minires beside another program's with the same weights: logits and the gradient of every parameter."""

from __future__ import annotations

import numpy as np
import torch

import minires as mr

# Through 152 layers in float64 the rounding of both sides stays some orders below this; a wrong term does not.
RELATIVE = 1e-8


def draw(state, rng):
    """Gives statistics, scales and biases values that are not neutral; `state`: arrays by minires' names."""
    for path, array in state.items():
        if path.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif path.endswith(("running_mean", "bias")):
            # Shifted to the positive side most units are linear: a plain network's batch norms then don't amplify
            # rounding by 1.2 a layer (to 1e-7 after 110 of them), and a strict tolerance can be held.
            array[...] = rng.normal(0.5, 0.5, array.shape)


def agree(model, peer, x, rng, what, names=None):
    """Both in evaluation, then in training mode, where a random cotangent goes back; then their running statistics.

    peer    a function of torch's images that returns logits, with named_parameters() and so on
    names   minires' name of each parameter and statistic -> the peer's; None: the same
    """
    theirs_of = (lambda path: path) if names is None else names.__getitem__
    for training in (False, True):
        model.train(training)
        peer.train(training)
        model.zero_grad()
        peer.zero_grad()
        y = model(mr.tensor(x))
        z = peer(torch.from_numpy(x.copy()))
        z = getattr(z, "logits", z)
        close(y.data, z, f"{what} logits, training={training}")
        cotangent = rng.standard_normal(y.shape)
        y.backward(cotangent)
        z.backward(torch.from_numpy(cotangent))
        theirs = dict(peer.named_parameters())
        ours = dict(model.named_parameters())
        assert {theirs_of(path) for path in ours} == theirs.keys()
        # A gradient that is zero but for rounding (a bias in front of a batch norm) has no scale of its own.
        floor = 1e-6 * max(float(np.abs(p.grad).max()) for p in ours.values())
        for path, parameter in ours.items():
            close(parameter.grad, theirs[theirs_of(path)].grad, f"{what} {path}, training={training}", floor)
    buffers = dict(peer.named_buffers())
    for path, buffer in model.named_buffers():  # moved by the training pass
        close(buffer, buffers[theirs_of(path)], f"{what} {path}")


def close(ours, theirs, what, floor=0.0):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    worst = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor)
    assert worst <= RELATIVE, f"{what}: relative difference {worst:.1e}"
