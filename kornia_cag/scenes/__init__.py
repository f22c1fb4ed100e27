"""From rows to pictures: ranges are drawn into a scene, and a scene is warped, blended, lit and photographed.

Imports core, banks and sampling.
"""
