"""What is fast, measured: our backends beside PyTorch, onnxruntime and OpenVINO on the processor at hand.

race         sides in processes of their own that take turns
sides        who may take part, and what each needs
networks     whole networks: inference and training steps
layers       single convolutions: forward and both gradients
limits       what this processor can do at best: products of matrices, memory
plan         what a run measures, and the run
report       its tables and goals
machine      what it was measured on
"""

from typing import TYPE_CHECKING

from minires._lazy import directory, loader

if TYPE_CHECKING:
    from minires.bench import layers, limits, machine, networks, plan, race, report, sides

__all__ = [
    "layers",
    "limits",
    "machine",
    "networks",
    "plan",
    "race",
    "report",
    "sides",
]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(__all__, ""))
