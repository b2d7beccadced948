.PHONY: lint types test-fast test docs

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test-fast:
	OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not slow and not realdata"

test:
	python -m pytest

docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
