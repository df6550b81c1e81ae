# The whole artefact as a DAG of files over papermill. `make help` lists what there is to ask for.
# Every step may be interrupted: what is finished stays, what was begun resumes, and nothing half-made carries its name.

# A variable that is empty in the environment is unset. nproc answers OMP_NUM_THREADS where that is set.
default = $(if $(strip $($(1))),,$(eval $(1) := $(2)))
$(call default,PROFILE,digits)
$(call default,JOBS,$(shell env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))
$(call default,PYTHON3,python3)
$(call default,WORKERS,1)
$(call default,ROWS,5)
SCHEDULER ?=
RETRAIN ?=
LAB_ARGS ?=

define newline


endef

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(JOBS)
endif

# One thread per job: the jobs share the cores, and sums are in the same order whoever runs beside them.
export OMP_NUM_THREADS ?= 1
export PYTHONHASHSEED := 0
# glibc keeps what torch frees: a page that comes back from the system is cleared first, which takes as long as computing it.
export MALLOC_TRIM_THRESHOLD_ ?= 2147483647
export MALLOC_MMAP_THRESHOLD_ ?= 2147483647
export MALLOC_ARENA_MAX ?= 1

# What make makes lies in this checkout, where it looks for it.
override SRS_ROOT :=
export SRS_ROOT
ASK := SRS_ROOT= "$(PYTHON3)" -m

# uv reads no variable of pip's, and needs a home to write to.
ifneq ($(PIP_INDEX_URL),)
ifeq ($(UV_DEFAULT_INDEX)$(UV_INDEX_URL),)
export UV_DEFAULT_INDEX := $(value PIP_INDEX_URL)
endif
endif
ifneq ($(shell test -d "$${HOME:-}" -a -w "$${HOME:-}" && echo yes),yes)
export HOME := $(CURDIR)/data/home
endif

# Inside the conda environment of environment.yml that one is used; otherwise .venv is made from the lock file.
ifeq ($(CONDA_DEFAULT_ENV),srs)
PY  := python
ENV := .conda-ready
SHARE := $(CONDA_PREFIX)/share/jupyter
else
PY  := .venv/bin/python
ENV := .venv/ready
SHARE := $(CURDIR)/.venv/share/jupyter
endif

# That environment's kernel, before another that calls itself python3.
export JUPYTER_PATH := $(SHARE)$(if $(JUPYTER_PATH),:$(JUPYTER_PATH))

WORK  := data/$(PROFILE)
NB    := $(WORK)/notebooks
SHOWN := figures/$(PROFILE)
ifneq ($(shell "$(PYTHON3)" -c 'import sys; sys.stdout.write(str(sys.version_info >= (3, 11)))'),True)
$(error PYTHON3=$(PYTHON3) is refused: want Python 3.11 or newer)
endif
ANSWERS := $(shell $(ASK) srs.profiles "$(PROFILE)")
answer = $(patsubst $(1)=%,%,$(filter $(1)=%,$(ANSWERS)))
RUNS := $(call answer,run)
ifeq ($(RUNS),)
$(error PROFILE=$(PROFILE) is refused: want one of $(call answer,profile))
endif
NOTEBOOKS := $(call answer,notebook)
REPORT := $(filter 90_report,$(NOTEBOOKS))

.PHONY: all tables bench quickstart soundness verify check test test-code test-notebooks test-long lab docs help readme clean distclean lost
.PRECIOUS: $(NB)/10_train-%.ipynb $(NB)/20_certify-%.ipynb $(NB)/%.ipynb

all: $(if $(REPORT),$(SHOWN)/report.html,$(NOTEBOOKS:%=$(NB)/%.ipynb))  ## train, certify, and make every table and figure (default)
	@echo "$(PROFILE): everything is up to date; open $<"

# ---------------------------------------------------------------------------------------------- environment

.venv/ready: requirements.lock
	rm -rf .venv
	"$(PYTHON3)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	.venv/bin/python -m uv pip install --quiet --compile-bytecode --require-hashes --python .venv/bin/python -r requirements.lock
	.venv/bin/python -m uv pip install --quiet --no-deps --no-build-isolation --offline --python .venv/bin/python --editable .
	touch $@

.conda-ready: environment.yml
	python -c "import jupyterlab, papermill, srs, torch" && touch $@

# ---------------------------------------------------------------------------------------------- experiment

