# What can be done here: make help. PKGS narrows a target to some packages: make test PKGS=./pkg/apikey/...

PKGS ?= ./...
SHELL := bash
STATICCHECK := go tool -modfile=tools/go.mod staticcheck
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.DEFAULT_GOAL := help
.PHONY: help run test model year breaks year-breaks check fmt bench dynamodb-local webhook-libs dynamodb vuln check-format check-lint check-modules check-race check-fuzz sam-check sam-local sam-walk

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and run the service on the memory store; it needs nothing but Go
	@go build -o bin/latchkeyd ./cmd/latchkeyd && exec bin/latchkeyd

test: ## run the tests, on DynamoDB Local too where Java 17 and Maven are there
	@tools/test $(PKGS)

model: ## compare 100,000 random steps with the model of what they should do, and 2,000 on DynamoDB Local (SEED=42)
	@folder=$$(tools/dynamodb-local/fetch) && LATCHKEY_DYNAMODB_LOCAL=$$folder go test ./pkg/lifecycle -run '^TestModel$$' -v -timeout 20m \
	  -model.steps $(or $(STEPS),100000) -model.dynamodb $(or $(DYNAMODB_STEPS),2000) -model.seed $(or $(SEED),0)

year: ## live through 50 simulated years of 1,000 keys that are rotated, and a month of 20 on DynamoDB Local (YEARS=1 KEYS=100 SEED=42)
	@folder=$$(tools/dynamodb-local/fetch) && LATCHKEY_DYNAMODB_LOCAL=$$folder tools/year $(or $(YEARS),50) $(or $(KEYS),1000) $(or $(SEED),0)

breaks: ## break pkg/lifecycle on purpose, in 53 ways, and print what sees each (BREAK=word for some; about ten minutes)
	@python3 tools/breaks/breaks.py $(BREAK)

year-breaks: ## break scheduled rotation on purpose, one rule at a time, and print what sees each (BREAK=word for some)
	@python3 tools/breaks/year.py $(BREAK)

check: check-format check-lint check-modules check-race check-fuzz ## run everything that a change must pass besides make test

check-format:
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi

check-lint:
	go vet $(PKGS)
	$(STATICCHECK) $(PKGS)

check-modules:
	go mod tidy -diff
	go mod verify
	go -C tools mod tidy -diff
	go -C tools mod verify

check-race:
	go test -race $(PKGS)

check-fuzz:
	@tools/fuzz $(PKGS)

fmt: ## format the code
	gofmt -w .

bench: ## run the benchmarks, and the authorizer's Lambda against a bare one where DynamoDB Local is there (about a minute)
	go test -run '^$$' -bench . -benchmem $(PKGS)
	go run ./bench/lambda

dynamodb-local: ## fetch DynamoDB Local for the tests, once, and verify it
	@tools/dynamodb-local/fetch

webhook-libs: ## install independent Standard Webhooks libraries for the tests, once, by npm and pip
	@tools/webhooks/install

dynamodb: ## run DynamoDB Local in memory on port 8000 (PORT=8001 for another) until Ctrl-C
	@folder=$$(tools/dynamodb-local/fetch) && exec java -Djava.library.path="$$folder" -cp "$$folder/*" \
	  software.amazon.dynamodb.services.local.main.ServerRunner -inMemory -sharedDb -disableTelemetry -port $(or $(PORT),8000)

vuln: ## look for known vulnerabilities; it asks the Go vulnerability database
	go run $(GOVULNCHECK) $(PKGS)

sam-check: ## lint template.yaml and the examples, and hold them to the rules of tools/sam
	@tools/sam/check

sam-local: ## run the deployed shape on this machine until Ctrl-C: SAM's routes and authorizer, DynamoDB Local (READY=path, PORT=3000, ORIGINS=)
	@tools/sam/local "$(or $(READY),.sam-local/ready.json)" $(or $(PORT),3000)

sam-walk: ## walk through the service that make sam-local serves, by a test
	@tools/sam/walk

# sam build asks for build-Create and so on: a function is built from the folder of its name, but for AuditTrail, as the
# table is called Audit. ARCH is what the template's parameter Arch says.
build-AuditTrail: folder = audit
# DynamoDB, KMS and issuers of tokens are asked by HTTP/1.1; the code for HTTP/2 would be 0.3 MB of each function.
FUNCTION_TAGS := lambda.norpc,nethttpomithttp2
ARCH ?= arm64
build-%: export CGO_ENABLED = 0
build-%: export GOOS = linux
build-%: export GOARCH = $(subst x86_64,amd64,$(ARCH))
build-%:
	go build -trimpath -buildvcs=false -tags $(FUNCTION_TAGS) -ldflags '-s -w -buildid=' \
	  -o "$(ARTIFACTS_DIR)/bootstrap" ./functions/$(or $(folder),$(shell echo $* | tr A-Z a-z))
