.PHONY: lint types test-fast test docs

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test-fast:
	python -m pytest -m "not slow and not realdata"

test:
	python -m pytest

docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
