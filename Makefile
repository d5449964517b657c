# make quickstart   set up, then the whole road on the shipped sample: text → samples → pretraining → fine-tuning → export → answer
# make test         set up, then the tests
# make venv         set up only: .venv with the pins of constraints.txt
# make doctor       what this machine and its .venv have, and what will therefore be used or is missing
# make lint         ruff, and mypy over the four packages; an environment of its own
# make coverage     the tests again; which lines of the four packages none of them ran
# make dist         wheel and source archive → dist/
# make check-wheel  the wheel in a new environment, in an empty folder: the whole road on what it carries
# make check-transformers   logits against those of Hugging Face's transformers, both ways; an environment of its own, 3 GB
# make bench DATA=path/to/afqmc TASK=afqmc CORPUS='corpus/*.txt' VOCAB=vocab.txt   all benchmarks → output/bench/report.html, table.md
#                     (an hour or two; ONLY=training_step,growth runs some)
# make bench-pretrain DATA='corpus/*.txt'     what the tiny config learns in an hour (MINUTES=60)
# make bench-etl DATA='corpus/*.txt'   text per second of the sample builder beside a plain one (MEGABYTES=100 ROUNDS=3)
# make bench-finetune DATA=path/to/afqmc TASK=afqmc   rows padded to the longest of their batch against all to 128: pace, accuracy
# make bench-etl-memory DATA='corpus/*.txt'   peak memory of the sample builder at 30, 100 and 300 MB of text (an hour)
# make bench-serving DATA=questions.tsv         an exported model against the plain graph padded to 128, tiny and base
# make check-parity DATA='corpus/*.txt'        the tokenizer in the graph against Python's, over every code point (20 minutes)
# make check-java DATA=questions.tsv           an exported model asked from TensorFlow's Java library; needs Java 11 and Maven
# make check-segmenters DATA='corpus/*.txt'   whether the fast segmenter finds jieba's words in a text
# make bench-onnx DATA=questions.tsv            an exported model against onnxruntime; an environment of its own, 200 MB
# make bench-server DATA=questions.tsv          load on the server: throughput with and without batching, a soak, overload (15 minutes)
# make check-flink DATA='corpus/*.txt'         the sample builder on a Flink cluster of two task managers, started here: the same bytes;
#     Linux (unshare, ip), Java 17, Maven; 400 MB of downloads into .venv-flink (15 minutes)
# make check-page                              the server's page in headless Chromium; needs chromium and chromedriver
# make check-rest                              the REST interface under fuzzing; makes an environment of its own, with Python 3.10 or later
# make check-attack                            what a stranger may send or leave, at a server, a build, a folder; as root, for a second
#     address (ONLY='rest grpc_port' runs some)
# make check-fuzz                              210,000 mutated bodies, tf.Examples and gRPC messages at a server (10 minutes; SEED=7 sends others)
# make check-soak                              a server under load while versions come and go, nobody reads its log, and thousands of
#     connections idle; SIGTERM at the end: no request lost (SECONDS=600, LIMIT_FILES=1024)

SHELL := /bin/bash
PYTHON := .venv/bin/python
TRANSFORMERS := .venv-transformers
# In the C locale neither Python 3.7 and pip can fill an environment in a folder whose name is not ASCII, nor TensorFlow load.
ifneq ($(shell locale charmap 2>/dev/null),UTF-8)
export LC_ALL := C.UTF-8
endif
ONNX := .venv-onnx

.PHONY: help venv test lint coverage doctor python dist check-wheel quickstart check-transformers bench bench-pretrain bench-etl bench-finetune bench-etl-memory bench-serving \
    bench-onnx bench-server check-parity check-java check-flink check-page check-rest check-attack check-fuzz check-soak check-segmenters clean
help:
	@sed -n 's/^# make/make/p' Makefile

