"""The collate step of a DataLoader, which ties together composing, chain and adversaries.

Imports core to adversary.
"""
