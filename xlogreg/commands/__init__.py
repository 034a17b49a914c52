"""The commands of the command line, one module each; `xlogreg.cli` puts them together."""
