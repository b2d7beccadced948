.PHONY: lint types test-fast test docs

lint:
	ruff check .
	ruff format --check .

types:
	mypy

# A process per core with one thread each; each takes half of the modules in order, and then what is left of the other.
test-fast:
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow and not realdata"

test:
	python -m pytest

docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
