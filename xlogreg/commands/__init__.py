"""The command line: the app, a module a command, and what it prints.

Nothing here computes: commands check what was asked for, call the rooms below and show what comes back.
"""
