"""The mathematics, to be read in this order: elementary, exact, products, objective, reference.

Beside them stand the options of a training, and the arguments as they are checked. No kernel, no file, no picture:
arrays only.
"""