# Papermill only warns of an unknown parameter; the notebooks' first cell refuses it. A run goes to a temporary name.
# Papermill takes the shell's place, so that the signal by which make ends reaches it; its kernel ends when it is gone.
define execute
@mkdir -p $(dir $(2))
@echo "$(notdir $(2))   (done: $$(ls $(NB) | grep -vc part || true) of $(words $(CERTIFIED) $(CERTIFIED) $(EXPLICIT) $(EXPLICIT) $(NOTEBOOKS)) notebooks)"
@SRS_MAKE=1 exec $(PY) -m papermill --no-progress-bar --log-level WARNING --stderr-file /dev/stderr -k python3 --cwd . notebooks/$(1).ipynb $(2).part.ipynb -p profile $(PROFILE) $(3) 2> >(grep --line-buffered -v -e "running over TCP without encryption" -e "KeyboardInterrupt caught in kernel" >&2)
@mv $(2).part.ipynb $(2)
endef
papermill = $(call execute,$(1),$@,$(2))

# An executed notebook stands for its results: where one of these is gone or cut short, the notebook is run again.
$(call answer,lost): lost

# Who shares images and methods.
SHARED := -p workers $(WORKERS) $(if $(SCHEDULER),-p scheduler "$(SCHEDULER)")

# A run id is MODEL-sSIGMA-RECIPE.
part = $(word $(2),$(subst -, ,$(1)))
run_parameters = -p model $(call part,$*,1) -p sigma $(patsubst s%,%,$(call part,$*,2)) -p recipe $(call part,$*,3)

