"""Tests the checks by planted bugs: edits of the source, made one at a time, each of which the checks must catch.

mutation     plants a bug in a Python function: edits and compiles its source, and restores it
operations   list of bugs in the operations and the reference backend
layers       list of bugs in layers, blocks, folding, the optimiser and the schedules
campaign     plants all bugs, one after the other, and counts the ones caught
"""

from minires.verify.planted.campaign import EXPECTED, Planted, Row, report
from minires.verify.planted.layers import LAYERS
from minires.verify.planted.mutation import Mutation, catch, caught_by
from minires.verify.planted.operations import OPERATIONS

__all__ = ["EXPECTED", "LAYERS", "OPERATIONS", "Mutation", "Planted", "Row", "catch", "caught_by", "report"]
