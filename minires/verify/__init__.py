"""Proofs: finite differences, a second implementation, two backends in lockstep, planted bugs."""

from minires.verify.gradcheck import GradcheckError, gradcheck

__all__ = ["GradcheckError", "gradcheck"]
