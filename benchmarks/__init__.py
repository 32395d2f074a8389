"""What is timed, side by side with peers; `results/` holds the tables that these commands wrote."""
