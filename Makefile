# `make help` lists the targets with the text after their "#:".

SHELL := /bin/bash
PYTHON := .venv/bin/python
# In the C locale neither Python 3.7 and pip can fill an environment in a folder whose name is not ASCII, nor TensorFlow load.
ifneq ($(shell locale charmap 2>/dev/null),UTF-8)
export LC_ALL := C.UTF-8
endif

# Servers that tests and checks start on this host are reached without a proxy.
comma := ,
export no_proxy := $(if $(no_proxy),$(no_proxy)$(comma))localhost,127.0.0.1,::1

# `$(call flags,DATA VOCAB)` is `--data '…' --vocab_file '…'`, for those of the variables that are set.
FLAGS := DATA=--data CORPUS=--corpus TASK=--task VOCAB=--vocab_file CHECKPOINT=--init_checkpoint ONLY=--only \
    MINUTES=--minutes MEGABYTES=--megabytes ROUNDS=--rounds SEED=--seed SECONDS=--seconds LIMIT_FILES=--limit_files
flags = $(foreach name,$(1),$(if $($(name)),$(patsubst $(name)=%,%,$(filter $(name)=%,$(FLAGS))) '$($(name))'))

help:
	@sed -nE 's/^([a-z-]+)[ :].*  #: (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf 'make %-18s %s\n' "$$name" "$$text"; done

quickstart: venv  #: set up, then run the whole pipeline on the sample data: text → samples → pretraining → fine-tuning → export → prediction
	$(PYTHON) -m etl.build_pretrain --runner DirectRunner --max_seq_length 128 --eval_fraction 0.1
	$(PYTHON) -m estimator.pretrain --albert_config_file mini --optimizer adamw --learning_rate 0.001 \
	    --train_batch_size 32 --num_train_steps 500 --num_warmup_steps 50 --save_checkpoints_steps 250 --log_steps 50
	$(PYTHON) -m estimator.finetune --do_train=true --do_eval=true --learning_rate 0.0003 --num_train_epochs 10 --log_steps 50
	$(PYTHON) -m serving.export
	printf '%b\n' '手机没信号怎么办\t手机搜不到网络怎么处理' '手机没信号怎么办\t手机屏幕碎了去哪里修' | $(PYTHON) -m serving.predict

venv:  #: set up only: .venv with the pins of constraints.txt
	@requirements/environment.sh .venv

test: venv  #: set up, then run the tests
	$(PYTHON) -m pytest -n auto --dist worksteal --durations=10

# Any Python 3 will do: there may be no .venv yet.
doctor:  #: report what this machine and its .venv have, what will be used, and what is missing
	@python=$$(command -v python3 || command -v python) && "$$python" test/checks/doctor.py

python:  #: print the Python 3.7 from which .venv would be created
	@requirements/environment.sh python

lint: .venv-lint/complete  #: run ruff and mypy over the four packages; in a separate environment
	.venv-lint/bin/ruff check .
	.venv-lint/bin/mypy

# Without the tests that forbid a process to write, which coverage does. Code run by TensorFlow's threads and by other
# processes is not measured: batches from rows, ranks, workers.
coverage: venv  #: run the tests with coverage; list the lines of the four packages that none of them ran
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements/coverage.txt
	$(PYTHON) -m pytest -n auto -k 'not no_room' $(addprefix --cov=,albert_config etl estimator serving) \
	    --cov-report=term-missing:skip-covered

