"""How fast it is: timings, and the loaders on a CPU that it is held against.

Imports core to training.
"""
