"""The collate step of a DataLoader: it ties composing, chain and adversaries together.

Imports core to adversary.
"""
