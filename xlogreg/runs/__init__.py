"""One training, kept and shown: from a task to models, checkpoints and resume, the run folder, plots, the report page.

What was learned is `models`; how weights move is `solvers`.
"""
