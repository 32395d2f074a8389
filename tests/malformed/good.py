"""A good call of everything on the public face, made afresh each time: one odd value in it, and it is malformed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import minires as mr
import minires.functional as F
from minires import data, exercises, inspect, models, nn, optim, prediction, training, weights
from minires.data import FolderImages, Loader, Preprocessing, Transform
from minires.nn import init
from minires.training import RunFolder


class Good(NamedTuple):
    """function(*arguments[spread], **the other arguments); one x is never spread

    written   arguments that the call is documented to write into
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    spread: str = ""
    written: tuple[str, ...] = ()

    def __call__(self) -> Any:
        named = {name: value for name, value in self.arguments.items() if name != self.spread}
        positional = self.arguments[self.spread] if self.spread else ()
        several = isinstance(positional, (tuple, list)) and self.spread != "x"
        return self.function(*(positional if several else (positional,)), **named)


def floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def leaf(*shape: int) -> mr.Tensor:
    return mr.tensor(floats(*shape), requires_grad=True)


def network() -> nn.Module:
    """(N, 3, 8, 8) -> (N, 4)"""
    with init.skipped():
        return models.create("resnet20", width=1, num_classes=4)


def layers() -> nn.Module:
    """(N, 2, 5, 6) -> (N, 3, 5, 6)"""
    mr.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())


def _call() -> inspect.Call:
    with inspect.record("Linear") as calls:
        F.linear(leaf(2, 3), leaf(4, 3))
    return calls[0]


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


def dataset() -> data.Dataset:
    return data.Dataset("made", "train", images(), np.arange(6) % 4, ("a", "b", "c", "d"))


def entering(manager: Callable[..., Any]) -> Callable[..., Any]:
    """The call and what happens on entering it."""

    @functools.wraps(manager)
    def call(*arguments: Any, **options: Any) -> None:
        with manager(*arguments, **options):
            pass

    return call


def all_of(function: Callable[..., Any], most: int = 2) -> Callable[..., Any]:
    """The call and the first things that it yields."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> list[Any]:
        return [value for value, _ in zip(function(*arguments, **options), range(most), strict=False)]

    return call


class Files:
    """What the calls read, made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.picture = folder / "picture.png"
        Image.fromarray(images()[0]).resize((20, 14)).save(self.picture)
        self.classes = folder / "classes.txt"
        self.classes.write_text("ant\nbee\ncat\ndog\n")
        self.weights = folder / "weights.safetensors"
        message: dict[str, Any] = {"network": "resnet20", "options": {"width": 1, "num_classes": 4}}
        mr.manual_seed(0)
        weights.save(models.create("resnet20", width=1, num_classes=4), self.weights, **message)
        config = training.Config.make(iterations=1, width=1, batch_size=8, workers=0, threads=1)
        self.run = folder / "run"
        training.train(config, self.run)

    def free(self, name: str) -> Path:
        """A path where nothing is yet."""
        path = self.folder / "made" / name
        if path.is_dir():
            for inside in sorted(path.rglob("*"), reverse=True):
                inside.rmdir() if inside.is_dir() else inside.unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        return path

    def classifier(self) -> prediction.Classifier:
        return prediction.of_weights(self.weights)

    def predictions(self) -> list[Any]:
        return list(prediction.predict(self.classifier(), [self.picture] * 2, 2, 0))


def _binary(name: str) -> Callable[[Files], Good]:
    return lambda files: Good(getattr(leaf(2, 3), name), {"other": floats(2, 3)})


def _forward(layer: Callable[[], nn.Module], *shape: int) -> Callable[[Files], Good]:
    return lambda files: Good(layer(), {"x": floats(*shape)}, spread="x")


def _step() -> Good:
    """SGD.step, and the gradient that it finds at a parameter."""

    def step(grad: Any) -> None:
        p = leaf(3)
        p.grad = grad
        optim.SGD([p], 0.1, 0.9, 1e-4).step()
        assert np.isfinite(p.data).all() or not np.isfinite(grad).all()

    return Good(step, {"grad": floats(3)})


