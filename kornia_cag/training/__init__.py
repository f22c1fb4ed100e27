"""The recipes, their networks and the loop that trains them.

Imports core to evaluation.
"""
