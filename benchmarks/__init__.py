"""Measurements beside peers; `results/` holds the numbers that these commands stored."""