# The stamp is written last and holds what the environment was made from, so a set-up that was interrupted, or made from
# other pins or in another folder, is made anew, and one that is complete costs nothing.
venv:
	@wanted="$$(cat constraints.txt setup.py requirements.txt | cksum) $$PWD"; \
	if [ "$$(cat .venv/complete 2>/dev/null)" != "$$wanted" ]; then \
	    $(find_python); \
	    echo "Setting up .venv with $$python"; \
	    rm -rf .venv && "$$python" -m venv .venv && \
	    $(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt && \
	    $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	    $(PYTHON) -m pip check && echo "$$wanted" > .venv/complete; \
	fi

test: venv
	$(PYTHON) -m pytest -n auto

# Which Python 3.7 the environment would be made with, for `doctor`.
python:
	@$(find_python); echo "$$python"

# Any Python 3 will do: there may be no .venv yet.
doctor:
	@python=$$(command -v python3 || command -v python) && "$$python" test/checks/doctor.py

lint: .venv-lint/complete
	.venv-lint/bin/ruff check .
	.venv-lint/bin/mypy

# mypy would bring typed_ast and typing_extensions of its own; the runtime's pins stay as they are.
.venv-lint/complete: test/checks/lint_requirements.txt | venv
	rm -rf .venv-lint && $(PYTHON) -m venv .venv-lint
	.venv-lint/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@

# Without those tests that forbid a process to write: measuring does. What TensorFlow's threads and other processes run is not seen:
# batches from rows, ranks, workers.
coverage: venv
	@$(PYTHON) -c 'import pytest_cov' 2>/dev/null || $(PYTHON) -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt pytest-cov==4.1.0 coverage==7.2.7
	$(PYTHON) -m pytest -n auto -k 'not no_room' --cov=albert_config --cov=etl --cov=estimator --cov=serving --cov-report=term-missing:skip-covered

dist: venv
	rm -rf build dist
	$(PYTHON) setup.py --quiet sdist bdist_wheel
	@ls dist/*

check-wheel: dist
	$(PYTHON) test/checks/wheel.py dist/*.whl

quickstart: venv
	$(PYTHON) -m etl.build_pretrain --runner DirectRunner --max_seq_length 128 --eval_fraction 0.1
	$(PYTHON) -m estimator.pretrain --albert_config_file mini --optimizer adamw --learning_rate 0.001 \
	    --train_batch_size 32 --num_train_steps 500 --num_warmup_steps 50 --save_checkpoints_steps 250 --log_steps 50
	$(PYTHON) -m estimator.finetune --do_train=true --do_eval=true --learning_rate 0.0003 --num_train_epochs 10 --log_steps 50
	$(PYTHON) -m serving.export
	printf '%b\n' '手机没信号怎么办\t手机搜不到网络怎么处理' '手机没信号怎么办\t手机屏幕碎了去哪里修' | $(PYTHON) -m serving.predict

check-transformers: venv $(TRANSFORMERS)/complete
	rm -rf output/check_transformers
	TF_CPP_MIN_LOG_LEVEL=2 $(PYTHON) -W ignore test/transformers_check/ours.py write output/check_transformers
	$(TRANSFORMERS)/bin/python test/transformers_check/theirs.py output/check_transformers
	TF_CPP_MIN_LOG_LEVEL=2 $(PYTHON) -W ignore test/transformers_check/ours.py check output/check_transformers

bench: venv $(if $(or $(findstring onnx_speed,$(ONLY)),$(if $(ONLY),,all)),$(ONNX)/complete)
	$(PYTHON) test/benchmark/bench.py $(if $(DATA),--data '$(DATA)') $(if $(TASK),--task $(TASK)) \
	    $(if $(CORPUS),--corpus '$(CORPUS)') $(if $(VOCAB),--vocab_file $(VOCAB)) $(if $(ONLY),--only $(ONLY))

bench-pretrain: venv
	$(PYTHON) test/benchmark/pretrain_quality.py $(if $(DATA),--data '$(DATA)') $(if $(MINUTES),--minutes $(MINUTES))

bench-etl: venv
	$(PYTHON) test/benchmark/etl_speed.py $(if $(DATA),--data '$(DATA)') $(if $(VOCAB),--vocab_file $(VOCAB)) \
	    $(if $(MEGABYTES),--megabytes $(MEGABYTES)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-finetune: venv
	$(PYTHON) test/benchmark/finetune_speed.py $(if $(DATA),--data '$(DATA)') $(if $(TASK),--task $(TASK)) \
	    $(if $(CHECKPOINT),--init_checkpoint '$(CHECKPOINT)')

bench-etl-memory: venv
	$(PYTHON) test/benchmark/etl_memory.py $(if $(DATA),--data '$(DATA)')

bench-serving: venv
	$(PYTHON) test/benchmark/serving_speed.py $(if $(DATA),--data '$(DATA)')

bench-onnx: venv $(ONNX)/complete
	$(PYTHON) test/benchmark/onnx_speed.py $(if $(DATA),--data '$(DATA)')

check-parity: venv
	$(PYTHON) test/checks/parity.py $(if $(DATA),--data '$(DATA)')

check-java: venv
	$(PYTHON) test/checks/java.py $(if $(DATA),--data '$(DATA)')

check-segmenters: venv
	$(PYTHON) test/benchmark/segmenters.py $(if $(DATA),--data '$(DATA)')

bench-server: venv
	$(PYTHON) test/benchmark/server_load.py $(if $(DATA),--data '$(DATA)')

check-flink: venv .venv-flink/complete
	$(PYTHON) test/checks/flink.py --flink .venv-flink $(if $(DATA),--data '$(DATA)')

# apache-flink is the package of this and of much that nobody needs here.
.venv-flink/complete:
	rm -rf .venv-flink && $(PYTHON) -m venv .venv-flink
	.venv-flink/bin/python -m pip install --quiet --disable-pip-version-check --no-deps apache-flink-libraries==1.16.3 && touch $@

check-page: venv
	$(PYTHON) test/checks/page.py

check-attack: venv
	$(PYTHON) test/checks/attack/run.py $(ONLY)

check-fuzz: venv
	$(PYTHON) -W ignore test/checks/fuzz.py $(if $(SEED),--seed $(SEED))

check-soak: venv
	$(PYTHON) -W ignore test/checks/soak.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(LIMIT_FILES),--limit_files $(LIMIT_FILES))

check-rest: venv .venv-schemathesis/bin/schemathesis
	$(PYTHON) test/checks/rest.py --schemathesis .venv-schemathesis/bin/schemathesis

.venv-schemathesis/bin/schemathesis:
	python3 -m venv .venv-schemathesis && .venv-schemathesis/bin/python -m pip install --quiet schemathesis==4.32.5

# Environments for what needs a newer Python; a stamp, written last, tells a complete one.
$(TRANSFORMERS)/complete: test/transformers_check/requirements.txt
$(ONNX)/complete: test/benchmark/onnx_requirements.txt
$(TRANSFORMERS)/complete $(ONNX)/complete:
	@for python in python3.10 python3.9 python3.8 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.{10,9,8}.*/bin/python; do \
	    "$$python" -c '' 2>/dev/null && break; \
	done; \
	rm -rf $(@D); \
	"$$python" -m venv $(@D) || { echo "Python 3.8, 3.9 or 3.10 is needed, on PATH or in pyenv" >&2; exit 1; }; \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@

clean:
	rm -rf output build dist

# Finds a Python 3.7 that runs: on PATH, in pyenv, in uv, in conda. Sets the shell variable `python`, or ends with advice.
define find_python
python=; \
for candidate in python3.7 python3 python "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.7.*/bin/python \
        "$$(uv python find 3.7 2>/dev/null)" "$$(conda run -n py37 which python 2>/dev/null)"; do \
    if [ "$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.7 ]; then \
        python="$$candidate"; break; \
    fi; \
done; \
if [ -z "$$python" ]; then \
    echo "Python 3.7 is needed (TensorFlow 1.15 runs on nothing newer) and was not found on PATH, in pyenv, uv or conda."; \
    echo "Get it by one of:  pyenv install 3.7.16   |   uv python install 3.7   |   conda create -n py37 python=3.7"; \
    exit 1; \
fi >&2
endef
