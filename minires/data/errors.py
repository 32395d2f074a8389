"""The errors of data sets."""


class DataError(RuntimeError):
    """A data set that cannot be loaded: not found, not downloadable, empty."""


class DataPathError(DataError):
    """A path from the caller that is no folder."""


class DataFileError(DataError):
    """A broken file of a data set: truncated, corrupt, mislabelled."""
