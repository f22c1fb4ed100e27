"""From rows to pictures: draw a scene from its ranges, then warp, blend, light and photograph it.

Imports core, banks and sampling.
"""
