"""Verification: finite differences, exact results, a second implementation, backends in lockstep, planted bugs."""

from minires._lazy import directory, loader
from minires.verify.gradcheck import GradcheckError, gradcheck

__all__ = ["GradcheckError", "gradcheck"]
__dir__ = directory(globals())
__getattr__ = loader(globals(), dict.fromkeys(("audit", "layers", "lockstep", "network", "recorded"), ""))
