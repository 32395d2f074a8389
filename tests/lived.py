"""Networks as after a training: no weight or statistic is 0 or 1, so that leaving one out shows."""

from __future__ import annotations


def lived(model, rng):
    for name, array in model.state_dict().items():
        if name.endswith("running_var"):
            array[...] = rng.uniform(0.3, 3, array.shape)
        elif array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1, 1], array.shape)
    return model
