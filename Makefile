# The whole artefact as a DAG of files over papermill. `make help` lists what there is to ask for.
# Every step may be interrupted: what is finished stays, what was begun resumes, and nothing half-made carries its name.

PROFILE ?= digits
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON3 ?= python3
WORKERS ?= 1
RETRAIN ?=

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

# Inside the conda environment of environment.yml that one is used; otherwise .venv is made from the lock file.
ifeq ($(CONDA_DEFAULT_ENV),srs)
PY  := python
ENV := .conda-ready
else
PY  := .venv/bin/python
ENV := .venv/ready
endif

WORK  := data/$(PROFILE)
NB    := $(WORK)/notebooks
SHOWN := figures/$(PROFILE)
RUNS  := $(shell $(PYTHON3) -m srs.config runs $(PROFILE))
ifeq ($(RUNS),)
$(error PROFILE=$(PROFILE) is refused: want one of $(shell $(PYTHON3) -m srs.config profiles))
endif

BASELINES := $(shell $(PYTHON3) -m srs.config baselines $(PROFILE))

.PHONY: all tables bench quickstart soundness test test-code test-notebooks lab help readme clean distclean
.PRECIOUS: $(NB)/10_train-%.ipynb $(NB)/20_certify-%.ipynb

# A profile without the paper's methods has their main tables and curves, and nothing that compares RS with SRS.
BRIEF := $(filter cifar10_more,$(PROFILE))

all: $(if $(BRIEF),$(NB)/30_certified_accuracy.ipynb,$(SHOWN)/report.html)  ## train, certify, and make every table and figure (default)
	@echo "$(PROFILE): everything is up to date; open $<"

# ---------------------------------------------------------------------------------------------- environment

.venv/ready: requirements.lock
	rm -rf .venv
	$(PYTHON3) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	.venv/bin/python -m uv pip install --quiet --compile-bytecode --require-hashes --python .venv/bin/python -r requirements.lock
	.venv/bin/python -m uv pip install --quiet --no-deps --no-build-isolation --offline --python .venv/bin/python --editable .
	touch $@

.conda-ready: environment.yml
	python -c "import jupyterlab, papermill, srs, torch" && touch $@

# ---------------------------------------------------------------------------------------------- experiment

# Papermill only warns of an unknown parameter; the notebooks' first cell refuses it. A run goes to a temporary name.
define execute
@mkdir -p $(dir $(2))
@echo "$(notdir $(2))"
@$(PY) -m papermill --no-progress-bar --log-level WARNING -k python3 --cwd . notebooks/$(1).ipynb $(2).part.ipynb -p profile $(PROFILE) $(3) 2> >(grep -v -e "running over TCP without encryption" -e "KeyboardInterrupt caught in kernel" >&2)
@mv $(2).part.ipynb $(2)
endef
papermill = $(call execute,$(1),$@,$(2))

# A run id is MODEL-sSIGMA-RECIPE.
part = $(word $(2),$(subst -, ,$(1)))
run_parameters = -p model $(call part,$*,1) -p sigma $(patsubst s%,%,$(call part,$*,2)) -p recipe $(call part,$*,3)