TRAIN   := srs/data.py $(wildcard srs/deq/*.py srs/training/*.py)
SAMPLE  := $(TRAIN) $(wildcard srs/smoothing/*.py)
ANALYSE := srs/store.py $(wildcard srs/analysis/*.py)

# Settings of the profile as a file that is touched only when they change: another profile's edit remakes nothing here.
SETTINGS := $(WORK)/settings.json
$(SETTINGS): srs/profiles.py srs/settings.py
	@$(ASK) srs.profiles $(PROFILE) settings

$(NB)/10_train-%.ipynb: notebooks/10_train.ipynb $(TRAIN) $(SETTINGS) | $(ENV)
	$(call papermill,10_train,$(run_parameters) -p retrain $(if $(RETRAIN),True,False))

$(NB)/20_certify-%.ipynb: notebooks/20_certify.ipynb $(NB)/10_train-%.ipynb $(SAMPLE) $(SETTINGS) | $(ENV)
	$(call papermill,20_certify,$(run_parameters) $(SHARED))

CERTIFIED := $(foreach run,$(RUNS),$(NB)/20_certify-$(run).ipynb)
EXPLICIT  := $(foreach run,$(call answer,explicit),$(NB)/20_certify-$(run).ipynb)

# Notebook NN_x is made by srs/experiments/x.py; below stands what else it needs, and with which parameters it is run.
notebook = $(patsubst %,$(NB)/%.ipynb,$(1))

$(call notebook,00_quickstart): $(NB)/10_train-SMALL-s0.50-paper.ipynb $(SAMPLE)
$(call notebook,30_certified_accuracy 31_consistency 40_soundness): $(CERTIFIED)
$(call notebook,30_certified_accuracy 31_consistency): srs/experiments/summary.py
$(call notebook,40_soundness): srs/experiments/simulation.py
$(call notebook,32_ablations): $(NB)/20_certify-SMALL-s0.50-paper.ipynb $(SAMPLE)
$(call notebook,33_attacks): $(CERTIFIED) $(SAMPLE) $(wildcard srs/attacks/*.py)
$(call notebook,34_white_box): $(NB)/10_train-SMALL-s0.12-paper.ipynb $(SAMPLE) $(wildcard srs/attacks/*.py)
$(call notebook,36_explicit): $(CERTIFIED) $(EXPLICIT)
$(call notebook,41_speed): $(CERTIFIED) $(SAMPLE)
$(call notebook,05_method 35_imagenet): srs/profiles.py srs/settings.py
$(call notebook,80_coverage): $(call notebook,$(filter-out 80_coverage 90_report,$(NOTEBOOKS))) $(wildcard data/published/*.csv)  # it looks at what all the others left
PARAMETERS_32_ablations := $(SHARED) -p training $(call answer,trains_more)
PARAMETERS_33_attacks := $(SHARED)

define module_of
$(call notebook,$(1)): srs/experiments/$(shell echo $(1) | cut -c4-).py

endef
$(eval $(foreach n,$(filter-out 10_train 20_certify 90_report,$(patsubst notebooks/%.ipynb,%,$(wildcard notebooks/*.ipynb))),$(call module_of,$(n))))

$(NB)/%.ipynb: notebooks/%.ipynb $(ANALYSE) | $(ENV)
	$(call papermill,$*,$(PARAMETERS_$*))

# The report of digits opens with CIFAR-10's tables, made from tracked counts.
STORED := $(patsubst %,figures/%/paper_distance.csv,cifar10_long cifar10_fixed cifar10)
$(SHOWN)/report.html: notebooks/90_report.ipynb $(addprefix srs/experiments/,report.py report.html summary.py) $(NB)/80_coverage.ipynb \
    $(if $(filter digits,$(PROFILE)),$(STORED)) | $(ENV)
	$(call execute,90_report,$(NB)/90_report.ipynb,)

$(STORED): figures/%/paper_distance.csv: $(wildcard data/results/cifar10*/*/*) $(ANALYSE) $(wildcard srs/experiments/*.py) | $(ENV)
	$(PY) -m srs show --profile $* $(if $(filter cifar10_long,$*),--brief)

# ---------------------------------------------------------------------------------------------- to ask for

quickstart: $(NB)/00_quickstart.ipynb  ## one image certified by RS and by SRS
soundness: $(NB)/40_soundness.ipynb  ## which rule's certificates hold
bench: $(foreach run,$(filter SMALL-s0.50-%,$(RUNS)),$(NB)/10_train-$(run).ipynb) | $(ENV)  ## cost of votes and certificates beside the released code's, into data/results
	$(foreach run,$(filter SMALL-s0.50-%,$(RUNS)),$(PY) -m srs bench --ship --profile $(PROFILE) --recipe $(call part,$(run),3)$(newline))

tables: | $(ENV)  ## tables and figures from stored counts, without a network
	$(PY) -m srs show --profile $(PROFILE) $(if $(REPORT),,--brief)
	@echo "made: figures/$(PROFILE)/*.md, .csv, .tex, .pdf, .png"

verify: | $(ENV)  ## ROWS stored rows, drawn at random, computed anew from weights and seeds
	$(PY) -m srs verify --profile $(PROFILE) --rows $(ROWS)

check: | $(ENV)  ## this machine, the data, and what of PROFILE is computed
	@$(PY) -m srs doctor --profile $(PROFILE)

test: test-code test-notebooks test-long  ## unit tests, and every notebook under nbval with small parameters

# Two cores have as much to do each: the longest tests come after the notebooks.
LONG := $(addprefix tests/test_,own_model.py golden.py faults.py)
test-code: | $(ENV)
	$(PY) -m pytest -q tests $(LONG:%=--ignore=%)

test-long: test-notebooks | $(ENV)
	$(PY) -m pytest -q $(LONG)

# nbval runs a notebook as it stands, so copies get the parameters of the profile `smoke` first. They lie where executed
# notebooks do, for the report.
TRIAL := data/smoke-test
TRIED := $(TRIAL)/data/smoke/notebooks
test-notebooks: | $(ENV)
	rm -rf $(TRIAL)
	$(PY) -m tests.prepare_notebooks $(TRIED)
	SRS_MAKE=1 SRS_ROOT="$$PWD/$(TRIAL)" $(PY) -m pytest -q --nbval-lax --nbval-cell-timeout=600 -p no:cacheprovider $(TRIED)
	SRS_ROOT="$$PWD/$(TRIAL)" $(PY) -m srs coverage --profile smoke
	rm -rf $(TRIAL)

# Git sees notebooks without what Lab writes into them; .gitattributes says which ones.
STRIP := -m nbstripout --keep-id --extra-keys "$(addprefix metadata.language_info.,codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer version)"
lab: | $(ENV)  ## open JupyterLab at the notebooks; as root in a container: make lab LAB_ARGS="--allow-root --ip=0.0.0.0"
	git config filter.notebooks.clean '$(PY) $(STRIP)' || true
	$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LAB_ARGS)

docs: | $(ENV)  ## the docstrings as pages: docs/srs.html
	$(PY) -m pdoc --docformat google --output-directory docs srs $(foreach f,$(wildcard srs/*.py srs/*/*.py),$(if $(findstring __,$(f)),,$(subst /,.,$(f:.py=))))

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo "PROFILE=$(PROFILE) (of $(call answer,profile))   JOBS=$(JOBS)   WORKERS=$(WORKERS) processes per certified model   SCHEDULER=tcp://host:port of Dask, or a YAML file of dask-jobqueue   RETRAIN=1 trains where weights are shipped"

readme: | $(ENV)  ## refresh the picture and the tables that the README shows, from shipped rows
	mkdir -p figures/readme
	$(PY) -m srs show --profile cifar10_fixed --brief
	cp figures/cifar10_fixed/curves_rules_SMALL_consistent.png figures/readme/
	$(PY) -m srs readme

clean:  ## remove what PROFILE computed
	rm -rf $(WORK) $(SHOWN)

distclean:  ## remove what every profile computed, and .venv
	rm -rf $(foreach p,$(call answer,profile),data/$(p) figures/$(p)) $(TRIAL) docs .venv
