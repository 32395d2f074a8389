"""minires: residual networks from scratch, to step through, to verify and to benchmark.

import minires as mr
import minires.functional as F

The core is loaded at once: backends, the engine and its operations, nn, models and optim.  Every other room loads on
first use.
"""

from typing import TYPE_CHECKING

from minires import _ipython, backends, functional, operators, random
from minires._lazy import directory, loader
from minires.autograd import Function
from minires.backends import BackendUnavailable, backend, get_num_threads, set_num_threads
from minires.context import Observer, enable_grad, is_grad_enabled, module_scope, no_grad
from minires.random import manual_seed
from minires.tensor import Tensor, tensor

operators.bind()
_ipython.connect()

from minires import models, nn, optim  # noqa: E402  (built on bound tensors)
from minires.capture import CaptureError, capture  # noqa: E402

if TYPE_CHECKING:
    from minires import bench, data, exercises, inspect, paper, parallel, prediction, training, verify, weights
    from minires.inspect.summary import summary
    from minires.verify.gradcheck import GradcheckError, gradcheck

    __version__: str

__all__ = [
    "BackendUnavailable",
    "CaptureError",
    "Function",
    "GradcheckError",
    "Observer",
    "Tensor",
    "backend",
    "backends",
    "bench",
    "capture",
    "data",
    "enable_grad",
    "exercises",
    "functional",
    "get_num_threads",
    "gradcheck",
    "inspect",
    "is_grad_enabled",
    "manual_seed",
    "models",
    "module_scope",
    "nn",
    "no_grad",
    "optim",
    "paper",
    "parallel",
    "prediction",
    "random",
    "set_num_threads",
    "summary",
    "tensor",
    "training",
    "verify",
    "weights",
]

ROOMS = ("bench", "data", "exercises", "inspect", "paper", "parallel", "prediction", "training", "verify", "weights")
__dir__ = directory(globals())
__getattr__ = loader(
    globals(),
    {
        **dict.fromkeys(ROOMS, ""),
        "summary": "minires.inspect",
        "GradcheckError": "minires.verify",
        "gradcheck": "minires.verify",
        "__version__": "minires._version",
    },
)
