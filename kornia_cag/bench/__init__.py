"""Speed: timings, and the CPU loaders to compare with.

Imports core to training.
"""
