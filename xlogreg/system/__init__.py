"""Files, locks, signals, text, threads, checks of arguments, names of run files: what any program needs.

It knows no pictures and no training.
"""
