"""The tester is tested: bugs planted one at a time, each of which the checks must catch.

mutation     a bug in a Python function: its source edited, compiled, and taken out again
operations   those bugs in the operations and the reference backend
layers       those in layers, blocks, folding, the optimiser and the schedules
campaign     one after the other, counted
"""

from minires.verify.planted.campaign import EXPECTED, Planted, Row, report
from minires.verify.planted.layers import LAYERS
from minires.verify.planted.mutation import Mutation, catch, caught_by
from minires.verify.planted.operations import OPERATIONS

__all__ = ["EXPECTED", "LAYERS", "OPERATIONS", "Mutation", "Planted", "Row", "catch", "caught_by", "report"]
