# Shortcuts; everything works without make (see README.md).
PYTHON ?= python3
VENV = .venv/bin

.PHONY: reproduce test lint
$(VENV)/xlogreg: pyproject.toml
	$(PYTHON) -m venv .venv && $(VENV)/pip install -q -e '.[dev]' && touch $@

reproduce: $(VENV)/xlogreg
	$(VENV)/xlogreg reproduce

test: $(VENV)/xlogreg
	$(VENV)/python -m pytest

lint: $(VENV)/xlogreg
	$(VENV)/ruff check && $(VENV)/mypy
