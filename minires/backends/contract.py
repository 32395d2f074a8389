"""The contract of a backend: the functions that the operations call.  Arrays in, arrays out, never a Tensor.

`Backend` lists the required functions, `Optional` those that a backend may have besides.  `Reference` is the base class
of a backend that computes some of them itself and leaves the rest to the reference backend:

    class Mine(mr.backends.Reference):
        def relu_forward(self, x):
            return np.where(x <= 0, 0, x)

    with mr.backend(Mine()):
        ...

Rules for every function:

arguments   positional.  Arrays have any strides and may be read-only: never write into one.  Sizes may be 0.  The
            operation has checked shapes and options.  Absent arrays are None
dtype       float32 or float64, the same for all floating arrays of a call; results have it too.  Labels are integers
results     shape as documented, any strides; a new array, or a view of one.  A gradient may be `grad_output` itself
threads     several threads may call one backend at the same time: no result may depend on an earlier call, except by
            what `batch_norm_forward` and `max_pool2d_forward` return for their backward
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

from minires.arrays import Array
from minires.backends import reference
from minires.backends.composed import Norm

Pair = tuple[int, int]  # (height, width)


class Backend(Protocol):
    """The required functions, each specified by the function of the same name in `minires.backends.reference`."""

    name: str
    """Appears in errors, reports and the configuration of a run."""

    def conv2d_forward(
        self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, /
    ) -> Array:
        """x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None -> y (N, O, OH, OW)"""

    def conv2d_backward_input(
        self, grad_output: Array, w: Array, x_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int, /,
    ) -> Array:  # fmt: skip
        """grad_output (N, O, OH, OW), w (O, C/groups, KH, KW) -> grad_input (N, C, H, W) = x_shape"""

    def conv2d_backward_weight(
        self, grad_output: Array, x: Array, w_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int, /,
    ) -> Array:  # fmt: skip
        """grad_output (N, O, OH, OW), x (N, C, H, W) -> grad_weight (O, C/groups, KH, KW) = w_shape"""

    def conv2d_backward_bias(self, grad_output: Array, /) -> Array:
        """grad_output (N, O, OH, OW) -> grad_bias (O,)"""

    def linear_forward(self, x: Array, w: Array, b: Array | None, /) -> Array:
        """x (..., in), w (out, in), b (out,) or None -> y (..., out)"""

    def linear_backward_input(self, grad_output: Array, w: Array, /) -> Array:
        """grad_output (..., out), w (out, in) -> grad_input (..., in)"""

    def linear_backward_weight(self, grad_output: Array, x: Array, /) -> Array:
        """grad_output (..., out), x (..., in) -> grad_weight (out, in)"""

    def batch_norm_forward(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, /
    ) -> tuple[Array, Array, Array, Any]:
        """x (N, C, ...) -> y (N, C, ...), the batch's mean (C,), its biased variance (C,), what backward needs"""

    def batch_norm_backward(
        self, grad_output: Array, kept: Any, weight: Array | None, /
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """grad_output (N, C, ...), `kept` of forward -> grad_input (N, C, ...), grad_weight (C,), grad_bias (C,)

        Override it together with `batch_norm_forward`, unless `kept` is that of the reference backend.
        """

    def batch_norm_eval_forward(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float, /
    ) -> Array:
        """x (N, C, ...), running mean and variance (C,) -> y (N, C, ...)"""

    def batch_norm_eval_backward(
        self, grad_output: Array, x: Array, mean: Array, var: Array, weight: Array | None, eps: float, /
    ) -> tuple[Array, Array, Array]:
        """grad_output (N, C, ...) -> grad_input (N, C, ...), grad_weight (C,), grad_bias (C,)"""

    def add_forward(self, a: Array, b: Array, /) -> Array:
        """Two shapes that broadcast -> the broadcast shape.  Also adds the gradients that meet at a node."""

    def relu_forward(self, x: Array, /) -> Array:
        """Any shape -> the same shape; NaN stays NaN"""

    def relu_backward(self, grad_output: Array, y: Array, /) -> Array:
        """grad_output, y the output of forward -> grad_input, all of one shape; 0 where y is 0"""

    def max_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair, /
    ) -> tuple[Array, Array]:
        """x (N, C, H, W) -> y (N, C, *output), and an array for backward: which element of its window each y is"""

    def max_pool2d_backward(
        self, grad_output: Array, argmax: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        dilation: Pair, /,
    ) -> Array:  # fmt: skip
        """grad_output (N, C, OH, OW), forward's second array -> grad_input (N, C, H, W) = x_shape

        Override it together with `max_pool2d_forward`, unless `argmax` is that of the reference backend.
        """

    def avg_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, output: Pair, count_include_pad: bool, /
    ) -> Array:
        """x (N, C, H, W) -> y (N, C, *output)"""

    def avg_pool2d_backward(
        self, grad_output: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        count_include_pad: bool, /,
    ) -> Array:  # fmt: skip
        """grad_output (N, C, OH, OW) -> grad_input (N, C, H, W) = x_shape"""

    def adaptive_avg_pool2d_forward(self, x: Array, output: Pair, /) -> Array:
        """x (N, C, H, W) -> y (N, C, *output)"""

    def adaptive_avg_pool2d_backward(self, grad_output: Array, x_shape: tuple[int, ...], /) -> Array:
        """grad_output (N, C, OH, OW) -> grad_input (N, C, H, W) = x_shape"""

    def softmax_forward(self, x: Array, axis: int, /) -> Array:
        """Any shape -> the same shape"""

    def softmax_backward(self, grad_output: Array, y: Array, axis: int, /) -> Array:
        """grad_output, y the output of forward -> grad_input, all of one shape"""

    def log_softmax_forward(self, x: Array, axis: int, /) -> Array:
        """Any shape -> the same shape"""

    def log_softmax_backward(self, grad_output: Array, y: Array, axis: int, /) -> Array:
        """grad_output, y the output of forward -> grad_input, all of one shape"""

    def cross_entropy_forward(self, logits: Array, labels: Array, label_smoothing: float, /) -> tuple[Array, Array]:
        """logits (M, C), labels (M,) -> loss of each row (M,), log-probabilities (M, C)"""

    def cross_entropy_backward(
        self, grad_loss: Array, log_p: Array, labels: Array, label_smoothing: float, /
    ) -> Array:  # fmt: skip
        """grad_loss (M,), forward's log-probabilities (M, C), labels (M,) -> grad_logits (M, C)"""


