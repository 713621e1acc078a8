"""Benchmarks of loss + gradient: fastloss beside what else computes them on a CPU."""
