"""Making a batch harder for the model being trained, by its scenes or its pixels.

Imports core to scenes.
"""
