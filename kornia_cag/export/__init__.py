"""Composites and their targets as files of the formats that other programs read.

Imports core to loading.
"""
