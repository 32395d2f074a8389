"""A whole network verified: its operations, its layers one by one, and all of it at once."""

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

# The awkward cases that an operation is tried on, by the operation's name.
CASES_OF = {key.replace("_", ""): (key,) for key in cases.CASES} | {
    "batchnorm": ("batch_norm", "batch_norm_eval"),
    "reshape": ("reshape", "flatten"),
}


@dataclass(frozen=True)
class Operation:
    """An operation with its options, as the network uses it, and every element of its gradients checked.

    heading    operation and options in a line
    elements   of inputs, each of whose derivatives was compared with a finite difference
    cases      awkward cases tried beside, against a naive oracle too
    complaint  the first one, "" where all is right
    """

    heading: str
    elements: int
    cases: int
    complaint: str


@dataclass
class Report:
    """What was found.  `passed` says whether all is right, `culprit` who is to blame if a layer is.

    operations   full mode: every element
    layers       projected, in backward order
    network      what gradcheck of the whole network complained of, "" where all is right
    parameters   arrays whose gradient gradcheck of the whole network checked, the images among them
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
    """Gradients of a network against finite differences, in float64, by the active backend.

    model         in the mode it is in; parameters and running statistics come back as they were
    images        (N, C, H, W)
    small         a network of the same operations, such as the same one a filter wide, on whose `small_images` every
                  element is checked; default: the model itself
    cases         awkward cases of each operation
    on_step       is told what comes next
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
    """Projected gradcheck of the whole network: how many arrays' gradients were checked, and the complaint."""
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
    """One call of each operation with each options, on the smallest arrays it is given, in the order of first use."""
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
    """Every element of every gradient of one call, and awkward cases of the operation."""
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
    """Awkward cases of an operation (a key of `cases.CASES`), and its properties; raises AssertionError."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        cases.draw(key, cases.random_pick(rng), rng).check()
    for check in PROPERTIES.get(key, ()):
        check(np.random.default_rng(seed))


def _elements(recorded: Recorded) -> int:
    return sum(a.size for a in recorded.inputs if a is not None)


def disturb(model: Module, rng: np.random.Generator) -> Module:
    """Draws batch norms' weights, biases and statistics, so that nothing stands at a value that hides a mistake.

    (With weight 1 and bias 0 a batch norm that forgets both is right.)  Shifted to the positive side most units are
    linear: the batch norms of a deep plain network then don't amplify rounding from layer to layer.
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
    """Two implementations' arrays of one name: the largest difference, relative to the largest number of theirs."""

    name: str
    relative: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.relative <= self.tolerance


def differences(ours: Mapping[str, Array], theirs: Mapping[str, Array], tolerance: float) -> list[Difference]:
    """Of arrays of the same names.  A gradient that is zero but for rounding (a bias in front of a batch norm) is
    measured by a millionth of the largest one."""
    floor = 1e-6 * max((float(np.abs(a).max(initial=0)) for a in theirs.values()), default=0.0)
    result = []
    for name in {**theirs, **ours}:
        expected = theirs[name] if name in theirs else np.zeros(ours[name].shape)
        scale = max(float(np.abs(expected).max(initial=0)), floor, float(np.finfo(np.float64).tiny))
        found = ours.get(name, np.zeros(expected.shape))  # a gradient that is forgotten is zero
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


# Through 152 layers the rounding of two float64 implementations stays some orders below this; a wrong term does not.
RELATIVE = 1e-8


def against_backend(model: Module, images: Array, other: str, seed: int = 0) -> list[Difference]:
    """Logits, running statistics and gradients by the active backend beside those by another one, in float64."""
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
    """Logits, running statistics and gradients beside those of a PyTorch network of the same names, in float64.

    peer   e.g. `minires.verify.torch_networks.create("resnet50")`; it is given the model's weights
    """
    import torch

    peer.double().train(model.training)
    state = {name: torch.from_numpy(array.copy()) for name, array in model.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"peer has other parameters: missing {missing[:3]}, unexpected {unexpected[:3]}")
    x = torch.from_numpy(images.copy()).requires_grad_()
    logits = peer(x)
    running = {name: array.numpy().copy() for name, array in peer.named_buffers() if name in state}
    cotangent = np.random.default_rng(seed).standard_normal(tuple(logits.shape))
    logits.backward(torch.from_numpy(cotangent))
    grads = {"images": x.grad} | {name: p.grad for name, p in peer.named_parameters()}
    theirs = {"logits": logits.detach().numpy()} | running
    theirs |= {f"∂{name}": grad.numpy() for name, grad in grads.items()}
    return differences(results(model, images, cotangent), theirs, RELATIVE)
