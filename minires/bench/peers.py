"""The peers of a race, the packages that they need, and the environment of their processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

# peer -> the packages that it needs
PEERS = {
    "torch": ("torch",),
    "torch.compile": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "reference": (),
}

TORCH, CHANNELS_LAST, TUNED = "torch", "torch channels_last", "torch channels_last, tuned"
COMPILED = "torch compiled"
CAPTURED = "native, captured"

# glibc keeps all memory.  By default it returns the pages of PyTorch's large arrays, which are zeroed in every step.
TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}

# Inductor folds batch norm and packs weights for inference, as onnxruntime and OpenVINO do.  Training is unaffected.
FREEZING = {"TORCHINDUCTOR_FREEZING": "1"}


def missing(peers: Iterable[str]) -> dict[str, str]:
    """peer -> why it is unavailable here.  Imports nothing."""
    reasons = {}
    for peer in peers:
        lacking = [package for package in PEERS[peer] if importlib.util.find_spec(package) is None]
        if lacking:
            are = "is" if len(lacking) == 1 else "are"
            reasons[peer] = f"{' and '.join(lacking)} {are} not installed (extra bench)"
    return reasons


def environment(threads: int, backend: str | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process in which every library computes with `threads` threads."""
    variables = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    variables["ONEDNN_DEFAULT_FPMATH_MODE"] = "STRICT"  # products and convolutions in float32, not in bfloat16
    return variables | ({"MINIRES_BACKEND": backend} if backend else {}) | dict(more or {})
