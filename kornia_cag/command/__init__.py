"""The command line: options, subcommands, and the pictures and plots it writes.

Imports every other room, and no other room imports it.
"""
