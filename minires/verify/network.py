"""Verifies a network's gradients: each operation, each layer in a run of the network, and the whole network at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires import backends, random
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer
from minires.nn import Module
from minires.tensor import Tensor
from minires.verify import cases
from minires.verify.gradcheck import GradcheckError, gradcheck
from minires.verify.layers import Layer, check_layers, first_fault
from minires.verify.layers import unchanged as unchanged
from minires.verify.properties import PROPERTIES
from minires.verify.recorded import Recorded

# Operation name -> keys of `cases.CASES`: the awkward cases on which the operation is checked.
CASES_OF = {key.replace("_", ""): (key,) for key in cases.CASES} | {
    "batchnorm": ("batch_norm", "batch_norm_eval"),
    "reshape": ("reshape", "flatten"),
}


@dataclass(frozen=True)
class Operation:
    """The check of an operation with its options, as the network uses it.

    heading    operation and options in a line
    elements   number of input elements; the derivative by each was compared with a finite difference
    cases      number of additional awkward cases, which were also compared with a naive oracle
    complaint  text of the first error; "" if the operation passed
    """

    heading: str
    elements: int
    cases: int
    complaint: str


@dataclass
class Report:
    """The report of `verify`.  `passed` is the verdict; `culprit` is the first wrong layer in backward order, or None.

    operations   check of every gradient element of each operation
    layers       check of each layer along random directions, in backward order
    network      text of the error in the whole network's gradcheck; "" if it passed
    parameters   number of arrays in the whole network's gradcheck: parameters and images
    """

    operations: list[Operation] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    network: str = ""
    parameters: int = 0

    def __repr__(self) -> str:
        wrong = [operation.heading for operation in self.operations if operation.complaint]
        parts = [f"wrong: {heading}" for heading in wrong[:2]] + ([f"culprit {self.culprit!r}"] if self.culprit else [])
        parts += [f"whole network: {self.network[:200]}"] if self.network else []
        counts = f"{len(self.operations)} operations, {len(self.layers)} layers, {self.parameters} gradients"
        return f"<{'passed' if self.passed else 'failed'}: {'; '.join([counts, *parts])}>"

    @property
    def passed(self) -> bool:
        right = not any(operation.complaint for operation in self.operations)
        return right and self.culprit is None and not self.network

    @property
    def culprit(self) -> Layer | None:
        return first_fault(self.layers)


def verify(
    model: Module,
    images: Array,
    *,
    small: Module | None = None,
    small_images: Array | None = None,
    seed: int = 0,
    cases: int = 5,
    on_step: Callable[[str], None] = lambda step: None,
) -> Report:
    """Compares a network's gradients with finite differences, in float64, with the active backend.

    model         runs in its current mode; its parameters and running statistics are restored afterwards
    images        (N, C, H, W)
    small         a network with the same operations, for the check of every element, e.g. the same network with one
                  filter per layer; default: the model itself
    small_images  images for `small`; default: `images`
    seed          seed of the cotangents, the directions and the cases
    cases         number of awkward cases of each operation
    on_step       called with the name of each step before it runs
    """
    report = Report()
    tiny, tiny_images = (model, images) if small is None or small_images is None else (small, small_images)
    with unchanged(tiny):
        for recorded in used_operations(tiny, tiny_images):
            on_step(recorded.node.name)
            report.operations.append(check_operation(recorded, cases, seed))
    on_step("layers")
    report.layers = check_layers(model, images, seed=seed)
    on_step("whole network")
    report.parameters, report.network = check_network(model, images, seed)
    return report


def check_network(model: Module, images: Array, seed: int) -> tuple[int, str]:
    """Runs projected gradcheck on the whole network; returns the number of arrays checked, and the error or ""."""
    with unchanged(model):
        x = Tensor(images.copy(), requires_grad=True)
        inputs: dict[str, Tensor] = {"images": x} | dict(model.named_parameters())
        state = random.generator().bit_generator.state

        def fn(*_: Tensor) -> Tensor:
            random.generator().bit_generator.state = state  # dropout's mask is the same for every call
            return model(x)

        try:
            gradcheck(fn, inputs, seed=seed, mode="projected", directions=1)
        except GradcheckError as error:
            return len(inputs), str(error)
        except Exception as error:  # a bug may well end in an error of NumPy's
            return len(inputs), f"{type(error).__name__}: {error}"
    return len(inputs), ""


def used_operations(model: Module, images: Array) -> list[Recorded]:
    """One call of each operation and its options: the one with the smallest arrays, in order of first use."""
    found: dict[Any, Recorded] = {}

    class Watch(Observer):
        def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
            kernel = node.input_shapes[1][2:] if node.name == "Conv2d" and node.input_shapes[1] else ()
            key = (node.heading.partition(" of ")[0], kernel, tuple(a is None for a in arrays))
            recorded = Recorded.before(node, tuple(None if a is None else a.copy() for a in arrays))
            if key not in found or _elements(recorded) < _elements(found[key]):
                found[key] = recorded

    with Watch():
        model(Tensor(images, requires_grad=True))
    return list(found.values())


def check_operation(recorded: Recorded, count: int, seed: int) -> Operation:
    """Checks every gradient element of one call, and `count` awkward cases of the operation."""
    node = recorded.node
    shapes = ", ".join("×".join(map(str, a.shape)) for a in recorded.inputs if a is not None)
    node.module = ""
    heading = f"{node.heading} on {shapes}"
    names = [name for name, a in zip(recorded.names, recorded.inputs, strict=True) if a is not None]
    arrays = [a for a in recorded.inputs if a is not None]
    keys = CASES_OF.get(node.name.lower(), ())
    complaint = ""
    try:
        gradcheck(recorded, dict(zip(names, arrays, strict=True)), seed=seed)
        for key in keys:
            check_cases(key, count, seed)
    except Exception as error:  # a bug may well end in an error of NumPy's
        complaint = f"{type(error).__name__}: {error}"
    return Operation(heading, _elements(recorded), count * len(keys), complaint)


def check_cases(key: str, count: int, seed: int) -> None:
    """Checks `count` awkward cases of an operation (a key of `cases.CASES`) and its properties.

    Raises AssertionError for the first failure.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        cases.draw(key, cases.random_pick(rng), rng).check()
    for check in PROPERTIES.get(key, ()):
        check(np.random.default_rng(seed))


