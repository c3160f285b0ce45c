"""Ablations: arms that differ in one thing, a few seeds each, one table, one plot."""
