"""How good a model is: on real pictures, and under attack.

Imports core to loading.
"""
