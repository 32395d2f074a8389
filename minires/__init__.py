"""minires: residual networks from scratch, to be stepped through, believed and raced.

import minires as mr
import minires.functional as F
"""

from importlib.metadata import PackageNotFoundError, version

from minires import _ipython, backends, functional, operators, random
from minires.autograd import Function
from minires.backends import BackendUnavailable, backend, get_num_threads, set_num_threads
from minires.context import Observer, enable_grad, is_grad_enabled, module_scope, no_grad
from minires.random import manual_seed
from minires.tensor import Tensor, tensor

operators.bind()
_ipython.connect()

from minires import data, inspect, models, nn, optim  # noqa: E402  (built on bound tensors)
from minires.inspect import summary  # noqa: E402
from minires.verify import GradcheckError, gradcheck  # noqa: E402

try:
    __version__ = version("minires")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "BackendUnavailable",
    "Function",
    "GradcheckError",
    "Observer",
    "Tensor",
    "backend",
    "backends",
    "data",
    "enable_grad",
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
    "random",
    "set_num_threads",
    "summary",
    "tensor",
]