class Optional(Protocol):
    """The optional functions and attributes; behind each stands what happens without it."""

    array_module: ModuleType
    """numpy or cupy, whose arrays alone the backend computes on.  Without it: both."""

    def batch_norm_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, /
    ) -> tuple[Array, Array, Array, Any]:
        """relu(batch norm(x)), mean, variance, what backward needs.  Without it: the two functions in turn."""

    def batch_norm_relu_backward(
        self, grad_output: Array, y: Array, kept: Any, weight: Array | None, /
    ) -> tuple[Array, Array, Array]:
        """-> grad_input, grad_weight, grad_bias.  Without it: `relu_backward`, then `batch_norm_backward`."""

    def batch_norm_add_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None, shortcut: Array, eps: float, /
    ) -> tuple[Array, Array, Array, Any]:
        """relu(batch norm(x) + shortcut), mean, variance, what backward needs.  Without it: three functions in turn."""

    def fused_conv2d_forward(
        self, x: Array, w: Array, b: Array | None, norm: Norm | None, shortcut: Array | None, relu: bool,
        stride: Pair, padding: Pair, dilation: Pair, groups: int, /,
    ) -> Array:  # fmt: skip
        """relu?(batch norm?(conv2d(x)) + shortcut?), for inference.  Without it: up to four functions in turn."""

    def linear_backward_bias(self, grad_output: Array, /) -> Array:
        """(..., out) -> (out,).  Without it: array arithmetic."""

    def move_statistic(self, running: Array, batch: Array, momentum: float, correction: float, /) -> None:
        """running += momentum · (batch · correction − running), (C,) each, in place.  Without it: array arithmetic."""

    def copied(self, x: Array, /) -> Array:
        """A copy of x, any shape and dtype.  Without it: `x.copy()`."""

    def reshape_forward(self, x: Array, shape: tuple[int, ...], /) -> Array:
        """x in another shape; a view where there is one.  Without it: `x.reshape(shape)`."""

    def pad_forward(self, x: Array, pad: tuple[tuple[int, int], ...], value: float, /) -> Array:
        """x with ((before, after), ...) elements of `value` around each axis.  Without it: array arithmetic."""

    def slice_backward(self, grad_output: Array, x_shape: tuple[int, ...], index: Any, /) -> Array:
        """Zeros of x_shape with grad_output at x[index].  Without it: array arithmetic."""

    def mean_forward(self, x: Array, /) -> Array:
        """The mean of all elements -> ().  Without it: `x.mean()`."""

    def sgd_step(
        self, params: list[Array], grads: list[Array], velocities: list[Array], lr: float, momentum: float,
        weight_decay: float, /,
    ) -> None:  # fmt: skip
        """Moves contiguous parameters and velocities of one dtype in place, as `optim.SGD` documents.

        Without it: array arithmetic, one parameter at a time.
        """

    def check_values(self, check: Callable[[Array], None], values: Array, each: bool, /) -> None:
        """check(values), which raises.  Without it: at once.

        While a CUDA graph is recorded, no value can be read: then a check with `each` runs on the input of each replay
        instead, and any other is left out.
        """

    def recording(self, constants: bool, bytes: int, eager: bool, /) -> Any:
        """What `mr.capture` records kernel calls with, such as `GraphRecording`.  Without it: capture is refused.

        constants: arrays from outside are not written between replays.  bytes: the memory that the call takes, or 0.
        eager: a run that is measured and compared with, but not replayed.
        """

    def conv2d_working_bytes(
        self, x_shape: tuple[int, ...], w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int, /
    ) -> int:
        """Bytes that a training step holds for a convolution beside its arrays, at most.  Without it: 0."""


