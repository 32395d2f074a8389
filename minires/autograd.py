"""The tape: what a node is, and how gradients walk it backward.

An operation is a `Function`: an object that is made for one call, keeps what its backward needs in `saved`, and stays
behind the output tensor as a node of the tape.  `backward` walks the nodes from the newest to the oldest.  A node is
made after the nodes of its inputs, so that order alone guarantees that a node's gradient is complete when its turn
comes: no recursion and no sorting beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from minires import backends
from minires._returned import checked_gradients, checked_output
from minires.arrays import Array, as_array
from minires.callsite import callsite
from minires.context import context
from minires.readonly import Frozen, freeze, lock, sweep
from minires.tensor import Tensor

_serials = itertools.count()
_INPUTS = frozenset((Tensor, type(None)))


class Function:
    """One operation applied once: a node of the tape.

    A subclass takes its options in `__init__` and defines

        forward(*arrays) -> array                       (an absent optional input is None)
        backward(grad_output) -> gradient per input     (an array for one input, a tuple for several; None: no gradient)

    `forward` puts the arrays that backward needs into `self.saved`; backward neither changes them nor `grad_output`.
    As long as the node is on the tape these arrays are read-only.  Cards name them as in `self.saved = x, weight`.

    Calling the object runs forward and, if an input requires a gradient, leaves the object on the tape:

        y = Conv2d(stride=(1, 1), ...)(x, weight, bias)

    name                operation, e.g. "Conv2d"
    module              dotted path of the module that made the call, e.g. "layer2.0.conv1"; "" outside of modules
    backend             the backend that computes this node, in forward and in backward
    parents             for each input the node that made it, the leaf Tensor that accumulates the gradient, or None
    needs_input_grad    for each input whether its gradient is wanted: backward may skip the others
    input_shapes        for each input its shape, None for an absent one
    input_dtypes        for each input its dtype, None for an absent one
    output_shape        shape of the output
    place               "file:line" of the call, in the first frame outside of the engine; "" without a tape and
                        without an observer
    serial              rises with every node made
    """

    module: str
    backend: Any
    parents: tuple[Function | Tensor | None, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    input_shapes: tuple[tuple[int, ...] | None, ...]
    input_dtypes: tuple[Any, ...]
    output_shape: tuple[int, ...]
    serial: int
    saved: Any = None
    released: bool = False
    frozen: Sequence[Frozen] = ()
    caller: tuple[str, int] | None = None

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        if "serial" in self.__dict__ or not _INPUTS.issuperset(map(type, inputs)):
            self._check_call(inputs)
        self.serial, self.module, taped = next(_serials), context.module, context.grad_enabled
        parents = [(t.node or t) if taped and t is not None and t.requires_grad else None for t in inputs]
        self.parents, self.needs_input_grad = tuple(parents), tuple([parent is not None for parent in parents])
        arrays = tuple([None if t is None else t.data for t in inputs])
        self.input_shapes = tuple([None if a is None else a.shape for a in arrays])
        self.input_dtypes = tuple([None if a is None else a.dtype for a in arrays])
        self.backend = backends.for_arrays(arrays, self.name)
        recorded = any(self.needs_input_grad)
        self.caller = callsite() if recorded or context.observers else None
        for observer in context.observers:
            observer.before_forward(self, arrays)
        try:
            output = checked_output(self, self.forward(*arrays), arrays)
        except Exception as error:
            self.caller = self.caller or callsite()
            error.add_note(f"in forward of {self!r}, called at {self.place}")
            raise
        self.output_shape = output.shape
        for observer in reversed(context.observers):
            observer.after_forward(self, arrays, output)
        self.frozen = freeze(self.saved) if recorded else ()
        return Tensor(output, recorded, self if recorded else None)

    def run_backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        """`backward` as the walk runs it: observed, with a note on an error, and always a tuple, an entry per input."""
        if self.released:
            raise RuntimeError(
                f"the tape behind {self!r} has been walked already and its arrays are freed: run the forward pass again"
            )
        for observer in context.observers:
            observer.before_backward(self, grad_output)
        try:
            grads = checked_gradients(self, self.backward(grad_output))
        except Exception as error:
            nothing = ", and saved nothing" if self.saved is None and isinstance(error, TypeError) else ""
            error.add_note(f"in backward of {self!r}, whose forward was called at {self.place}{nothing}")
            raise
        for observer in reversed(context.observers):
            observer.after_backward(self, grad_output, grads)
        return grads

    def release(self) -> None:
        """Frees everything that only backward needed; its arrays can be written again."""
        self.saved, self.parents, self.frozen, self.released = None, (), (), True

    def forward(self, *arrays: Any) -> Array:
        raise TypeError(f"{self.name} defines no forward")

    def backward(self, grad_output: Array) -> Any:
        raise TypeError(f"{self.name} defines no backward")

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def place(self) -> str:
        return "{}:{}".format(*self.caller) if self.caller else ""

    @property
    def heading(self) -> str:
        """Operation, options and module in a line."""
        options = ", ".join(f"{k}={v!r}" for k, v in self.options().items())
        return f"{self.name}({options})" + (f" of {self.module}" if getattr(self, "module", "") else "")

    def options(self) -> dict[str, Any]:
        """What the operation was made with, as far as it is a number, a word or a tuple of such."""
        own = {k: v for k, v in vars(self).items() if k not in Function.__annotations__}
        return {k: v for k, v in own.items() if isinstance(v, (int, float, str, tuple))}

    def __repr__(self) -> str:
        shapes = ""
        if "output_shape" in self.__dict__:
            shapes = ", ".join(str(shape) for shape in self.input_shapes if shape is not None)
            shapes = f": {shapes} -> {self.output_shape}"
        return f"<{self.heading}{shapes}>"

    def __reduce_ex__(self, protocol: Any) -> Any:  # what copy, deepcopy and pickle ask
        if "serial" not in self.__dict__:
            return super().__reduce_ex__(protocol)
        raise TypeError(
            f"{self!r} is a node of the tape, which cannot be copied or pickled: copy tensor.detach() instead"
        )

    def _check_call(self, inputs: tuple[Any, ...]) -> None:
        if "serial" in self.__dict__:
            raise RuntimeError(f"{self!r} has been called already; a node is one call: make a new {self.name}")
        for position, t in enumerate(inputs):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"inputs[{position}] must be a Tensor or None, got {type(t).__name__}")


def backward(output: Tensor, grad_output: Array) -> None:
    """Adds d(sum(output · grad_output))/d(leaf) to the `.grad` of every leaf that `output` depends on.

    Each node is released as soon as its gradient has been passed on, so that the arrays of the tape are freed on the
    way and the peak of memory stays near the forward pass's.
    """
    if output.node is None:
        return _accumulate(output, grad_output, shared=True)
    grads: dict[Function, Array] = {output.node: grad_output}
    newest_first = [(-output.node.serial, output.node)]
    while newest_first:
        _, node = heappop(newest_first)
        grad, parents = grads.pop(node), node.parents
        grad_inputs = node.run_backward(grad)
        shared = [_is_shared(g, (grad, *grad_inputs[:i])) for i, g in enumerate(grad_inputs)]
        node.release()
        for parent, grad_input, copies in zip(parents, grad_inputs, shared, strict=True):
            if parent is None or grad_input is None:
                continue
            if isinstance(parent, Tensor):
                _accumulate(parent, grad_input, copies)
            elif parent in grads:
                grads[parent] = as_array(parent.backend.add_forward(grads[parent], grad_input))
            else:
                grads[parent] = grad_input
                heappush(newest_first, (-parent.serial, parent))
        del grad, grad_inputs, grad_input, parent, parents  # or they would live through the next node's backward
    return sweep()


def _is_shared(grad: Array | None, others: tuple[Array | None, ...]) -> bool:
    """Whether somebody else holds the array too: it is a view, one of the others, or saved by a node (read-only)."""
    if grad is None:
        return False
    return grad.base is not None or not getattr(grad.flags, "writeable", True) or any(grad is o for o in others)


def _accumulate(leaf: Tensor, grad: Array, shared: bool) -> None:
    """Adds to a leaf's gradient; of a shared array it keeps a copy.  Threads may add to one leaf at the same time."""
    with lock:
        if leaf.grad is not None:
            leaf.grad = as_array(leaf.grad + grad)
        else:
            leaf.grad = grad.copy(order="C") if shared else grad
