"""Exercises: write an operation's backward and learn which mistake is in it.

check       checks a function; `minires exercise NAME FILE` checks a file
names       the exercises, in a path from easy to hard
Result      passed, misconception, message
"""

from minires._lazy import directory
from minires.exercises import checking
from minires.exercises.checking import check, names
from minires.exercises.result import Result

__all__ = ["Result", "check", "checking", "names"]
__dir__ = directory(globals())
