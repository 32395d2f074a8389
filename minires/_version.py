"""The installed version; its look-up is slow, so that it waits for the first use of `minires.__version__`."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("minires")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
