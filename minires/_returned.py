"""Checks what an operation's forward and backward return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minires.arrays import Array, as_array, is_array

if TYPE_CHECKING:
    from minires.autograd import Function


def checked_output(node: Function, output: Any, arrays: tuple[Array | None, ...]) -> Array:
    """forward's result, if it is one array of its inputs' dtype; TypeError otherwise.

    A different dtype would spread through the whole network.
    """
    output = as_array(output)
    if not is_array(output):
        raise TypeError(f"forward of {node.name} must return an array, got {_found(output)}")
    if not any(a is not None and a.dtype == output.dtype for a in arrays):
        floating = [a.dtype for a in arrays if a is not None and a.dtype.kind == "f"]
        if floating and (output.dtype.kind == "f" or any(node.needs_input_grad)):
            found = _dtype(output)
            raise TypeError(f"forward of {node.name} must return the dtype of its inputs, {floating[0]}, got {found}")
    return output


def checked_gradients(node: Function, grads: Any) -> tuple[Array | None, ...]:
    """backward's result as a tuple with one entry per input; RuntimeError for wrong counts, types, shapes, dtypes.

    A wrong shape would later broadcast into a wrong gradient, so it is an error here.
    """
    if isinstance(grads, list) and len(node.input_shapes) > 1:
        raise RuntimeError(f"backward of {node!r} returned a list; several gradients are a tuple")
    grads = tuple(map(as_array, grads)) if isinstance(grads, tuple) else (as_array(grads),)
    if len(grads) != len(node.input_shapes):
        counted = f"{len(grads)} gradients for {len(node.input_shapes)} inputs"
        raise RuntimeError(f"backward of {node!r} returned {counted}; None stands for a gradient that is not needed")
    inputs = zip(grads, node.input_shapes, node.input_dtypes, strict=True)
    for position, (grad, shape, dtype) in enumerate(inputs):
        if grad is None or not node.needs_input_grad[position]:
            continue
        if not is_array(grad):
            found = f"{_found(grad)}, not an array"
        elif grad.shape != shape:
            found = f"an array of shape {grad.shape}; the input has {shape}"
        elif grad.dtype != dtype:
            found = f"an array of dtype {_dtype(grad)}; the input has {dtype}"
        else:
            continue
        raise RuntimeError(f"backward of {node!r} returned for input {position} {found}")
    return grads


def _dtype(array: Array) -> str:
    hint = " (a NumPy number such as np.sqrt(2.0) turns float32 into float64, a Python number does not)"
    return f"{array.dtype}{hint if array.dtype == 'float64' else ''}"


def _found(value: Any) -> str:
    name = type(value).__name__
    if name == "Tensor":
        return "Tensor (an operation computes with array functions, not with those of minires.functional)"
    return name
