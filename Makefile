SHELL := /bin/bash

# make install packages into .venv, nothing else
# make demo    train on synthetic scans and segment one that was not seen, in minutes, on a CPU
# make test    lint, types, tests; TESTS="not slow" chooses among them by their marks
# make faults [KILLS=100 DISKS=20 SEED=0]   kill commands and fill their disks; CONTRIBUTING.md
# make coverage   the same tests, slower, with the lines that none of them reaches
# make monailabel [WEIGHTS=path]   build MONAI Label's environment and an app around the bundle, print how to start it
# make fuzz [N=10000 SEED=0]   changed inputs for every reader: counts by class, findings, peak memory, slowest input
# make clean   remove what these made, but not results under out/
#
# make locks   write locks/ anew: the pins of constraints*.txt with the hash of every file (renewal: CONTRIBUTING.md)
# make audit   known vulnerabilities of what locks/ pins
# make sbom, make licences   lists of what .venv holds, in out/; the latter fails on a GPL, LGPL, AGPL or no licence
#
# Everything runs in .venv, which is made from the pins in constraints.txt. pip takes torch from its default index;
# TORCH_INDEX=URL takes it from another one (a CPU or CUDA build, docs/installation.md says how to choose).
# LOCKED=1 installs files only whose hash stands in locks/; a torch of TORCH_INDEX is pinned by its version alone.

PYTHON ?= python3
LABEL_PYTHON ?= $(PYTHON)
TESTS ?=
COVERAGE ?=
KILLS ?= 100
DISKS ?= 20
SEED ?= 0
N ?= 10000
TORCH_INDEX ?=
LOCKED ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
TORCH_FROM := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
PIP_LOCKED := -m pip install --quiet --require-hashes --no-deps
DEMO := out/demo
BUNDLE := $(BIN)/python -m monai.bundle run

# The MONAI Label server lives in an environment of its own (requirements-monailabel.txt says why).
LABEL_VENV := .venv-monailabel
LABEL_BIN := $(LABEL_VENV)/bin
LABEL_INSTALL := $(LABEL_BIN)/python -m pip install --quiet --constraint constraints-monailabel.txt
WEIGHTS ?= $(firstword $(wildcard models/model.pt) $(DEMO)/model/model.pt)

# Tools that look at the environments from outside, in one of their own.
TOOLS := .venv-tools/bin
LOCK := $(TOOLS)/uv --no-config pip compile --quiet --upgrade --generate-hashes --no-annotate --custom-compile-command "make locks"
LOCK_MAIN := $(LOCK) --universal --python-version 3.11 --constraint constraints.txt
LOCK_LABEL := $(LOCK) --python-version 3.11.9 --python-platform linux --constraint constraints-monailabel.txt
# torch and the CUDA libraries that its default build brings are locked apart: another build has others.
NOT_TORCH = $$(sed -nE 's/^(torch|triton|(cuda|nvidia)-[a-z0-9-]+)==.*/--no-emit-package \1/p' locks/torch.txt)

.PHONY: install demo test lint types pytest coverage faults fuzz monailabel locks audit sbom licences clean

# torch goes first and alone: what comes after finds it and does not bring another build.
$(VENV)/ready: requirements.txt requirements-core.txt requirements-train.txt requirements-dicom.txt requirements-openvino.txt constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python is too old; expected: 3.11 or newer (make PYTHON=...)')"
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/python $(PIP_LOCKED) --requirement locks/requirements.txt $(if $(TORCH_INDEX),,--requirement locks/torch.txt)
	$(if $(TORCH_INDEX),$(PIP_INSTALL) $(TORCH_FROM) torch)
	$(BIN)/python -m pip check
else
	$(PIP_INSTALL) $(TORCH_FROM) torch
	$(PIP_INSTALL) --requirement requirements.txt
endif
	touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	$(if $(LOCKED),$(BIN)/python $(PIP_LOCKED) --requirement locks/requirements-dev.txt,$(PIP_INSTALL) --requirement requirements-dev.txt)
	touch $@

install: $(VENV)/ready

