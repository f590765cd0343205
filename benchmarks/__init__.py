"""What is measured, each with its peer or its limit in the same run. `python -m benchmarks` runs them all."""
