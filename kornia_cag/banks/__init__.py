"""Objects and contexts: read from files or made, fitted, and kept as mip pyramids on one device.

Imports core.
"""
