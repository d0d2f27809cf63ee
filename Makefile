# Everything a person needs, each in one word. `make help` lists the words.
#
# The environment is .venv, made when it is first needed and again when pyproject.toml or
# constraints.txt change. Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# `$(call timed,WORD,COMMAND)`: the command, then how many seconds it took, whatever its outcome.
timed = start=$$(date +%s); code=0; $(2) || code=$$?; \
	echo "$(1): $$(($$(date +%s) - start)) s"; test $$code = 0 || exit $$code

.PHONY: help demo test test-slow fuzz chaos check format docs clean

help:
	@echo "make demo       set up .venv and run the main job, decent launch"
	@echo "make test       set up .venv and run the fast tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make fuzz       malformed frames by the million; make fuzz FRAMES=50000000 for as many"
	@echo "make chaos      500 faults in a real run of 6 workers, for each codec: 12 minutes"
	@echo "make check      ruff and mypy"
	@echo "make format     let ruff put the code into form"
	@echo "make docs       the documentation as HTML, in docs/_build/html"
	@echo "make clean      remove .venv, caches and built documentation; runs/ stays"

demo:
	@$(call timed,set-up,$(MAKE) --no-print-directory $(BASE))
	@$(call timed,run,$(BIN)/decent launch)

test:
	@$(call timed,set-up,$(MAKE) --no-print-directory $(DEV))
	@$(call timed,tests,$(BIN)/python -m pytest -m "not slow")

chaos: $(BASE)
	@for codec in exact bf16 fp16 int8 topk; do \
		$(BIN)/decent chaos --rate 5 --duration 100 --codec $$codec || exit $$?; done

test-slow: $(DEV)
	@$(call timed,slow tests,$(BIN)/python -m pytest -m slow)

FRAMES ?= 20000000
fuzz: $(DEV)
	@$(call timed,fuzz,FRAMES=$(FRAMES) $(BIN)/python -m pytest tests/fuzz -s --timeout 0)

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(DOCS)
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build build dist
	find decent tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Dependency groups need pip 25.1; the pip that comes with a Python is often older.
$(BASE): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "make: there is no $(PYTHON); decent needs Python 3.11 or newer." \
			"Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: decent needs Python 3.11 or newer, and $(PYTHON) is" \
			"$$($(PYTHON) -c 'import platform; print(platform.python_version())')." \
			"Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV): downloads PyTorch, which takes a minute or two"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "make: $(PYTHON) cannot make a virtual environment." \
			"On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) 'pip>=25.1'
	@$(PIP) -e .
	@touch $@

$(DEV): $(BASE)
	@$(PIP) -e . --group dev
	@touch $@

$(DOCS): $(BASE) docs/requirements.txt
	@$(PIP) -r docs/requirements.txt
	@touch $@
