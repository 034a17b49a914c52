"""Labelled sets: the built-in birds, CIFAR-10 (read, fetch), own folders and their cache, the task.

One picture file is `images`.
"""
