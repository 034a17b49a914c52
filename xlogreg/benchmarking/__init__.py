"""Speed against peers, in one run, with the answer checked before the time is taken.

`contestants` says who takes part, `worker` runs one of them in a process of its own, `rounds` lets them take turns,
`limits` measures what the machine can do at best, `report` makes table and plot. Plots and tables read the saved JSON.
"""