def _functions(protocol: type) -> dict[str, int]:
    """The functions of a protocol and how many arguments each takes."""
    return {
        name: len(inspect.signature(function).parameters) - 1  # self
        for name, function in vars(protocol).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }


REQUIRED = _functions(Backend)
OPTIONAL = _functions(Optional)


class Reference(Backend):
    """The reference backend as a base class: a subclass overrides functions of `Backend`, or adds some of `Optional`.

    name   the subclass's own, unless it sets another
    """

    name = "Reference"

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", cls.__name__)


for _name in REQUIRED:
    setattr(Reference, _name, staticmethod(getattr(reference, _name)))


def has_any(value: Any) -> bool:
    """Whether a value is meant as a backend: it has a function of the contract."""
    return any(callable(getattr(value, name, None)) for name in REQUIRED)


def check(backend: Any) -> None:
    """Raises TypeError, with every complaint, unless the object fulfils the contract."""
    complaints = list(_complaints(backend))
    if complaints:
        kind = backend.__name__ if isinstance(backend, (type, ModuleType)) else type(backend).__name__
        raise TypeError(
            f"backend: {kind} does not fulfil the contract: {'; '.join(complaints)}.  minires.backends.contract "
            "documents every function; a subclass of mr.backends.Reference inherits those that it does not define"
        )


def _inherited(backend: Any, protocol: type) -> Iterator[str]:
    """The functions that a subclass of a protocol inherits from it: they have no body."""
    for name in _functions(protocol):
        function = getattr(backend, name, None)
        if getattr(function, "__func__", function) is getattr(protocol, name):
            yield name


def _complaints(backend: Any) -> Iterator[str]:
    if not isinstance(getattr(backend, "name", None), str):
        yield "name must be a str"
    missing = [name for name in REQUIRED if not callable(getattr(backend, name, None))]
    missing += [name for protocol in (Backend, Optional) for name in _inherited(backend, protocol)]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    allowed = REQUIRED | OPTIONAL
    for name in dir(backend):
        function = getattr(backend, name, None)
        if name.startswith("_") or not callable(function):
            continue
        if name in allowed:
            arguments = allowed[name]
            try:
                inspect.signature(function).bind(*[None] * arguments)
            except ValueError:  # a compiled function without a signature
                continue
            except TypeError:
                protocol = Backend if name in REQUIRED else Optional
                taken = [p for p in inspect.signature(getattr(protocol, name)).parameters if p != "self"]
                yield f"{name} must take {arguments} arguments ({', '.join(taken)}), got {inspect.signature(function)}"
        elif near := difflib.get_close_matches(name, allowed, n=1, cutoff=0.9):
            yield f"it has {name}, which the contract lacks. Did you mean {near[0]}?"
