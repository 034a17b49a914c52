"""Many picture files to many answers: which files, batches, threads and processes, output lines.

One picture is `models.classifier`.
"""
