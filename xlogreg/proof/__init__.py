"""The published numbers and the comparison with them; the doctor, which proves the same bits on this machine.

Training itself is `runs` and `solvers`.
"""
