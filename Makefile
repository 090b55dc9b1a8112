# The two commands of the README are `make pretrain` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup lint format test pretrain

# Where `make pretrain` puts its tokenizer, rows and run; another corpus or configuration by
#   make pretrain RUN=runs/mine INPUT='texts/*.txt' GIN_FILE=gin_configs/pretrain/mini.gin
RUN ?= runs/pydocs
INPUT ?= pydocs
GIN_FILE ?= gin_configs/pretrain/quick.gin

setup: $(VENV)/.installed

# The constraints file pins the set of versions that was tested; setup.cfg declares the ranges that should work.
$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[test]
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Every step says so and does nothing where its result is there already; the training resumes where it was.
pretrain: setup
	$(BIN)/python -m launch.train_tokenizer --input='$(INPUT)' --kind=wordpiece --vocab_size=8192 --output=$(RUN)/tokenizer
	$(BIN)/python -m launch.prepare --input='$(INPUT)' --tokenizer=$(RUN)/tokenizer --seq_len=128 --pairs=none --packing --output=$(RUN)/rows
	$(BIN)/python -m launch.pretrain --gin_file=$(GIN_FILE) --data_dir=$(RUN)/rows --workdir=$(RUN)/model
	$(BIN)/python -m launch.fill_mask --model=$(RUN)/model --top_k=5 \
	    --text='Opening a file that does not exist raises an [MASK].' \
	    --text='The methods of this class [MASK] not safe to call from several threads at once.' \
	    --text='The iterator yields the lines of the file one by one. Empty [MASK] are skipped.'
