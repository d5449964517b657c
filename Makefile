# `make help` lists the targets with what stands behind their "#:".

SHELL := /bin/bash
PYTHON := .venv/bin/python
# In the C locale neither Python 3.7 and pip can fill an environment in a folder whose name is not ASCII, nor TensorFlow load.
ifneq ($(shell locale charmap 2>/dev/null),UTF-8)
export LC_ALL := C.UTF-8
endif

# What tests and checks start on this host is reached without a proxy.
comma := ,
export no_proxy := $(if $(no_proxy),$(no_proxy)$(comma))localhost,127.0.0.1,::1

# `$(call flags,DATA VOCAB)` is `--data '…' --vocab_file '…'`, for those of the variables that were given.
FLAGS := DATA=--data CORPUS=--corpus TASK=--task VOCAB=--vocab_file CHECKPOINT=--init_checkpoint ONLY=--only \
    MINUTES=--minutes MEGABYTES=--megabytes ROUNDS=--rounds SEED=--seed SECONDS=--seconds LIMIT_FILES=--limit_files
flags = $(foreach name,$(1),$(if $($(name)),$(patsubst $(name)=%,%,$(filter $(name)=%,$(FLAGS))) '$($(name))'))

help:
	@sed -nE 's/^([a-z-]+)[ :].*  #: (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf 'make %-18s %s\n' "$$name" "$$text"; done

quickstart: venv  #: set up, then the whole road on the shipped sample: text → samples → pretraining → fine-tuning → export → answer
	$(PYTHON) -m etl.build_pretrain --runner DirectRunner --max_seq_length 128 --eval_fraction 0.1
	$(PYTHON) -m estimator.pretrain --albert_config_file mini --optimizer adamw --learning_rate 0.001 \
	    --train_batch_size 32 --num_train_steps 500 --num_warmup_steps 50 --save_checkpoints_steps 250 --log_steps 50
	$(PYTHON) -m estimator.finetune --do_train=true --do_eval=true --learning_rate 0.0003 --num_train_epochs 10 --log_steps 50
	$(PYTHON) -m serving.export
	printf '%b\n' '手机没信号怎么办\t手机搜不到网络怎么处理' '手机没信号怎么办\t手机屏幕碎了去哪里修' | $(PYTHON) -m serving.predict

venv:  #: set up only: .venv with the pins of constraints.txt
	@requirements/environment.sh .venv

test: venv  #: set up, then the tests
	$(PYTHON) -m pytest -n auto --dist worksteal --durations=10

# Any Python 3 will do: there may be no .venv yet.
doctor:  #: what this machine and its .venv have, and what will therefore be used or is missing
	@python=$$(command -v python3 || command -v python) && "$$python" test/checks/doctor.py

python:  #: which Python 3.7 the environment would be made with
	@requirements/environment.sh python

lint: .venv-lint/complete  #: ruff, and mypy over the four packages; an environment of its own
	.venv-lint/bin/ruff check .
	.venv-lint/bin/mypy

# Without those tests that forbid a process to write: measuring does. What TensorFlow's threads and other processes run
# is not seen: batches from rows, ranks, workers.
coverage: venv  #: the tests again; which lines of the four packages none of them ran
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements/coverage.txt
	$(PYTHON) -m pytest -n auto -k 'not no_room' $(addprefix --cov=,albert_config etl estimator serving) \
	    --cov-report=term-missing:skip-covered

