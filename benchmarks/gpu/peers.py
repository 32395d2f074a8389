"""cuBLAS, cuDNN and whole networks through PyTorch, on the stream and the memory of CuPy.

tf32 is off, except within `at("tf32")`.  Operands of bf16 peers are stored in bf16, so that these peers read half the
bytes; the kernels of minires read float32 and round on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minires.arrays import channels_last
from minires.backends.kernels.conv2d import Geometry

DIRECTIONS = ("forward", "data gradient", "weight gradient")


class Torch:
    """PyTorch, inside CuPy's current stream, which must be one that was created: 0 is no stream to PyTorch."""

    device = "cuda"

    def __init__(self, cupy: Any) -> None:
        import torch  # optional

        self.torch, self.cupy = torch, cupy
        stream = cupy.cuda.get_current_stream().ptr
        if not stream:
            raise ValueError("peers need a stream that CuPy created, got the default stream")
        self.stream = torch.cuda.get_stream_from_external(stream, self.device)
        torch.cuda.set_stream(self.stream)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self._set("fp32")

    def _set(self, precision: str) -> None:
        matmul, cudnn = self.torch.backends.cuda.matmul, self.torch.backends.cudnn
        if hasattr(cudnn, "conv"):  # PyTorch from 2.9 on
            matmul.fp32_precision = cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        else:
            matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"

    @contextmanager
    def at(self, precision: str) -> Iterator[None]:
        """Within it, products of float32 are computed in this precision."""
        self._set(precision)
        try:
            yield
        finally:
            self._set("fp32")

    def tensor(self, array: Any, precision: str = "fp32") -> Any:
        """A CuPy array as a tensor, on the same memory unless it becomes bf16."""
        found = self.torch.from_dlpack(array)
        return found.bfloat16() if precision == "bf16" else found

    def array(self, tensor: Any) -> Any:
        """The tensor as a CuPy array; bf16 as float32."""
        return self.cupy.from_dlpack(tensor.float() if tensor.dtype == self.torch.bfloat16 else tensor)

    def product(self, a: Any, b: Any, precision: str) -> tuple[Callable[[], Any], Any]:
        """(the call, its result) of a @ b."""
        left, right = (self.tensor(array, precision) for array in (a, b))
        out = self.torch.empty((a.shape[0], b.shape[1]), dtype=left.dtype, device=left.device)

        def call() -> None:
            self.torch.mm(left, right, out=out)

        return call, out

    def convolution(
        self, x: Any, w: Any, grad: Any, geometry: Geometry, direction: str, precision: str = "fp32"
    ) -> Callable[[], Any]:
        """The call for x (N, H, W, C), w (O, KH, KW, C) and grad (N, OH, OW, O); it returns a tensor laid out so."""
        nchw = tuple(self.tensor(array.transpose(0, 3, 1, 2), precision) for array in (x, w, grad))
        return self._convolution(nchw, geometry, direction)

    def _convolution(self, nchw: Any, g: Geometry, direction: str) -> Callable[[], Any]:
        torch, (x, w, grad) = self.torch, nchw
        if direction == "forward":
            return lambda: torch.nn.functional.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups)
        position = DIRECTIONS.index(direction) - 1
        wanted = [position == 0, position == 1, False]

        def call() -> Any:
            options = (None, g.stride, g.padding, g.dilation, False, [0, 0], g.groups, wanted)
            return torch.ops.aten.convolution_backward(grad, x, w, *options)[position]

        return call

    def exact(self, x: Any, w: Any, grad: Any, geometry: Geometry, direction: str) -> tuple[Any, Any]:
        """(result, magnitude) of a convolution in float64, channels-last."""
        found, cudnn = [], self.torch.backends.cudnn
        cudnn.benchmark = False  # no search among slow algorithms
        for magnitude in (False, True):
            nchw = tuple(self.tensor(a.transpose(0, 3, 1, 2)).double() for a in (x, w, grad))
            given = tuple(a.abs() for a in nchw) if magnitude else nchw
            found.append(self.last(self._convolution(given, geometry, direction)()))
        cudnn.benchmark = True
        return found[0], found[1]

    def last(self, tensor: Any) -> Any:
        """A tensor (N, C, H, W) as a contiguous CuPy array (N, H, W, C)."""
        return channels_last(self.array(tensor.contiguous(memory_format=self.torch.channels_last)))

    def network(self, name: str, options: dict[str, Any], state: dict[str, Any]) -> Any:
        """The second definition of a network with these weights, channels-last."""
        from minires.verify import torch_networks  # imports PyTorch

        network = torch_networks.create(name, **options)
        tensors = {key: self.torch.from_numpy(value) for key, value in state.items()}
        missing = network.load_state_dict(tensors, strict=False).missing_keys
        if [key for key in missing if not key.endswith("num_batches_tracked")]:
            raise ValueError(f"{name} has no weights for {missing}")
        return network.to(self.device).to(memory_format=self.torch.channels_last)

    def step(self, network: Any, images: Any, labels: Any) -> Callable[[], Any]:
        """A training step, which returns the loss: learning rate 0, so that each computes the same."""
        torch = self.torch
        optimizer = torch.optim.SGD(network.parameters(), 0.0, 0.9, weight_decay=1e-4)
        x = self.tensor(images).contiguous(memory_format=torch.channels_last)
        y = torch.from_numpy(labels).to(self.device)

        def step() -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step
