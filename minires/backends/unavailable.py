"""The error of a backend that cannot be had, and the check that CuPy can be."""

from types import ModuleType


class BackendUnavailable(RuntimeError):
    """Raised for a backend that this installation lacks or that cannot run on this machine."""


def usable_cupy() -> ModuleType:
    """CuPy on a machine with a usable GPU; BackendUnavailable without either."""
    try:
        import cupy
    except ImportError:
        raise BackendUnavailable(
            "CuPy is not installed: pip install 'minires[cuda12x]' or 'minires[cuda13x]'"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendUnavailable(f"CuPy is installed, but there is no usable GPU or driver: {error}") from None
    if count == 0:
        raise BackendUnavailable("CuPy is installed, but there is no GPU")
    module: ModuleType = cupy
    return module