dist: venv  #: wheel and source archive → dist/
	rm -rf build dist
	$(PYTHON) setup.py --quiet sdist bdist_wheel
	@ls dist/*

check-wheel: dist  #: the wheel in a new environment, in an empty folder: the whole road on what it carries
	$(PYTHON) test/checks/wheel.py dist/*.whl

check-transformers: venv .venv-transformers/complete  #: logits against those of Hugging Face's transformers, both ways; an environment of its own, 3 GB
	rm -rf output/check_transformers
	TF_CPP_MIN_LOG_LEVEL=2 $(PYTHON) -W ignore test/transformers_check/ours.py write output/check_transformers
	.venv-transformers/bin/python test/transformers_check/theirs.py output/check_transformers
	TF_CPP_MIN_LOG_LEVEL=2 $(PYTHON) -W ignore test/transformers_check/ours.py check output/check_transformers

clean:  #: remove output, build and dist
	rm -rf output build dist

# Benchmarks and checks that are one command: a row each, which says what Python runs. Its --help tells the flags.

bench = test/benchmark/bench.py $(call flags,DATA TASK CORPUS VOCAB ONLY)  #: all benchmarks → output/bench/report.html, table.md: DATA=path/to/afqmc TASK=afqmc CORPUS='corpus/*.txt' VOCAB=vocab.txt (an hour or two; ONLY=training_step,growth runs some)
bench-pretrain = test/benchmark/pretrain_quality.py $(call flags,DATA MINUTES)  #: what the tiny config learns in an hour: DATA='corpus/*.txt' (MINUTES=60)
bench-etl = test/benchmark/etl_speed.py $(call flags,DATA VOCAB MEGABYTES ROUNDS)  #: text per second of the sample builder beside a plain one: DATA='corpus/*.txt' (VOCAB=vocab.txt MEGABYTES=100 ROUNDS=3)
bench-finetune = test/benchmark/finetune_speed.py $(call flags,DATA TASK CHECKPOINT)  #: rows padded to the longest of their batch against all to 128, pace and accuracy: DATA=path/to/afqmc TASK=afqmc (CHECKPOINT=albert_tiny_zh)
bench-etl-memory = test/benchmark/etl_memory.py $(call flags,DATA)  #: peak memory of the sample builder at 30, 100 and 300 MB of text: DATA='corpus/*.txt' (an hour)
bench-serving = test/benchmark/serving_speed.py $(call flags,DATA)  #: an exported model against the plain graph padded to 128, tiny and base: DATA=questions.tsv
bench-onnx = test/benchmark/onnx_speed.py $(call flags,DATA)  #: an exported model against onnxruntime: DATA=questions.tsv; an environment of its own, 200 MB
bench-server = test/benchmark/server_load.py $(call flags,DATA)  #: load on the server: throughput with and without batching, a soak, overload: DATA=questions.tsv (15 minutes)
check-learning = -m pytest -n auto -m learning --durations=10  #: trainings until they have learnt: losses and accuracies that are reached, or not
check-parity = test/checks/parity.py $(call flags,DATA)  #: the tokenizer in the graph against Python's, over every code point: DATA='corpus/*.txt' (20 minutes)
check-java = test/checks/java.py $(call flags,DATA)  #: an exported model asked from TensorFlow's Java library: DATA=questions.tsv; needs Java 11 and Maven
check-segmenters = test/benchmark/segmenters.py $(call flags,DATA)  #: whether the fast segmenter finds jieba's words in a text: DATA='corpus/*.txt'
check-flink = test/checks/flink.py --flink .venv-flink $(call flags,DATA)  #: the sample builder on a Flink cluster of two task managers, started here, the same bytes: DATA='corpus/*.txt'; Linux (unshare, ip), Java 17, Maven; 400 MB of downloads into .venv-flink (15 minutes)
check-page = test/checks/page.py  #: the server's page in headless Chromium; needs chromium and chromedriver
check-rest = test/checks/rest.py --schemathesis .venv-schemathesis/bin/schemathesis  #: the REST interface under fuzzing; an environment of its own, with Python 3.10 or later
check-attack = test/checks/all_of.py attack $(ONLY)  #: what a stranger may send or leave, at a server, a build, a folder; as root, for a second address (ONLY='rest grpc_port' runs some)
check-clients = test/checks/all_of.py clients $(ONLY)  #: the server under clients that people have: nginx before two servers that are restarted in turn (ONLY=nginx runs some)
check-fuzz = -W ignore test/checks/fuzz.py $(call flags,SEED)  #: 210,000 mutated bodies, tf.Examples and gRPC messages at a server (10 minutes; SEED=7 sends others)
check-soak = -W ignore test/checks/soak.py $(call flags,SECONDS LIMIT_FILES)  #: a server under load while versions come and go, nobody reads its log, and thousands of connections idle; SIGTERM at the end: no request lost (SECONDS=600 LIMIT_FILES=1024)

ROWS := $(filter bench bench-% check-%,$(.VARIABLES))
.PHONY: help quickstart venv test doctor python lint coverage dist check-wheel check-transformers clean $(ROWS)
$(ROWS): venv
	$(PYTHON) $($@)

bench: $(if $(or $(findstring onnx_speed,$(ONLY)),$(if $(ONLY),,all)),.venv-onnx/complete)
bench-onnx: .venv-onnx/complete
check-flink: .venv-flink/complete
check-rest: .venv-schemathesis/complete

# Environments beside .venv, each with pins of its own.
.venv-lint/complete .venv-flink/complete: | venv
.venv-%/complete: requirements/%.txt
	@requirements/environment.sh $(@D)
