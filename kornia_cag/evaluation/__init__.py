"""Measuring a model: on real pictures, and under attack.

Imports core to loading.
"""
