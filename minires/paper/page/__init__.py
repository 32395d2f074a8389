"""The paper as a page: prose on the left; code, recorded arrays and verdicts on the right.

outline      sections, equations, figures, tables, and what stands beside each
claims       what the paper claims, with the function that judges each claim
evidence     recorded runs and reproduced results that the verdicts rest on
derivations  the maths of each backward
diagrams     the gradient's path through Figures 2 and 5
rendering    all of it as one HTML file
"""

from minires.paper.page.evidence import Evidence, ResultError
from minires.paper.page.rendering import page

__all__ = ["Evidence", "ResultError", "page"]
