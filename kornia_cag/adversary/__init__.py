"""Whatever makes a batch harder for the model that is being trained: its scenes, its pixels.

Imports core to scenes.
"""
