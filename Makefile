# `make demo` and `make test` need Python >= 3.11 and make; everything else is set up here, in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Tests start thousands of processes, and each would compile what it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test setup lint types arch bench fuzz site clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tracefork-otel needs Python >= 3.11: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[backend,auto,mcp]" --group dev
	@touch $@

demo: setup
	@$(BIN)/tracefork-otel demo

test: setup
	$(BIN)/python -m pytest -n auto

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

arch: setup
	$(BIN)/lint-imports

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# A million inputs a target (dear ones fewer, by what one costs): make fuzz N=10000, make fuzz TARGETS="wal tape".
fuzz: setup
	cd tests && PYTHONHASHSEED=0 ../$(BIN)/python -m fuzz --runs $(or $(N),1000000) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(TARGETS)

# The documentation in site/, for any web server; a link that leads nowhere fails.
site: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group docs
	$(BIN)/zensical build --strict --clean

clean:
	rm -rf .venv .pytest_cache .ruff_cache site