def _peak() -> Any:
    return inspect.PeakMemory(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))


def _function() -> Good:
    from minires.ops import ReLU

    return Good(ReLU(), {"inputs": leaf(2, 3)}, spread="inputs")


SCORES = {"labels": np.array([0, 2, 1]), "reduction": "mean", "ignore_index": None}
VECTOR = {"x": floats(2, 3, 4, 5)}
FACTORIES: dict[str, Callable[[Files], Good]] = {
    "Function.__call__": lambda files: _function(),
    "Tensor": lambda files: Good(mr.Tensor, {"data": floats(2, 3), "requires_grad": True, "node": None}),
    "Tensor.data=": lambda files: Good(
        lambda array: setattr(mr.tensor(floats(2, 3)), "data", array), {"array": floats(2, 3)}
    ),
    "Tensor.grad=": lambda files: _step(),
    "Tensor.backward": lambda files: Good((leaf(2, 3) * 2.0).backward, {"grad_output": floats(2, 3)}),
    **{
        f"Tensor.__{name}__": _binary(f"__{name}__")
        for name in (
            *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "lt", "le", "gt", "ge"),
            *("pow", "rpow"),
        )
    },
    **{
        f"Tensor.__{name}__": lambda files, name=name: Good(getattr(leaf(3, 3), f"__{name}__"), {"other": floats(3, 3)})
        for name in ("matmul", "rmatmul")
    },
    "Tensor.__getitem__": lambda files: Good(leaf(4, 5).__getitem__, {"index": (1, slice(0, 3))}),
    "Tensor.sum": lambda files: Good(leaf(2, 3, 4).sum, {"axis": (0, 2), "keepdims": True}),
    "Tensor.max": lambda files: Good(leaf(2, 3, 4).max, {"axis": (0, -1), "keepdims": True}),
    "Tensor.transpose": lambda files: Good(leaf(2, 3, 4).transpose, {"axes": (2, 0, 1)}, spread="axes"),
    "Tensor.mean": lambda files: Good(leaf(2, 3, 4).mean, {"axis": 1, "keepdims": False}),
    "Tensor.reshape": lambda files: Good(leaf(2, 6).reshape, {"shape": (3, -1)}, spread="shape"),
    "backend": lambda files: Good(
        entering(mr.backend), {"name": "native", "isa": "portable", "winograd": False}
    ),
    "enable_grad.__call__": lambda files: Good(mr.enable_grad(), {"fn": len}),
    "no_grad.__call__": lambda files: Good(mr.no_grad(), {"fn": len}),
    "gradcheck": lambda files: Good(
        mr.gradcheck,
        {
            "fn": lambda inputs: F.relu(inputs), "inputs": floats(2, 2), "eps": 1e-6, "rtol": 1e-5, "atol": 1e-7,
            "seed": 0, "mode": "full", "directions": 1, "redraws": 2,
        },
    ),
    "manual_seed": lambda files: Good(mr.manual_seed, {"seed": 1}),
    "module_scope": lambda files: Good(entering(mr.module_scope), {"name": "block"}),
    "set_num_threads": lambda files: Good(mr.set_num_threads, {"threads": 2}),
    "summary": lambda files: Good(
        mr.summary, {"model": layers(), "input_shape": (2, 5, 6), "sort": "macs", "depth": 1}
    ),
    "tensor": lambda files: Good(mr.tensor, {"array": floats(2, 3), "requires_grad": True}),
    # -- functional
    "functional.adaptive_avg_pool2d": lambda files: Good(
        F.adaptive_avg_pool2d, {"x": leaf(2, 3, 4, 5), "output_size": (2, 3)}
    ),
    "functional.avg_pool2d": lambda files: Good(
        F.avg_pool2d,
        {
            "x": leaf(2, 3, 4, 5), "kernel_size": 2, "stride": 1, "padding": 1, "ceil_mode": True,
            "count_include_pad": False, "divisor_override": None,
        },
    ),
    "functional.batch_norm": lambda files: Good(
        F.batch_norm,
        {
            "x": leaf(2, 3, 4, 5), "running_mean": floats(3), "running_var": abs(floats(3)), "weight": leaf(3),
            "bias": leaf(3), "training": True, "momentum": 0.1, "eps": 1e-5,
        },
        written=("running_mean", "running_var"),
    ),
    "functional.batch_norm_add_relu": lambda files: Good(
        F.batch_norm_add_relu,
        {
            "x": leaf(2, 3, 4, 5), "running_mean": floats(3), "running_var": abs(floats(3)), "weight": leaf(3),
            "bias": leaf(3), "shortcut": leaf(2, 3, 4, 5), "momentum": 0.1, "eps": 1e-5,
        },
        written=("running_mean", "running_var"),
    ),
    "functional.fused_conv2d": lambda files: Good(
        F.fused_conv2d,
        {
            "x": leaf(2, 4, 5, 6), "weight": leaf(6, 2, 3, 2), "bias": leaf(6), "stride": (2, 1), "padding": 1,
            "dilation": 1, "groups": 2, "running_mean": floats(6), "running_var": abs(floats(6)), "gamma": leaf(6),
            "beta": leaf(6), "eps": 1e-5, "shortcut": leaf(2, 6, 3, 7), "relu": True,
        },
    ),
    "functional.conv2d": lambda files: Good(
        F.conv2d,
        {
            "x": leaf(2, 4, 5, 6), "weight": leaf(6, 2, 3, 2), "bias": leaf(6), "stride": (2, 1), "padding": 1,
            "dilation": 1, "groups": 2,
        },
    ),
    "functional.cross_entropy": lambda files: Good(
        F.cross_entropy, {"logits": leaf(3, 4), **SCORES, "label_smoothing": 0.1, "weight": abs(floats(4))}
    ),
    "functional.dropout": lambda files: Good(F.dropout, {"x": leaf(2, 3), "p": 0.5, "training": True}),
    "functional.flatten": lambda files: Good(F.flatten, {"x": leaf(2, 3, 4, 5), "start_dim": 1, "end_dim": 2}),
    "functional.linear": lambda files: Good(F.linear, {"x": leaf(2, 3), "weight": leaf(4, 3), "bias": leaf(4)}),
    "functional.log_softmax": lambda files: Good(F.log_softmax, {"x": leaf(2, 3, 4), "axis": 1}),
    **{
        f"functional.{name}": lambda files, name=name: Good(getattr(F, name), {"x": leaf(2, 3)})
        for name in ("exp", "log", "sqrt", "tanh", "sigmoid")
    },
    "functional.matmul": lambda files: Good(F.matmul, {"a": leaf(2, 3), "b": leaf(3, 4)}),
    "functional.max_pool2d": lambda files: Good(
        F.max_pool2d,
        {"x": leaf(2, 3, 4, 5), "kernel_size": 2, "stride": 1, "padding": 1, "dilation": 1, "ceil_mode": False},
    ),
    "functional.nll_loss": lambda files: Good(
        F.nll_loss, {"log_probs": leaf(3, 4), **SCORES, "weight": abs(floats(4))}
    ),
    "functional.pad": lambda files: Good(F.pad, {"x": leaf(2, 3), "pad": ((1, 0), (0, 2)), "value": 0.5}),
    "functional.relu": lambda files: Good(F.relu, {"x": leaf(2, 3)}),
    "functional.reshape": lambda files: Good(F.reshape, {"x": leaf(2, 6), "shape": (3, -1)}),
    "functional.softmax": lambda files: Good(F.softmax, {"x": leaf(2, 3, 4), "axis": -1}),
    "backends.active": lambda files: Good(mr.backends.active, {"home": "numpy"}),
    # -- data
    "data.Augmentation": lambda files: Good(
        data.Augmentation, {"pad": 1, "flip": True, "colour": 0.1, "rotate": 5.0, "zoom": 0.1, "shift": 0.5}
    ),
    "data.Dataset": lambda files: Good(
        data.Dataset,
        {"name": "made", "split": "train", "images": images(), "labels": np.arange(6) % 4, "classes": tuple("abcd")},
    ),
    "data.FolderImages": lambda files: Good(
        FolderImages, {"paths": [files.picture], "size": 8, "crop": "scale-jitter"}
    ),
    "data.FolderImages.__getitem__": lambda files: Good(
        FolderImages([files.picture] * 3, 8).__getitem__, {"chosen": slice(0, 2)}
    ),
    "data.FolderImages.read": lambda files: Good(
        FolderImages([files.picture], 8).read, {"index": 0, "rng": np.random.default_rng(0)}
    ),
    "data.Loader": lambda files: Good(
        lambda **given: [batch for batch, _ in zip(Loader(**given).iterate(), range(3), strict=False)],
        {
            "dataset": dataset(), "batch_size": 4, "transform": Transform(), "seed": 0, "shuffle": True, "workers": 0,
            "share": None,
        },
    ),
    "data.Loader.iterate": lambda files: Good(
        all_of(Loader(dataset(), 4, workers=0).iterate), {"start_iteration": 3}
    ),
    "data.Loader.images_of": lambda files: Good(Loader(dataset(), 4, workers=0).images_of, {"iteration": 1}),
    "data.Preprocessing": lambda files: Good(
        Preprocessing,
        {
            "resize": 9, "crop": 8, "mean": (0.4, 0.5, 0.6), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear",
            "grey": False,
        },
    ),
    "data.Preprocessing.__call__": lambda files: Good(Preprocessing(9, 8), {"path": files.picture}),
    "data.Preprocessing.cut": lambda files: Good(Preprocessing(9, 8).cut, {"path": files.picture}),
    "data.Preprocessing.normalise": lambda files: Good(Preprocessing(9, 8).normalise, {"images": images()}),
    "data.Transform": lambda files: Good(
        lambda **given: Transform(**given)(images(), np.random.default_rng(0)),
        {"mean": abs(floats(8, 8, 3)), "augmentation": data.Augmentation(pad=1, flip=True)},
    ),
    "data.Transform.__call__": lambda files: Good(
        Transform(None, data.Augmentation(1, True, 0.1, 5, 0.1, 0.5)),
        {"images": images(), "rng": np.random.default_rng(0), "part": None},
    ),
    "data.find": lambda files: Good(data.find, {"name": "folder", "data_dir": files.folder}),
    "data.from_arrays": lambda files: Good(
        data.from_arrays,
        {"images": images(), "labels": np.arange(6) % 4, "classes": ("a", "b", "c", "d"), "name": "x", "split": "test"},
    ),
    "data.load": lambda files: Good(
        data.load,
        {
            "name": "digits", "split": "test", "data_dir": None, "download": False, "size": None,
            "test_fraction": None, "seed": 0,
        },
    ),
    "data.pixel_mean": lambda files: Good(data.pixel_mean, {"dataset": dataset(), "sample": 4}),
    "data.recipe": lambda files: Good(data.recipe, {"name": "digits", "size": 8}),
    # -- inspect
    "inspect.Trace.save": lambda files: Good(
        inspect.Trace("made").save, {"path": files.free("trace.dot"), "format": "dot"}
    ),
    "inspect.breakpoint": lambda files: Good(
        inspect.breakpoint,
        {"at": "conv1", "when": "both", "condition": None, "stop": "entry", "times": 1, "card": False},
    ),
    "inspect.card": lambda files: Good(inspect.card, {"node": (leaf(2) * 2.0).node}),
    "inspect.explain": lambda files: Good(
        inspect.explain, {"call": _call(), "output": (0, 1), "gradient": None, "of": "x"}
    ),
    "inspect.record": lambda files: Good(inspect.record, {"at": "conv1"}),
    "inspect.norm_above": lambda files: Good(inspect.norm_above, {"limit": 2.0}),
    "inspect.not_finite": lambda files: Good(
        inspect.not_finite, {"node": (leaf(2) * 2.0).node, "arrays": [floats(2)]}
    ),
    "inspect.peak_memory": lambda files: Good(
        inspect.peak_memory,
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "input_shape": (3, 2, 2), "batch": 4},
    ),
    "inspect.PeakMemory": lambda files: Good(
        inspect.PeakMemory, {"model": nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "input_shape": (3, 2, 2)}
    ),
    "inspect.PeakMemory.__call__": lambda files: Good(_peak(), {"batch": 4}),
    "inspect.PeakMemory.largest_batch": lambda files: Good(_peak().largest_batch, {"limit": 2**20}),
    "inspect.trace": lambda files: Good(
        inspect.trace, {"model": network(), "images": floats(2, 3, 8, 8), "labels": np.array([0, 3]), "title": "made"}
    ),
    # -- models
    "models.BasicBlock": lambda files: Good(
        models.BasicBlock,
        {"in_channels": 2, "width": 2, "stride": 1, "downsample": None, "residual": True, "batch_norm": True},
    ),
    "models.BasicBlock.forward": _forward(lambda: models.BasicBlock(2, 2), 2, 2, 5, 5),
    "models.Bottleneck": lambda files: Good(
        models.Bottleneck,
        {
            "in_channels": 4, "width": 1, "stride": 1, "downsample": None, "residual": True, "batch_norm": True,
            "stride_in": "3x3",
        },
    ),
    "models.Bottleneck.forward": _forward(lambda: models.Bottleneck(4, 1), 2, 4, 5, 5),
    "models.ResNet": lambda files: Good(
        models.ResNet,
        {
            "block": models.BasicBlock, "layers": (1, 1), "stem": "cifar", "width": 2, "num_classes": 3,
            "in_channels": 1, "residual": True, "shortcut": "A", "stride_in": "1x1", "zero_channels": "end",
            "batch_norm": True,
        },
    ),
    "models.ResNet.forward": _forward(network, 2, 3, 8, 8),
    "models.VGG": lambda files: Good(
        models.VGG,
        {
            "layers": (1, 1), "width": 1, "num_classes": 3, "in_channels": 1, "hidden": 2, "batch_norm": True,
            "dropout": 0.1,
        },
    ),
    "models.VGG.forward": _forward(
        lambda: models.VGG((1, 1), width=1, num_classes=3, hidden=2, dropout=0.0), 1, 3, 32, 32
    ),
    "models.ZeroPadShortcut": lambda files: Good(
        models.ZeroPadShortcut, {"in_channels": 2, "out_channels": 4, "stride": 2, "zero_channels": "both"}
    ),
    "models.ZeroPadShortcut.forward": _forward(lambda: models.ZeroPadShortcut(2, 4, 2), 2, 2, 5, 5),
    "models.shapes": lambda files: Good(models.shapes, {"name": "resnet20", "num_classes": 3, "width": 1}),
    "models.create": lambda files: Good(
        models.create,
        {
            "name": "resnet20", "num_classes": 3, "in_channels": 1, "width": 1, "shortcut": "B",
            "zero_channels": "end", "batch_norm": True,
        },
    ),
    **{
        f"models.{name}": lambda files, name=name: Good(getattr(models, name), {"name": "resnet20"})
        for name in ("input_shape", "options", "stages")
    },
    # -- nn
    "nn.AdaptiveAvgPool2d": lambda files: Good(nn.AdaptiveAvgPool2d, {"output_size": (1, None)}),
    "nn.AdaptiveAvgPool2d.forward": _forward(lambda: nn.AdaptiveAvgPool2d(2), 2, 3, 4, 5),
    "nn.AvgPool2d": lambda files: Good(
        nn.AvgPool2d,
        {
            "kernel_size": 2, "stride": 1, "padding": 1, "ceil_mode": False, "count_include_pad": True,
            "divisor_override": 3,
        },
    ),
    "nn.AvgPool2d.forward": _forward(lambda: nn.AvgPool2d(2), 2, 3, 4, 5),
    "nn.BatchNorm2d": lambda files: Good(nn.BatchNorm2d, {"num_features": 3, "eps": 1e-5, "momentum": 0.1}),
    "nn.BatchNorm2d.forward": _forward(lambda: nn.BatchNorm2d(3), 2, 3, 4, 5),
    "nn.Conv2d": lambda files: Good(
        nn.Conv2d,
        {
            "in_channels": 4, "out_channels": 2, "kernel_size": (3, 1), "stride": 2, "padding": 1, "dilation": 1,
            "groups": 2, "bias": True,
        },
    ),
    "nn.Conv2d.forward": _forward(lambda: nn.Conv2d(3, 2, 2), 2, 3, 4, 5),
    "nn.Dropout": lambda files: Good(nn.Dropout, {"p": 0.5}),
    "nn.Dropout.forward": _forward(lambda: nn.Dropout(0.5), 2, 3),
    "nn.Flatten": lambda files: Good(nn.Flatten, {"start_dim": 1, "end_dim": -1}),
    "nn.Flatten.forward": _forward(lambda: nn.Flatten(), 2, 3, 4),
    "nn.Identity.forward": _forward(lambda: nn.Identity(), 2, 3),
    "nn.Linear": lambda files: Good(nn.Linear, {"in_features": 3, "out_features": 2, "bias": True}),
    "nn.Linear.forward": _forward(lambda: nn.Linear(3, 2), 4, 3),
    "nn.MaxPool2d": lambda files: Good(
        nn.MaxPool2d, {"kernel_size": 2, "stride": None, "padding": 1, "dilation": 1, "ceil_mode": False}
    ),
    "nn.MaxPool2d.forward": _forward(lambda: nn.MaxPool2d(2), 2, 3, 4, 5),
    "nn.Module.__setattr__": lambda files: Good(nn.Linear(3, 2).__setattr__, {"name": "weight", "value": leaf(2, 3)}),
    "nn.Module.register_buffer": lambda files: Good(nn.Module().register_buffer, {"name": "count", "array": floats(3)}),
    "nn.Module.__call__": lambda files: Good(layers(), {"inputs": floats(2, 2, 5, 6)}, spread="inputs"),
    "nn.Module.named_modules": lambda files: Good(all_of(layers().named_modules), {"prefix": "net"}),
    "nn.Module.fuse": lambda files: Good(nn.Sequential(nn.ReLU()).fuse, {"on": True, "training": True}),
    "nn.Module.load_state_dict": lambda files: Good(
        nn.Linear(3, 2).load_state_dict, {"state": {"weight": floats(2, 3), "bias": floats(2)}, "strict": True}
    ),
    "nn.Module.train": lambda files: Good(layers().train, {"mode": True}),
    "nn.Module.to": lambda files: Good(layers().to, {"device": "cpu"}),
    "nn.Module.astype": lambda files: Good(layers().astype, {"dtype": "float64"}),
    "nn.ReLU.forward": _forward(lambda: nn.ReLU(), 2, 3),
    "nn.Sigmoid.forward": _forward(lambda: nn.Sigmoid(), 2, 3),
    "nn.Tanh.forward": _forward(lambda: nn.Tanh(), 2, 3),
    "nn.ModuleList": lambda files: Good(nn.ModuleList, {"modules": [nn.ReLU(), nn.Flatten()]}),
    **{
        f"nn.ModuleList.{method}": lambda files, method=method, arguments=arguments: Good(
            getattr(nn.ModuleList([nn.ReLU(), nn.Flatten()]), method), dict(arguments)
        )
        for method, arguments in (
            ("append", {"module": nn.ReLU()}),
            ("extend", {"modules": [nn.ReLU()]}),
            ("insert", {"position": 1, "module": nn.ReLU()}),
            ("__getitem__", {"position": 1}),
            ("__setitem__", {"position": -1, "module": nn.ReLU()}),
            ("__delitem__", {"position": 0}),
        )
    },
    "nn.Sequential": lambda files: Good(nn.Sequential, {"modules": (nn.ReLU(), nn.Flatten())}, spread="modules"),
    "nn.Sequential.forward": _forward(layers, 2, 2, 5, 6),
    "nn.Sequential.__getitem__": lambda files: Good(layers().__getitem__, {"position": 1}),
    "nn.init.he_normal": lambda files: Good(init.he_normal, {"shape": (3, 2, 3, 3), "fan": "in"}),
    # -- optim
    "optim.Constant": lambda files: Good(optim.Constant, {"lr": 0.1}),
    "optim.SGD": lambda files: Good(
        optim.SGD,
        {
            "params": [leaf(2), leaf(3)], "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False,
            "dampening": 0.0,
        },
    ),
    "optim.SGD.load_state_dict": lambda files: Good(
        optim.SGD([leaf(3)], 0.1).load_state_dict, {"state": {"velocity.0": floats(3)}}
    ),
    "optim.Adam": lambda files: Good(
        optim.Adam,
        {"params": [leaf(2), leaf(3)], "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 1e-4},
    ),
    "optim.Adam.load_state_dict": lambda files: Good(
        optim.Adam([leaf(3)]).load_state_dict,
        {"state": {"step.0": np.array(2), "exp_avg.0": floats(3), "exp_avg_sq.0": abs(floats(3))}},
    ),
    "optim.Step": lambda files: Good(optim.Step, {"lr": 0.1, "milestones": (2, 4), "factor": 0.1}),
    "optim.Step.at": lambda files: Good(
        optim.Step.at, {"lr": 0.1, "milestones": (0.5, 0.75), "iterations": 8, "factor": 0.1}
    ),
    "optim.Warmup": lambda files: Good(
        optim.Warmup, {"schedule": optim.Constant(0.1), "lr": 0.01, "iterations": None, "until_error": 80.0}
    ),
    **{
        f"optim.{name}.{method}": lambda files, make=make, method=method, arguments=arguments: Good(
            getattr(make(), method), dict(arguments)
        )
        for name, make, state in (
            ("Constant", lambda: optim.Constant(0.1), {}),
            ("Step", lambda: optim.Step(0.1, (2, 4)), {}),
            ("Warmup", lambda: optim.Warmup(optim.Constant(0.1)), {"ends": None, "errors": [50.0], "schedule": {}}),
        )
        for method, arguments in (
            ("__call__", {"iteration": 3}),
            ("observe", {"iteration": 3, "training_error": 50.0}),
            ("load_state_dict", {"state": state}),
        )
    },
    # -- training
    "training.Config": lambda files: Good(training.Config, {**training.Config(epochs=1).__dict__, "workers": 0}),
    "training.Config.make": lambda files: Good(training.Config.make, {"network": "resnet20", "epochs": 1, "lr": 0.1}),
    "training.Config.total_iterations": lambda files: Good(
        training.Config(epochs=2).total_iterations, {"batches": 12}
    ),
    "training.Config.intervals": lambda files: Good(training.Config(epochs=2).intervals, {"batches": 12}),
    "training.Config.make_schedule": lambda files: Good(training.Config(epochs=2).make_schedule, {"total": 24}),
    "training.Config.from_json": lambda files: Good(
        training.Config.from_json, {"values": training.Config(epochs=2).to_json()}
    ),
    "training.RunFolder": lambda files: Good(RunFolder, {"path": files.free("run")}),
    "training.RunFolder.claim": lambda files: Good(
        entering(RunFolder.claim),
        {"out": files.free("claimed"), "config": training.Config(epochs=2), "root": files.free("runs")},
    ),
    "training.evaluate": lambda files: Good(
        training.evaluate,
        {"model": network(), "batches": [(floats(2, 3, 8, 8), np.array([0, 3]))], "on_batch": None, "ranks": None},
    ),
    "training.evaluate_run": lambda files: Good(
        training.evaluate_run, {"path": files.run, "split": "test", "download": False, "workers": 0}
    ),
    "training.find_checkpoint": lambda files: Good(training.find_checkpoint, {"path": files.run}),
    "training.load_checkpoint": lambda files: Good(
        training.load_checkpoint, {"path": training.find_checkpoint(files.run)}
    ),
    "training.recipe": lambda files: Good(training.recipe, {"network": "resnet20", "data": "digits"}),
    "training.resume_config": lambda files: Good(training.resume_config, {"path": files.run}),
    "training.RunFolder.of": lambda files: Good(RunFolder.of, {"path": files.run}),
    "training.restore": lambda files: Good(training.restore, {"path": files.run, "backend": "reference"}),
    "training.train": lambda files: Good(
        training.train,
        {
            "config": training.Config.make(iterations=1, width=1, batch_size=8, workers=0),
            "out": files.free("trained"), "resume": None, "download": False, "report": None, "ranks": None,
        },
    ),
    # -- weights
    "weights.Match.state_dict": lambda files: Good(
        weights.recognise(weights.read(files.weights)).state_dict, {"file": weights.read(files.weights)}
    ),
    "weights.convert": lambda files: Good(
        weights.convert,
        {
            "source": files.weights, "target": files.free("converted"), "network": "resnet20", "stride_in": None,
            "zero_channels": None, "dtype": "float16",
        },
    ),
    "weights.exported": lambda files: Good(
        weights.exported,
        {"model": layers().eval(), "shape": (2, 5, 6), "batch": 1, "name": "made", "metadata": {"a": "b"}},
    ),
    "weights.impossible": lambda files: Good(weights.impossible, {"arrays": {"a": floats(2)}}),
    "weights.load": lambda files: Good(
        weights.load,
        {
            "path": files.weights, "network": "resnet20", "stride_in": None, "zero_channels": None, "strict": True,
            "dtype": "float32", "check_values": True,
        },
    ),
    "weights.read": lambda files: Good(weights.read, {"path": files.weights}),
    "weights.read_any": lambda files: Good(weights.read_any, {"path": files.weights}),
    "weights.recognise": lambda files: Good(
        weights.recognise,
        {"file": weights.read(files.weights), "network": "resnet20", "stride_in": None, "zero_channels": None},
    ),
    "weights.save": lambda files: Good(
        weights.save,
        {
            "model": network(), "path": files.free("saved"), "network": "resnet20",
            "options": {"width": 1, "num_classes": 4}, "preprocessing": None, "classes": ("a", "b", "c", "d"),
            "dtype": "float32", "assumed": ("width",),
        },
    ),
    # -- exercises
    "exercises.check": lambda files: Good(
        exercises.check, {"name": "relu_backward", "function": lambda grad_output, x: grad_output * (x > 0), "seed": 0}
    ),
    # -- prediction
    "prediction.Classifier.name": lambda files: Good(files.classifier().name, {"index": 1}),
    "prediction.Prediction.top": lambda files: Good(files.predictions()[0].top, {"k": 2}),
    "prediction.annotated": lambda files: Good(
        prediction.annotated, {"prediction": files.predictions()[0], "classifier": files.classifier(), "top": 2}
    ),
    "prediction.find_pictures": lambda files: Good(prediction.find_pictures, {"paths": [files.picture]}),
    "prediction.of_run": lambda files: Good(prediction.of_run, {"path": files.run, "backend": "reference"}),
    "prediction.of_weights": lambda files: Good(
        prediction.of_weights,
        {"path": files.weights, "network": "resnet20", "stride_in": None, "zero_channels": None},
    ),
    "prediction.predict": lambda files: Good(
        all_of(prediction.predict),
        {"classifier": files.classifier(), "paths": [files.picture], "batch_size": 2, "workers": 0},
    ),
    "prediction.read_classes": lambda files: Good(prediction.read_classes, {"path": files.classes}),
    "prediction.sheet": lambda files: Good(
        prediction.sheet, {"predictions": files.predictions(), "classifier": files.classifier()}
    ),
}  # fmt: skip