# Trains on synthetic scans, then evaluates, segments and draws two that the network has not seen.
demo: $(VENV)/ready
	mkdir -p $(DEMO)
	set -o pipefail; { set -e; \
	  $(BIN)/python -m scripts phantom $(DEMO)/scans --cases 24 --overwrite; \
	  $(BIN)/python -m scripts prepare $(DEMO)/scans $(DEMO)/data --overwrite; \
	  $(BUNDLE) training --dataset_dir $(DEMO)/data --output_dir $(DEMO)/model --overwrite true --config_file \
	    "['configs/train.yaml','configs/presets/cpu.yaml','configs/presets/demo.yaml']"; \
	  $(BIN)/python -m scripts phantom $(DEMO)/new_scans --cases 2 --seed 2022 --overwrite; \
	  $(BIN)/python -m scripts prepare $(DEMO)/new_scans $(DEMO)/new_data --folds 2 --overwrite; \
	  $(BUNDLE) evaluation --config_file "['configs/train.yaml','configs/evaluate.yaml']" --split all \
	    --dataset_dir $(DEMO)/new_data --checkpoint $(DEMO)/model/model.pt --output_dir $(DEMO)/tables \
	    --voxel_size_known true --overwrite true; \
	  $(BUNDLE) inference --config_file configs/inference.yaml --dataset_dir $(DEMO)/new_data/images \
	    --checkpoint $(DEMO)/model/model.pt --output_dir $(DEMO)/masks --overwrite true; \
	  $(BIN)/python -m scripts preview $(DEMO)/new_data/images/phantom_001.nii.gz \
	    $(DEMO)/masks/phantom_001_infection.nii.gz $(DEMO)/preview.png \
	    --truth $(DEMO)/new_data/labels/phantom_001.nii.gz --overwrite; \
	} 2>&1 | tee $(DEMO)/log.txt
	@grep "Dice:" $(DEMO)/log.txt
	@echo "Look at $(DEMO)/preview.png; masks in $(DEMO)/masks, tables in $(DEMO)/tables, all of it in $(DEMO)/log.txt."

$(DEMO)/model/model.pt:
	$(MAKE) demo

monailabel: $(LABEL_VENV)/ready $(WEIGHTS)
	$(LABEL_BIN)/python -m scripts monai_label assemble "$(WEIGHTS)"

$(LABEL_VENV)/ready: requirements-core.txt requirements-train.txt requirements-openvino.txt requirements-monailabel.txt constraints-monailabel.txt
	$(LABEL_PYTHON) -m venv $(LABEL_VENV)
ifdef LOCKED
	$(LABEL_BIN)/python $(PIP_LOCKED) --requirement locks/requirements-monailabel.txt $(if $(TORCH_INDEX),,--requirement locks/torch.txt)
	$(if $(TORCH_INDEX),$(LABEL_INSTALL) $(TORCH_FROM) torch)
else
	$(LABEL_INSTALL) $(TORCH_FROM) torch
endif
	$(LABEL_INSTALL) $(TORCH_FROM) --no-deps torchvision
	$(if $(LOCKED),,$(LABEL_INSTALL) --requirement requirements-monailabel.txt)
	$(LABEL_BIN)/python scripts/monai_label/torchvision_on_cpu.py
	touch $@

test: lint types pytest

fuzz: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run $(N) --seed $(SEED)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready-dev
	$(BIN)/mypy

pytest: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "$(TESTS)" $(COVERAGE)

coverage:
	$(MAKE) pytest COVERAGE="--cov --cov-report=term-missing:skip-covered"

faults: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.campaign --kills $(KILLS) --disks $(DISKS) --seed $(SEED)

$(TOOLS)/ready: locks/requirements-tools.txt
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python $(PIP_LOCKED) --requirement $<
	touch $@

locks: $(TOOLS)/ready
	echo torch | $(LOCK_MAIN) - --output-file locks/torch.txt
	$(LOCK_MAIN) $(NOT_TORCH) requirements.txt --output-file locks/requirements.txt
	$(LOCK_MAIN) $(NOT_TORCH) requirements-dev.txt --output-file locks/requirements-dev.txt
	$(LOCK_LABEL) $(NOT_TORCH) --no-emit-package torchvision requirements-monailabel.txt --output-file locks/requirements-monailabel.txt
	$(LOCK) --universal --python-version 3.11 requirements-tools.txt --output-file locks/requirements-tools.txt

audit: $(TOOLS)/ready
	for lock in torch requirements-dev requirements-monailabel; do \
	  $(TOOLS)/pip-audit --strict --disable-pip --require-hashes --requirement locks/$$lock.txt || failed=1; done; [ -z "$$failed" ]

sbom: $(VENV)/ready $(TOOLS)/ready
	mkdir -p out
	$(TOOLS)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file out/sbom.json

licences: $(VENV)/ready $(TOOLS)/ready
	mkdir -p out
	$(TOOLS)/pip-licenses --python $(BIN)/python --from mixed --format csv --output-file out/licences.csv \
	  --partial-match --fail-on "GPL;General Public;UNKNOWN"

clean:
	rm -rf $(VENV) $(LABEL_VENV) .venv-tools .coverage .mypy_cache .pytest_cache .ruff_cache
