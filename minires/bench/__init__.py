"""Benchmarks: the backends of minires beside PyTorch, onnxruntime and OpenVINO on this processor.

run          what a run measures, and the run itself
peers        the peers, the packages that they need, the environment of their processes
race         contenders in processes of their own that take turns
networks     whole networks: inference and training steps
layers       single convolutions: forward and both gradients
roofline     the processor's limits: matrix products and memory bandwidth
report       tables, goals and remarks
machine      the machine of a measurement
"""

from typing import TYPE_CHECKING

from minires._lazy import directory, loader

if TYPE_CHECKING:
    from minires.bench import layers, machine, networks, peers, race, report, roofline, run

__all__ = ["layers", "machine", "networks", "peers", "race", "report", "roofline", "run"]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(__all__, ""))
