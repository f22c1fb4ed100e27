"""What every room stands on: checks and errors, counter-based draws, formats, compiling, memory, files.

Imports no other room.
"""