dist: venv  #: wheel and source archive → dist/
	rm -rf build dist
	$(PYTHON) setup.py --quiet sdist bdist_wheel
	@ls dist/*

# TensorFlow's metadata asks for an older NumPy and h5py than have aarch64 wheels; this runs the tests with those that have.
test-aarch64: venv .venv-aarch64/complete  #: run the tests on this machine with the pins of aarch64; separate environment
	.venv-aarch64/bin/python -m pytest -n auto --dist worksteal

check-wheel: dist  #: the wheel in a new environment and an empty folder: the whole pipeline on its own sample data
	$(PYTHON) test/checks/wheel.py dist/*.whl

clean:  #: remove output, build and dist
	rm -rf output build dist

# Benchmarks and checks that are one command: one row each, with the arguments of Python. For flags see its --help.

bench = test/benchmark/bench.py $(call flags,DATA TASK CORPUS VOCAB ONLY)  #: all benchmarks → output/bench/report.html, table.md: DATA=path/to/afqmc TASK=afqmc CORPUS='corpus/*.txt' VOCAB=vocab.txt (an hour or two; ONLY=training_step,growth for a part)
bench-pretrain = test/benchmark/pretrain_quality.py $(call flags,DATA MINUTES)  #: what the tiny config learns in an hour: DATA='corpus/*.txt' (MINUTES=60)
bench-etl = test/benchmark/etl_speed.py $(call flags,DATA VOCAB MEGABYTES ROUNDS)  #: throughput of the sample builder compared with a plain one: DATA='corpus/*.txt' (VOCAB=vocab.txt MEGABYTES=100 ROUNDS=3)
bench-finetune = test/benchmark/finetune_speed.py $(call flags,DATA TASK CHECKPOINT)  #: rows padded to the longest of their batch compared with all to 128, speed and accuracy: DATA=path/to/afqmc TASK=afqmc (CHECKPOINT=albert_tiny_zh)
bench-choices = test/benchmark/choice_heads.py $(call flags,DATA TASK CHECKPOINT)  #: one score for each candidate compared with two classes for each pair: DATA=path/to/c3 (TASK=c3 CHECKPOINT=output/pretrain)
bench-etl-memory = test/benchmark/etl_memory.py $(call flags,DATA)  #: peak memory of the sample builder at 30, 100 and 300 MB of text: DATA='corpus/*.txt' (an hour)
bench-serving = test/benchmark/serving_speed.py $(call flags,DATA)  #: an exported model compared with the plain graph padded to 128, tiny and base: DATA=questions.tsv
bench-model-memory = test/benchmark/model_memory.py  #: what a process grows by with each loaded version, beside the server's estimate: mini, tiny, base
bench-onnx = test/benchmark/onnx_speed.py $(call flags,DATA)  #: an exported model compared with onnxruntime: DATA=questions.tsv; separate environment, 200 MB
bench-server = test/benchmark/server_load.py $(call flags,DATA)  #: the server under load: throughput with and without batching, a soak test, overload: DATA=questions.tsv (15 minutes)
check-learning = -m pytest -n auto -m learning --durations=10  #: training runs that must reach given losses and accuracies; with DATA=path/to/cmrc2018 64 of its questions, too, with DATA=path/to/cluener 100 of its sentences, with DATA=path/to/multi_label_events 100 of its texts, learned by heart
check-variants = -m pytest -n auto -m slow --durations=10  #: trainings and builds in further variants: another generation of npu_bridge, one process instead of two
check-aarch64 = test/checks/aarch64.py  #: ask the package index for each aarch64 pin: a wheel, or a source that needs no compiler
check-onnx = -W ignore test/checks/onnx.py  #: predict_ids converted by tf2onnx and run by onnxruntime, compared with the export; separate environment, 700 MB
check-parity = test/checks/parity.py $(call flags,DATA)  #: compare the tokenizer in the graph with Python's on every code point: DATA='corpus/*.txt' (20 minutes)
check-reading = test/checks/reading_parity.py $(call flags,DATA) --checkpoint '$(or $(CHECKPOINT),output/finetune)'  #: an exported reader's answers, or choices, compared with its evaluation's, each question: DATA=cmrc2018_dev.json, of choices no DATA (CHECKPOINT=output/finetune)
check-tagging = test/checks/tagging_parity.py $(call flags,DATA) --checkpoint '$(or $(CHECKPOINT),output/finetune)'  #: the entities of an exported model compared with its evaluation's, each text, and with Python's for 100,000 random ones: DATA=dev.json (CHECKPOINT=output/finetune)
check-transformers = test/transformers_check/both.py .venv-transformers .venv-transformers5  #: compare logits with Hugging Face's transformers 4 and 5, in both directions; separate environments, 3 and 6 GB
check-java = test/checks/java.py $(call flags,DATA)  #: predictions with an exported model from TensorFlow's Java library: DATA=questions.tsv; needs Java 11 and Maven
check-segmenters = test/benchmark/segmenters.py $(call flags,DATA)  #: whether the fast segmenter finds jieba's words in a text: DATA='corpus/*.txt'
check-sentence-order = test/checks/sentence_order.py $(call flags,DATA VOCAB)  #: how far final marks alone tell the sentence order of samples: DATA='corpus/*.txt'
check-flink = test/checks/flink.py --flink .venv-flink $(call flags,DATA)  #: the sample builder on a Flink cluster of two task managers, started here, the same bytes: DATA='corpus/*.txt'; Linux (unshare, ip), Java 17, Maven; 400 MB of downloads into .venv-flink (15 minutes)
check-npu-resume = test/checks/npu_resume.py  #: runs on the stand-in for npu_bridge, killed after an overflow, against runs that were not: one rank and two, bit for bit (9 minutes on two busy cores)
check-page = test/checks/page.py  #: the server's page in headless Chromium; needs chromium and chromedriver
check-rest = test/checks/rest.py --schemathesis .venv-schemathesis/bin/schemathesis  #: fuzz the REST API; separate environment, with Python 3.10 or later
check-attack = test/checks/all_of.py attack $(ONLY)  #: malicious requests and files for a server, a build, a folder; as root, for a second address (ONLY='rest grpc_port' for a part)
check-clients = test/checks/all_of.py clients $(ONLY)  #: the server with common clients: Python, Node, Go, curl; models that read; two models under load while all about them changes; nginx in front of two servers that are restarted in turn (ONLY='other_languages several_models reading' for a part)
check-fuzz = -W ignore test/checks/fuzz.py $(call flags,SEED)  #: 210,000 mutated bodies, tf.Examples and gRPC messages sent to a server (10 minutes; SEED=7 for others)
check-soak = -W ignore test/checks/soak.py $(call flags,SECONDS LIMIT_FILES)  #: a server under load while versions come and go, its log is not read, and thousands of connections idle; SIGTERM at the end: no request is lost (SECONDS=600 LIMIT_FILES=1024)

ROWS := $(filter bench bench-% check-%,$(.VARIABLES))
.PHONY: help quickstart venv test test-aarch64 doctor python lint coverage dist check-wheel clean $(ROWS)
$(ROWS): venv
	$(PYTHON) $($@)

bench: $(if $(or $(findstring onnx_speed,$(ONLY)),$(if $(ONLY),,all)),.venv-onnx/complete)
bench-onnx: .venv-onnx/complete
check-flink: .venv-flink/complete
check-onnx: .venv-tf2onnx/complete
check-transformers: .venv-transformers/complete .venv-transformers5/complete
check-rest: .venv-schemathesis/complete
check-clients: .venv-clients/complete

# Environments beside .venv, each with its own pins.
.venv-lint/complete .venv-flink/complete .venv-tf2onnx/complete .venv-aarch64/complete: | venv
.venv-aarch64/complete: constraints.txt
.venv-%/complete: requirements/%.txt
	@requirements/environment.sh $(@D)
