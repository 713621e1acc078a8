"""Benchmarks of loss + gradient: fastloss beside what else computes them on a CPU."""

GAMMA = 0.99  # of the TD loss; all other parameters have the defaults, which are the same everywhere