def _elements(recorded: Recorded) -> int:
    return sum(a.size for a in recorded.inputs if a is not None)


def disturb(model: Module, rng: np.random.Generator) -> Module:
    """Draws random weights, biases and statistics for all batch norms, because the initial values hide mistakes.

    (With weight 1 and bias 0, a batch norm that ignores both is right.)  Positive biases make most ReLUs linear, so the
    batch norms of a deep plain network don't amplify rounding from layer to layer.
    """
    from minires.nn import BatchNorm2d

    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    spread = rng.uniform(0.5, 1.5, parameter.shape)
                    parameter.data[...] = spread if parameter is module.weight else spread - 0.5
            module.running_mean[...] = rng.normal(0.5, 0.5, module.running_mean.shape)
            module.running_var[...] = rng.uniform(0.5, 1.5, module.running_var.shape)
    return model


@dataclass(frozen=True)
class Difference:
    """The largest difference between two implementations' arrays of the same name.

    relative    relative to the largest number in the second implementation's array
    """

    name: str
    relative: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.relative <= self.tolerance


def differences(ours: Mapping[str, Array], theirs: Mapping[str, Array], tolerance: float) -> list[Difference]:
    """Compares arrays of the same names; a missing array counts as zero.

    A gradient that is zero except for rounding (a bias in front of a batch norm) is compared relative to a millionth of
    the largest number in all arrays."""
    floor = 1e-6 * max((float(np.abs(a).max(initial=0)) for a in theirs.values()), default=0.0)
    result = []
    for name in {**theirs, **ours}:
        expected = theirs[name] if name in theirs else np.zeros(ours[name].shape)
        scale = max(float(np.abs(expected).max(initial=0)), floor, float(np.finfo(np.float64).tiny))
        found = ours.get(name, np.zeros(expected.shape))
        relative = float(np.abs(found - expected).max(initial=0)) / scale
        result.append(Difference(name, relative, tolerance))
    return result


def results(model: Module, images: Array, cotangent: Array) -> dict[str, Array]:
    """Logits, the running statistics after forward, and the gradients of the images and of all parameters."""
    with unchanged(model):
        model.zero_grad()
        x = Tensor(images.copy(), requires_grad=True)
        logits = model(x)
        found = {"logits": logits.data.copy()} | running_statistics(model)
        logits.backward(cotangent)
        grads = {"images": x.grad} | {name: p.grad for name, p in model.named_parameters()}
        return found | {f"∂{name}": grad for name, grad in grads.items() if grad is not None}


def running_statistics(model: Module) -> dict[str, Array]:
    """Copies of what a state dict holds beside the parameters, such as "bn1.running_mean"."""
    parameters = {name for name, _ in model.named_parameters()}
    return {name: array.copy() for name, array in model.state_dict().items() if name not in parameters}


# Through 152 layers, the rounding of two float64 implementations stays orders of magnitude below this tolerance.
RELATIVE = 1e-8


def against_backend(model: Module, images: Array, other: str, seed: int = 0) -> list[Difference]:
    """Compares the active backend with another: logits, running statistics and gradients, in float64."""
    with unchanged(model):
        shape = model(Tensor(images)).shape
    cotangent = np.random.default_rng(seed).standard_normal(shape)
    state = random.generator().bit_generator.state
    ours = results(model, images, cotangent)
    random.generator().bit_generator.state = state
    with backends.backend(other):
        theirs = results(model, images, cotangent)
    return differences(ours, theirs, RELATIVE)


def against_torch(model: Module, peer: Any, images: Array, seed: int = 0) -> list[Difference]:
    """Compares a model with a PyTorch network: logits, running statistics and gradients, in float64.

    peer   PyTorch network with the model's parameter names; takes over the model's weights.
           Example: `minires.verify.torch_networks.create("resnet50")`
    """
    import torch

    peer.double().train(model.training)
    state = {name: torch.from_numpy(array.copy()) for name, array in model.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"peer must have the model's parameters; missing {missing[:3]}, unexpected {unexpected[:3]}")
    x = torch.from_numpy(images.copy()).requires_grad_()
    logits = peer(x)
    running = {name: array.numpy().copy() for name, array in peer.named_buffers() if name in state}
    cotangent = np.random.default_rng(seed).standard_normal(tuple(logits.shape))
    logits.backward(torch.from_numpy(cotangent))
    grads = {"images": x.grad} | {name: p.grad for name, p in peer.named_parameters()}
    theirs = {"logits": logits.detach().numpy()} | running
    theirs |= {f"∂{name}": grad.numpy() for name, grad in grads.items()}
    return differences(results(model, images, cotangent), theirs, RELATIVE)
