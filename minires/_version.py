"""The installed version; looked up at the first use of `minires.__version__`, because the look-up is slow."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("minires")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
