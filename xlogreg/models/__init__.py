"""What was learned: the classifier (save, load, predict), its evaluation, its weights as pictures, export.

How it was learned is `runs`.
"""
