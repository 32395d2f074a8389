"""Looking into a network and into a run, all of it through observers of the tape."""

from minires.inspect.summary import Row, Summary, summary

__all__ = ["Row", "Summary", "summary"]
