# Two commands: `make demo` runs the main job, `make test` runs the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TESTED := $(VENV)/.installed-for-tests
DEMO   := demo
SYNC   := UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact
# without cached bytecode every process compiles what it imports: several seconds for MLflow and matplotlib
export PYTHONDONTWRITEBYTECODE :=
# a file stays on one worker, so that what it sets up is set up once
WORKERS := -n 2 --dist loadfile
# slow tests wait much of their time for servers, deadlines and Spark
WAITING := -n 3 --dist loadfile

.PHONY: demo test test-slow check lint types test-oldest ui performance clean

# the lock file holds exact versions and hashes for Python 3.11, 3.12 and 3.13
$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("explain-step needs Python >= 3.11; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(SYNC) --extra all --group dev --python $(BIN)/python
	$(BIN)/explain-step warm
	touch $@

# the other extras too: Spark and the exports to other formats
$(TESTED): $(STAMP)
	$(SYNC) --all-extras --group dev --group bench --python $(BIN)/python
	touch $@

# MLflow's bars for every small file say nothing here
demo: export MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR := false
demo: $(STAMP)
	$(BIN)/python examples/01_train_and_explain.py --store $(DEMO)

ui: $(STAMP)
	$(BIN)/mlflow server --backend-store-uri sqlite:///$(DEMO)/mlflow.db --host 127.0.0.1 --port 5000 --workers 1

test: $(TESTED) lint types
	$(BIN)/pytest $(WORKERS) -m "not slow"

# examples, servers, processes that are killed, whole projects in processes of their own, MLflow's own evaluation
test-slow: $(TESTED)
	$(BIN)/pytest $(WAITING) -m slow

check: test test-slow test-oldest

lint: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TESTED)
	$(BIN)/mypy

# simulations and enumerations of our own formulas, and rules that are read off the source: the versions of libraries do not
# matter to them
NUMBERS := $(foreach name,growing intervals_coverage metric_influence noise_correction segment_intervals,\
  --ignore tests/analytic/test_$(name).py) --ignore tests/properties/test_verify_mutations.py \
  --ignore tests/architecture

# the oldest supported version of every direct dependency
# Numba keeps the kernels of one version only: without a folder of its own, each environment recompiles after the other
test-oldest: export NUMBA_CACHE_DIR := $(CURDIR)/.venv-oldest/numba
test-oldest: $(STAMP)
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python -r requirements/oldest.txt
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --no-deps --editable .
	# old releases warn about newer transitive ones, so warnings are not errors here; the server gate needs MLflow 3.17
	.venv-oldest/bin/pytest $(WORKERS) -m "not slow or oldest" -o filterwarnings=default --ignore tests/integration/test_page_in_browser.py \
	  --ignore tests/integration/test_mlflow_ui.py --ignore tests/integration/test_gate_in_browser.py \
	  --ignore-glob 'tests/integration/test_server_*.py' --ignore tests/integration/test_promotion_gated.py $(NUMBERS)

# a quarter of an hour on two quiet cores. Each rival has a Python of its own: XGBOOST (>= 3.4), WOODELF, SHAPASH, DASHBOARD
RESULTS := benchmarks/results
TREES := benchmarks/tree_engine.py --rows 50000 --woodelf-python $(WOODELF) --xgboost-python $(XGBOOST)
performance: $(TESTED)
	$(BIN)/python $(TREES) --save $(RESULTS)/tree_engine_15.json
	$(BIN)/python $(TREES) --features 50 --save $(RESULTS)/tree_engine_50.json
	$(BIN)/python benchmarks/black_box.py --model mlp --rows 40 --save $(RESULTS)/black_box_mlp.json
	$(BIN)/python benchmarks/black_box.py --model svm --rows 16 --most 100 --save $(RESULTS)/black_box_svm.json
	$(BIN)/python benchmarks/peers/run.py --cached --shapash-python $(SHAPASH) --dashboard-python $(DASHBOARD) --save $(RESULTS)/peers.json
	$(BIN)/python benchmarks/memory.py --save $(RESULTS)/memory.json
	$(BIN)/python benchmarks/performance_page.py

clean:
	rm -rf $(VENV) .venv-oldest $(DEMO)
