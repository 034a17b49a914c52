"""The mathematics, to be read in this order: elementary, exact, reference; and the options and state of a training.

No kernel, no file, no picture: arrays only.
"""
