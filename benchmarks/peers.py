"""The speed of xlogreg beside its peers: `python benchmarks/peers.py` is `xlogreg benchmark --peers`."""

import sys

from xlogreg.commands.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["benchmark", "--peers"]
    main()
