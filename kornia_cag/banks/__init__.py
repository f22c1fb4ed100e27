"""Objects and contexts: read from files or generated, fitted, and kept as mip pyramids on one device.

Imports core.
"""
