"""Proofs: finite differences, a second implementation, planted bugs."""

from minires.verify.gradcheck import GradcheckError, gradcheck

__all__ = ["GradcheckError", "gradcheck"]
