"""Which object meets which context: random biregular graphs, dealt out as rows in balanced order.

Imports core and banks.
"""
