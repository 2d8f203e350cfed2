# One command for each act. All set-up is in .ci/prepare.py and takes a moment when it is done already.
#     PYTHON=python3.11   the interpreter to make .venv with
#     PORT=8890           another port for the lab
#     SYSTEM=1            let `make test` and `make lab-slurm` install the system packages of system-packages.txt and create
#                         users; those of the tests are removed at their end
#     SITE=FILE           another site file for `make lab-slurm`
#     PYTEST_ARGS=...     words for pytest, for example PYTEST_ARGS="-k lake -x"
PYTHON ?= python3
# exec, so that Ctrl-C and SIGTERM reach the command itself and no shell stands between.
PREPARE = $(FOUND) exec $(PYTHON) .ci/prepare.py
FOUND = command -v $(PYTHON) >/dev/null || { echo "Error: $(PYTHON) is not installed. Install Python 3.11 or newer (Debian 12: \
apt install python3.11 python3.11-venv), or name another one: make PYTHON=python3.11" >&2; exit 1; };
SPHINX = -m sphinx -q -W --keep-going -b html docs docs/_build/html

.PHONY: help lab lab-slurm test lint format docs bench notebooks clean
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

lab:  ## set everything up and open the lab behind its hub on 127.0.0.1 (PORT=8890 for another port)
	@$(PREPARE) hub -- -m phidias_lab lab --hub $(if $(PORT),--port $(PORT))

lab-slurm:  ## as root: a Slurm on this host, users, and the hub before them on 127.0.0.1 (SYSTEM=1 creates the users)
	@export PYTHONPATH=$(CURDIR)/hub-config; $(PREPARE) dev --system -- -m slurm_lab lab $(if $(SITE),--site $(SITE))

# More workers than processors, because many tests wait; one thread each for linear algebra, or those would be too many.
test:  ## set everything up and run all tests (SYSTEM=1 installs the system packages they need)
	@export OPENBLAS_NUM_THREADS=1; $(PREPARE) dev --system -- -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

lint:  ## check style and the direction of imports
	@$(PREPARE) dev -- -m ruff check .
	@$(PREPARE) dev -- -m ruff format --check .
	@$(PREPARE) dev -- -c 'from importlinter.cli import lint_imports_command as check; check()'

format:  ## write the code in the house's style
	@$(PREPARE) dev -- -m ruff check --fix .
	@$(PREPARE) dev -- -m ruff format .

docs:  ## build the documentation into docs/_build/html, offline, warnings are errors
	@$(PREPARE) dev -- $(SPHINX)

bench:  ## run the benchmarks, one after the other
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; ( $(PREPARE) dev -- $$file ) || exit 1; done

notebooks:  ## run every notebook from top to bottom on the demo lake; their files stay as they are
	@$(PREPARE) dev -- -m phidias_lab lake build-demo
	@$(PREPARE) dev -- -m jupyter execute $$(find notebooks -name '*.ipynb' -not -path '*/.*' | sort)

clean:  ## remove what builds and tests have written (.venv stays)
	rm -rf docs/_build docs/chains docs/commands docs/notebooks build dist test-artefacts .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
