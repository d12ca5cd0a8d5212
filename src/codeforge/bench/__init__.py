"""Measuring runs against what else could run the same programs; ``codeforge bench`` and benchmarks/."""
