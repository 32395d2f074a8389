"""Verification: finite differences, a second implementation, two backends in lockstep, planted bugs."""

from minires._lazy import directory, loader
from minires.verify.gradcheck import GradcheckError, gradcheck

__all__ = ["GradcheckError", "gradcheck"]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(("layers", "lockstep", "network", "recorded"), ""))