SOLVE  := srs/data.py srs/models.py srs/inference.py srs/resnet.py srs/solvers.py
SAMPLE := $(SOLVE) srs/starts.py srs/stopping.py srs/exact.py srs/votes.py srs/certify.py srs/results.py
SHOW   := srs/bounds.py srs/metrics.py srs/published.py srs/shown.py srs/shipped.py srs/tables.py srs/figures.py
ANALYSE := srs/counts.py $(wildcard srs/analysis/*.py)

# Settings of a run as a file that is touched only when they change: another profile's edit retrains nothing here.
$(foreach run,$(RUNS),$(WORK)/settings/$(run).train.json $(WORK)/settings/$(run).certify.json): $(WORK)/settings/stamp ;
$(WORK)/settings/stamp: srs/config.py srs/settings.py
	@$(PYTHON3) -m srs.config stamps $(PROFILE) && touch $@

$(NB)/10_train-%.ipynb: notebooks/10_train.ipynb $(SOLVE) srs/losses.py srs/train.py $(WORK)/settings/%.train.json | $(ENV)
	$(call papermill,10_train,$(run_parameters) -p retrain $(if $(RETRAIN),True,False))

$(NB)/20_certify-%.ipynb: notebooks/20_certify.ipynb $(NB)/10_train-%.ipynb $(SAMPLE) srs/bounds.py $(WORK)/settings/%.certify.json | $(ENV)
	$(call papermill,20_certify,$(run_parameters) -p workers $(WORKERS))

CERTIFIED := $(foreach run,$(filter-out $(BASELINES),$(RUNS)),$(NB)/20_certify-$(run).ipynb)
EXPLICIT  := $(foreach run,$(BASELINES),$(NB)/20_certify-$(run).ipynb)

# With the notebook's own model and sigma, which every profile has.
$(NB)/00_quickstart.ipynb: notebooks/00_quickstart.ipynb $(NB)/10_train-SMALL-s0.50-paper.ipynb $(SAMPLE) srs/experiments/quickstart.py $(ANALYSE) | $(ENV)
	$(call papermill,00_quickstart,)

$(NB)/30_certified_accuracy.ipynb $(NB)/31_consistency.ipynb: $(NB)/%.ipynb: notebooks/%.ipynb $(CERTIFIED) $(SHOW) | $(ENV)
	$(call papermill,$*,)

# Votes and models of its own, but for what follows from stored votes; trains six more models. A CPU would train
# those of cifar10 for many hours: `python -m srs.ablations --profile cifar10`, and the notebook takes what is there.
ABLATE := srs/variants.py srs/threats.py srs/adversary.py srs/recounts.py srs/ablation_tables.py srs/ablation_report.py srs/ablations.py srs/contraction.py srs/agreement.py
$(NB)/32_ablations.ipynb: notebooks/32_ablations.ipynb $(NB)/20_certify-SMALL-s0.50-paper.ipynb $(SAMPLE) $(SHOW) srs/losses.py srs/train.py srs/audit_size.py $(ABLATE) | $(ENV)
	$(call papermill,32_ablations,-p workers $(WORKERS) -p training $(if $(filter cifar10,$(PROFILE)),False,True))

$(NB)/40_soundness.ipynb: notebooks/40_soundness.ipynb $(CERTIFIED) $(SHOW) $(wildcard srs/soundness*.py) srs/audit_size.py srs/exact_report.py | $(ENV)
	$(call papermill,40_soundness,)

ATTACK := srs/threats.py srs/adversary.py srs/library.py srs/attacks.py srs/points.py
$(NB)/33_attacks.ipynb: notebooks/33_attacks.ipynb $(CERTIFIED) $(SAMPLE) $(ATTACK) srs/attack_report.py $(SHOW) | $(ENV)
	$(call papermill,33_attacks,)

# With the notebook's own model and sigma.
$(NB)/34_white_box.ipynb: notebooks/34_white_box.ipynb $(NB)/10_train-SMALL-s0.12-paper.ipynb $(SAMPLE) $(ATTACK) srs/white_box.py srs/white_box_report.py srs/figures.py srs/tables.py | $(ENV)
	$(call papermill,34_white_box,)

# Of the profile `imagenet` whatever PROFILE is; runs its pipeline on a sample of ImageNet where SRS_DATA has one.
$(NB)/35_imagenet.ipynb: notebooks/35_imagenet.ipynb srs/experiments/imagenet.py srs/config.py srs/settings.py srs/train.py $(SAMPLE) $(ANALYSE) | $(ENV)
	$(call papermill,35_imagenet,)

$(NB)/36_explicit.ipynb: notebooks/36_explicit.ipynb $(CERTIFIED) $(EXPLICIT) srs/explicit_report.py $(SHOW) | $(ENV)
	$(call papermill,36_explicit,)

MEASURE := srs/adaptive.py srs/agreement.py srs/bench.py srs/released.py srs/scaling.py srs/speed_report.py
$(NB)/41_speed.ipynb: notebooks/41_speed.ipynb $(CERTIFIED) $(SAMPLE) $(SHOW) $(MEASURE) | $(ENV)
	$(call papermill,41_speed,)

# Diagrams and settings: nothing has to be trained for them.
$(NB)/05_method.ipynb: notebooks/05_method.ipynb srs/config.py srs/settings.py srs/models.py srs/bounds.py srs/experiments/method.py $(ANALYSE) | $(ENV)
	$(call papermill,05_method,)

# Attacks are those of CIFAR-10's and the digits' small images; the model hardened for 34 takes CIFAR-10 an hour, so there
# it is made only when asked for: make data/cifar10/notebooks/34_white_box.ipynb.
ATTACKS := $(if $(filter imagenet%,$(PROFILE)),,33_attacks) $(if $(filter imagenet% cifar10,$(PROFILE)),,34_white_box)
# Coverage looks at what all the others left in the profile's folder, so it comes after them.
COVERED := $(foreach n,00_quickstart 05_method 30_certified_accuracy 31_consistency 32_ablations $(ATTACKS) 35_imagenet 36_explicit 40_soundness 41_speed,$(NB)/$(n).ipynb)
$(NB)/80_coverage.ipynb: notebooks/80_coverage.ipynb $(COVERED) srs/experiments/coverage.py $(ANALYSE) $(wildcard data/published/*.csv) | $(ENV)
	$(call papermill,80_coverage,)

$(SHOWN)/report.html: notebooks/90_report.ipynb srs/experiments/report.py $(NB)/80_coverage.ipynb | $(ENV)
	$(call execute,90_report,$(NB)/90_report.ipynb,)

# ---------------------------------------------------------------------------------------------- to ask for

quickstart: $(NB)/00_quickstart.ipynb  ## one image certified by RS and by SRS
soundness: $(NB)/40_soundness.ipynb  ## which rule's certificates hold
bench: $(foreach run,$(filter SMALL-s0.50-%,$(RUNS)),$(NB)/10_train-$(run).ipynb) | $(ENV)  ## seconds per vote against the released code's cost, into data/results
	for run in $(filter SMALL-s0.50-%,$(RUNS)); do $(PY) -m srs.bench --profile $(PROFILE) --recipe $${run##*-} $(if $(COMPILED),--compiled); done

tables: | $(ENV)  ## tables and figures from stored tallies, without a network
	$(PY) -m srs.remake --profile $(PROFILE) $(if $(BRIEF),--brief)

test: test-code test-notebooks  ## unit tests, and every notebook under nbval with small parameters

test-code: | $(ENV)
	$(PY) -m pytest -q tests

# nbval runs a notebook as it stands, so copies get the parameters of the profile `smoke` first.
test-notebooks: export SRS_ROOT := $(CURDIR)/data/smoke-test
test-notebooks: | $(ENV)
	rm -rf $(SRS_ROOT)
	$(PY) -m tests.prepare_notebooks $(SRS_ROOT)/notebooks
	$(PY) -m pytest -q --nbval-lax --nbval-cell-timeout=600 -p no:cacheprovider $(SRS_ROOT)/notebooks
	$(PY) -c "from srs import config; from srs.experiments import coverage; coverage.require_complete(config.get_profile('smoke'))"
	rm -rf $(SRS_ROOT)

lab: | $(ENV)  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo "PROFILE=$(PROFILE) (of $$($(PYTHON3) -m srs.config profiles))   JOBS=$(JOBS)   WORKERS=$(WORKERS) processes per certified model   RETRAIN=1 trains where weights are shipped   COMPILED=1 times compiled models, too"

readme: | $(ENV)  ## refresh the pictures and the table that the README shows, from digits made here and shipped CIFAR-10 rows
	mkdir -p figures/readme
	cp figures/digits/curves_rules_SMALL.png figures/readme/
	$(PY) -m srs.figures --profile cifar10
	cp figures/cifar10/curves_rules_SMALL_contractive.png figures/readme/
	$(PY) -m srs.readme

clean:  ## remove what PROFILE computed
	rm -rf $(WORK) $(SHOWN)

distclean:  ## remove what every profile computed, and .venv
	rm -rf $(foreach p,$(shell $(PYTHON3) -m srs.config profiles),data/$(p) figures/$(p)) .venv
