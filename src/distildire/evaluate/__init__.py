"""How good a detector is: figures with intervals, reports, robustness. Extra `eval`."""
