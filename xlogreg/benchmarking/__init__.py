"""Speed against peers, in one run, with the answer checked before the time is taken.

`contestants` says who takes part, `problems` on what, `worker` runs one of them in a process of its own, `rounds` lets
them take turns, `cpu` and `gpu` measure what a device can do at best, `report` writes the saved JSON as table and plot.
"""
