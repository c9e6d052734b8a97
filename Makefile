# Needs make and Python 3.11 or newer, nothing else. Everything is installed into .venv, once.
# `make test ARGS="-k gate -x"` passes arguments on to pytest, as `make demo ARGS=--keep` does; PYTHON=... picks the interpreter.

BIN := .venv/bin
INSTALLED := .venv/installed
RIVALS := .venv/rivals/installed
SCHEMATHESIS := .venv/schemathesis/installed

.PHONY: demo test check bench faults openapi clean

demo: $(INSTALLED)
	@$(BIN)/presend demo $(ARGS)

test: $(INSTALLED)
	@$(BIN)/python -m compileall -q worker tasks tests  # once, not in each of the hundreds of processes
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check worker tasks migrations tests
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED) $(RIVALS)
	$(BIN)/python -m tests.benchmarks $(PART)

faults: $(INSTALLED)
	$(BIN)/python -m tests.faults $(PART)

openapi: $(INSTALLED) $(SCHEMATHESIS)
	$(BIN)/python -m tests.openapi  # CASES=50 to try

clean:
	rm -rf .venv .presend .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "presend needs Python 3.11 or newer, and none was found: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; \
	fi; \
	echo "Installing presend into .venv with $$python, once"; \
	"$$python" -m venv --clear .venv && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' && \
	touch $@

$(RIVALS): tests/benchmarks/rivals/requirements.txt $(INSTALLED)
	$(BIN)/python -m venv --clear .venv/rivals
	.venv/rivals/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(SCHEMATHESIS): tests/openapi/requirements.txt $(INSTALLED)
	$(BIN)/python -m venv --clear .venv/schemathesis
	.venv/schemathesis/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@
