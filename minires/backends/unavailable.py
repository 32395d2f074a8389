"""The error of a backend that cannot be had."""


class BackendUnavailable(RuntimeError):
    """A backend that minires knows, but that is not part of this installation or cannot run on this machine."""
