"""The command line: options, subcommands, and the pictures and plots that they write.

Imports every other room, and no other room imports it.
"""
