"""Invocations that cannot work, as a table: the launcher, what is changed of one that would work, and what is named.

A flag that is None is left out; one that is a list is given several times. Words in braces are paths that the fixture
`material` makes, and {value} is the last value that is given of those that are changed.
"""

# By launcher, an invocation that gets as far as reading its files.
GOOD = {
    "prepare": {"input": "{text}", "tokenizer": "{tokenizer}", "seq_len": "32", "output": "out", "workers": "1"},
    "train_tokenizer": {"input": "{text}", "vocab_size": "120", "output": "out"},
    "pretrain": {"gin_file": "{gin}", "data_dir": "{rows}", "workdir": "out"},
    "finetune": {"train": "{table}", "dev": "{table}", "init_from": "{model}", "workdir": "out", "max_seq_len": "32"},
    "predict": {"model": "{classifier}", "input": "{table}", "output": "out"},
    "evaluate": {"model": "{model}", "data_dir": "{rows}"},
    "convert": {"from": "{model}", "to": "out", "format": "huggingface"},
    "fill_mask": {"model": "{model}", "text": "a [MASK] b"},
    "inspect": {"model": "{model}"},
    "plan": {"gin_file": "gin_configs/pretrain/bert_base.gin", "topology": "v5e:4x4"},
}
# What is no file of any use, wherever a path is wanted.
LONG = "x" * 300
NO_PATHS = ["nowhere", "nowhere/deep/er", LONG, "{loop}", "caf\udce9", "naïve/文件"]
NO_FOLDERS = [*NO_PATHS, "{empty}", "{binary}", "{empty_folder}"]

_PREPARE = [
    *(({name: None}, f"--{name} is missing") for name in ("input", "tokenizer", "seq_len", "output")),
    *(({name: ""}, f"--{name}") for name in ("input", "tokenizer", "seq_len", "output")),
    *(({"input": path}, "{value}") for path in NO_PATHS),
    *(
        ({"input": path}, "{value}")
        for path in ("{empty}", "{binary}", "{empty_folder}", "{torn_gz}", "{latin}", "*.nothing")
    ),
    ({"input": ","}, "--input"),
    ({"input": "{text},nowhere"}, "nowhere"),
    ({"input": "tfds:"}, "tfds:"),
    ({"input": "tfds:a/b/c:d:e"}, "tfds:a/b/c:d:e"),
    ({"input": "{text}", "format": "jsonl"}, "{text}:1"),
    ({"input": "{text}", "format": "wikiextractor"}, "{text}:1"),
    ({"input": "pydocs", "format": "plain"}, "pydocs"),
    *(({"tokenizer": path}, "{value}") for path in (*NO_FOLDERS, "{damaged_tokenizer}", "{rows}")),
    *(({"seq_len": value}, "--seq_len=" + value) for value in ("7", "-1", "0", "1e3", "many", "1000000000", "9" * 500)),
    *(({"dupe_factor": value}, "--dupe_factor=" + value) for value in ("0", "-3", "1000000000", "two")),
    *(({"max_pairs_per_row": value, "packing": "true"}, "--max_pairs_per_row=" + value) for value in ("0", "99999999")),
    ({"max_pairs_per_row": "4"}, "--packing"),
    *(({"short_seq_probability": value}, "--short_seq_probability") for value in ("-0.1", "1.5", "nan", "inf", "half")),
    *(({"validation_fraction": value}, "--validation_fraction") for value in ("-0.1", "1", "nan", "inf", "1%")),
    *(({"workers": value}, "--workers=" + value) for value in ("0", "-1", "1000000", "all")),
    *(({"seed": value}, "--seed=" + value) for value in ("one", "0.5", "1" * 30)),
    ({"packing": "perhaps"}, "packing"),
    *(({"pairs": value}, "--pairs=" + value) for value in ("all", "NSP", "")),
    *(({"format": value}, value) for value in ("pdf", "JSONL")),
    *(({"language": value}, value) for value in ("english", "EN", "xx")),
    ({"language": "de", "format": "sentences"}, "--language=de"),
    *(
        ({"output": path}, "{value}")
        for path in (LONG, "{loop}/x", "{empty}", "{empty}/below", "{tokenizer}", "gs://bucket/rows")
    ),
    ({"colour": "red"}, "colour"),
]
_TRAIN_TOKENIZER = [
    ({"output": None}, "--output is missing"),
    ({"input": None}, "--input is missing"),
    *(({"input": path}, "{value}") for path in (*NO_PATHS, "{empty}", "{binary}", "{latin}", "{empty_folder}")),
    *(({"output": path}, "{value}") for path in (LONG, "{empty}", "{empty}/below", "{rows}", "{loop}/x")),
    *(({"vocab_size": value}, "--vocab_size=" + value) for value in ("0", "-5", "12", "1000000000000", "8k")),
    *(({"max_training_mb": value}, "--max_training_mb=" + value) for value in ("0", "-1", "1.5", "10000000000")),
    ({"kind": "bpe"}, "--kind=bpe"),
    ({"algorithm": "bpe"}, "--kind=sentencepiece"),
    ({"algorithm": "word", "kind": "sentencepiece"}, "--algorithm=word"),
    ({"kind": "sentencepiece", "vocab_size": "100000"}, "vocabulary"),
    ({"format": "pdf"}, "--format=pdf"),
    ({"cased": "maybe"}, "cased"),
    ({"vocab_file": "{vocabulary}"}, "--vocab_file"),
    *(
        ({"input": None, "vocab_size": None, "vocab_file": path}, "{value}")
        for path in (*NO_PATHS, "{empty}", "{binary}", "{empty_folder}", "{text}", "{latin}")
    ),
    ({"input": None, "vocab_size": None, "vocab_file": "{vocabulary}", "kind": "sentencepiece"}, "--vocab_file"),
    ({"input": None, "vocab_size": None, "vocab_file": "{vocabulary}", "max_training_mb": "5"}, "--max_training_mb=5"),
    ({"input": None, "vocab_size": None, "from": "{tokenizer}"}, "--add_words"),
    ({"input": None, "vocab_size": None, "add_words": "{words}"}, "--from"),
    ({"vocab_size": None, "from": "{tokenizer}", "add_words": "{words}"}, "--input"),
    *(
        ({"input": None, "vocab_size": None, "from": "{tokenizer}", "add_words": path}, "{value}")
        for path in (*NO_PATHS, "{empty}", "{binary}", "{empty_folder}", "{latin}")
    ),
    *(({"input": None, "vocab_size": None, "add_words": "{words}", "from": path}, "{value}") for path in NO_FOLDERS),
]
_TRAINING = [
    ({"workdir": None}, "--workdir is missing"),
    *(
        ({"workdir": path}, "{value}")
        for path in (LONG, "{empty}", "{empty}/below", "{tokenizer}", "{loop}/x", "gs://b/run", "caf\udce9")
    ),
    *(
        ({"mesh": value}, "--mesh=" + value)
        for value in (
            "",
            "data",
            "data:0",
            "data:-2",
            "rows:2",
            "data:-1,fsdp:-1",
            "data:1,data:1",
            "data:two",
            "data:²",
            "data:" + "9" * 5000,
        )
    ),
    ({"dcn_mesh": "data:-1"}, "--dcn_mesh=data:-1"),
    ({"partitioner": "xmap"}, "--partitioner=xmap"),
    ({"partitioner": "pmap", "mesh": "data:1,fsdp:2"}, "--partitioner=pmap"),
    *(({"peak_tflops": value}, "--peak_tflops=" + value) for value in ("0", "-1", "fast", "nan", "inf")),
    ({"num_processes": "2"}, "--coordinator"),
    ({"process_id": "0"}, "--coordinator"),
    *(
        ({"coordinator": value, "num_processes": "2", "process_id": "0"}, "--coordinator=" + value)
        for value in ("host", "host:", ":1", "host:port", "host:70000", "host:0", "host:²", "host:" + "9" * 5000)
    ),
    ({"coordinator": "h:1", "num_processes": "0", "process_id": "0"}, "--num_processes=0"),
    ({"coordinator": "h:1", "num_processes": "2", "process_id": "2"}, "--process_id=2"),
    ({"coordinator_timeout": "0"}, "--coordinator_timeout=0"),
    ({"heartbeat_timeout": "1" + "0" * 20}, "--heartbeat_timeout=1"),
    ({"local_device_ids": "0"}, "--local_device_ids"),
    ({"local_device_ids": "a", "coordinator": "h:1", "num_processes": "2", "process_id": "0"}, "--local_device_ids=a"),
    *(({"init_from": path}, "{value}") for path in (*NO_FOLDERS, "{tokenizer}", "{damaged_model}")),
    ({"dry_run": "perhaps"}, "dry_run"),
    *(({"gin_file": path}, "{value}") for path in (*NO_PATHS, "{empty_folder}", "{binary}", "{latin}", "{torn_gin}")),
    *(
        ({"gin_param": value}, "--gin_param=" + value.split("=")[0])
        for value in (
            "",
            "steps",
            "x=",
            "Optimizer.b1=b",
            "Optimizer.b1=" + "[" * 5000,
            "=3",
            "nothing.here=1",
            "Optimizer.b1=[",
            "Optimizer.b1=1+1",
        )
    ),
    *(({"plugin": value}, "--plugin=" + value) for value in ("", "os", "no/where")),
    ({"unknown": "1"}, "unknown"),
]
_PRETRAIN = [
    ({"data_dir": None}, "--data_dir is missing"),
    *(({"data_dir": path}, "{value}") for path in (*NO_FOLDERS, "{damaged_rows}", "{tokenizer}")),
    ({"data_dir": ["{rows}", "{rows}"]}, "--data_dir"),
    ({"data_dir": ["{rows}", "{rows_64}"]}, "--data_dir"),
    *(
        ({"profile": value}, "--profile=" + value)
        for value in ("", "3", "1:0", "a:b", "-1:2", "1:99999", "²:1", "1:" + "9" * 5000)
    ),
    ({"data_dir": "{changed_rows}", "verify_rows": "true"}, "{changed_rows}"),
    ({"verify_rows": "all"}, "verify_rows"),
    ({"gin_param": "Schedule.warmup_steps=100"}, "a warm-up of 100 steps"),
    *(
        ({"gin_param": f"{name}={value}"}, name)
        for name, value in (
            ("pretrain.steps", "0"),
            ("pretrain.steps", "10**9"),
            ("pretrain.steps", "1" + "0" * 30),
            ("pretrain.batch_size", "-4"),
            ("pretrain.batch_size", "'4'"),
            ("pretrain.seed", "4294967296"),
            ("pretrain.learning_rate", "'fast'"),
            ("pretrain.log_every", "0"),
            ("pretrain.eval_rows", "0"),
            ("BertConfig.vocab_size", "99"),
            ("BertConfig.hidden_size", "0"),
            ("BertConfig.num_attention_heads", "5"),
            ("BertConfig.hidden_act", "'step'"),
            ("Optimizer.kind", "'sgd'"),
            ("Optimizer.b2", "1.0"),
            ("Schedule.kind", "'square'"),
            ("Masking.mask_share", "2.0"),
            ("Execution.dtype", "'float8'"),
            ("pretrain.phases", "[]"),
        )
    ),
]
_FINETUNE = [
    *(({name: None}, f"--{name} is missing") for name in ("train", "dev", "init_from")),
    *(
        ({"train": path}, "{value}")
        for path in (*NO_PATHS, "{empty}", "{binary}", "{empty_folder}", "{torn_gz}", "{latin}")
    ),
    ({"dev": "{headless}"}, "{headless}"),
    ({"task": "translation"}, "--task=translation"),
    ({"tokenizer": "{tokenizer}"}, "--tokenizer"),
    ({"init_from": "none"}, "--tokenizer"),
    ({"mixing": "sum"}, "--mixing=sum"),
    ({"separator": ";"}, "--separator=;"),
    ({"separator": "", "labels": "multi"}, "separator"),
    ({"labels": "positive"}, "label"),
    ({"labels": "float"}, "{table}"),
    ({"metric": "bleu"}, "bleu"),
    ({"evaluator": "squad1"}, "--evaluator"),
    ({"on_bad_row": "hide"}, "--on_bad_row=hide"),
    ({"format": "xlsx"}, "--format=xlsx"),
    ({"format": "jsonl"}, "{table}"),
    ({"format": "jsonl", "header": "yes"}, "--header=yes"),
    ({"header": "no"}, "{table}"),
    *(({f"{name}_column": "nothing"}, "nothing") for name in ("text", "pair", "label", "id")),
    ({"text_column": "none"}, "--text_column=none"),
    ({"text_column": "²"}, "²"),
    ({"text_column": "9" * 5000}, "999"),
    ({"tag_column": "1"}, "--tag_column"),
    ({"tag_scheme": "IOB2"}, "--tag_scheme"),
    ({"max_question_len": "0"}, "--max_question_len=0"),
    ({"max_answer_len": "9999999999"}, "--max_answer_len=9999999999"),
    ({"n_best": "all"}, "--n_best=all"),
    ({"word_column": "2"}, "--word_column"),
    ({"doc_stride": "16"}, "--doc_stride"),
    ({"context_len": "-1"}, "--context_len=-1"),
    *(({"learning_rate": value}, "learning_rate") for value in ("-1", "nan", "inf", "fast")),
    *(({"epochs": value}, "epochs") for value in ("0", "-1", "nan", "inf", "1e30")),
    *(({"batch_size": value}, "batch_size") for value in ("0", "-8", "1e2", "1" + "0" * 12)),
    *(({"max_seq_len": value}, "max_seq_len") for value in ("0", "7", "100000", "1000000000")),
    *(({"seed": value}, "seed") for value in ("-1", "2147483648", "x")),
    *(({"few_shot": value}, "few_shot") for value in ("0", "-1")),
    ({"patience": "0"}, "patience"),
    ({"long_texts": "middle"}, "long_texts"),
    *(({"seeds": value}, "--seeds=" + value) for value in ("0", "-2", "1000000000")),
    ({"sweep_epochs": "2"}, "--sweep"),
    *(({"sweep": "true", "sweep_learning_rates": value}, "learning_rate") for value in ("x", "-1", "1e-5,,")),
    ({"sweep": "true", "sweep_batch_sizes": "1.5"}, "--sweep_batch_sizes=1.5"),
    ({"sweep": "true", "epochs": "2"}, "--epochs"),
    *(
        ({"tasks": path, "train": None, "dev": None}, "{value}")
        for path in (*NO_PATHS, "{empty}", "{binary}", "{empty_folder}", "{table}")
    ),
    ({"tasks": "{tasks}"}, "--train"),
]
_MODEL_USERS = [
    ({"model": None}, "--model is missing"),
    ({"model": ""}, "--model is missing"),
    *(({"model": path}, "{value}") for path in (*NO_FOLDERS, "{tokenizer}", "{damaged_model}")),
    ({"mesh": "data:x"}, "--mesh=data:x"),
    ({"dcn_mesh": "data:-1"}, "--dcn_mesh=data:-1"),
    ({"checkpoint": "latest", "model": "{rows}"}, "{rows}"),
    ({"checkpoint": "7"}, "7"),
    ({"checkpoint": "9" * 5000}, "999"),
]
# How a file of examples is read that a classifier is used on.
_READING = [
    ({"format": "conll"}, "--format=conll"),
    ({"format": "doc"}, "--format=doc"),
    ({"format": "jsonl"}, "{table}"),
    ({"on_bad_row": "hide"}, "--on_bad_row=hide"),
    *(({f"{name}_column": "nothing"}, "nothing") for name in ("text", "pair", "label", "id")),
    ({"tag_column": "2"}, "--tag_column"),
    ({"word_column": "2"}, "--word_column"),
    ({"tag_scheme": "IOB2"}, "--tag_scheme"),
    ({"header": "perhaps"}, "--header=perhaps"),
]
_PREDICT = [
    *_READING,
    ({"input": None}, "--input is missing"),
    ({"output": None}, "--output is missing"),
    *(({"input": path}, "{value}") for path in (*NO_PATHS, "{empty}", "{binary}", "{empty_folder}", "{torn_gz}")),
    *(
        ({"output": path}, "{value}")
        for path in (LONG, "{empty}", "{empty}/below", "{empty_folder}", "nowhere/out", "{loop}")
    ),
    *(({"batch_size": value}, "--batch_size=" + value) for value in ("0", "-1", "1e3", "1" + "0" * 12)),
    ({"dtype": "float8"}, "--dtype=float8"),
    ({"output_format": "squad"}, "--output_format=squad"),
    ({"output_format": "xml"}, "--output_format=xml"),
    *(({"null_threshold": value}, "--null_threshold") for value in ("nan", "inf", "x", "1")),
    ({"task_name": "sst2"}, "--task_name=sst2"),
    ({"separator": ";"}, "--separator=;"),
    ({"word_column": "0"}, "--word_column=0"),
    ({"doc_stride": "3"}, "doc_stride"),
    ({"model": "{model}"}, "{model}"),
]
_EVALUATE = [
    *(
        ({"model": "{classifier}", "data_dir": None, "input": "{table}", **changed}, named)
        for changed, named in _READING
    ),
    ({"data_dir": None}, "--data_dir is missing"),
    *(({"data_dir": path}, "{value}") for path in (*NO_FOLDERS, "{damaged_rows}", "{other_rows}")),
    ({"input": "{table}"}, "--data_dir"),
    *(({"batch_size": value}, "--batch_size=" + value) for value in ("0", "-1", "x", "1" + "0" * 12)),
    *(({"max_rows": value}, "--max_rows=" + value) for value in ("0", "-1", "all")),
    *(({"seed": value}, "--seed=" + value) for value in ("-1", "x", "9" * 20)),
    ({"split": "test"}, "--split=test"),
    ({"masking": "all"}, "--masking=all"),
    ({"dtype": "int8"}, "--dtype=int8"),
    ({"model": "{classifier}"}, "{classifier}"),
    *(
        ({name: value}, f"--{name}={value}")
        for name, value in (("figure", "x.png"), ("task_name", "a"), ("header", "no"), ("separator", ";"))
    ),
    *(
        ({"model": "{classifier}", "data_dir": None, "input": "{table}", name: value}, f"--{name}={value}")
        for name, value in (("seed", "3"), ("split", "train"), ("max_rows", "5"), ("masking", "yardstick"))
    ),
    *(
        ({"model": "{classifier}", "data_dir": None, "input": "{table}", "figure": value}, "{value}")
        for value in ("x.jpg", "nowhere/x.png", "{empty_folder}", LONG + ".png")
    ),
]
_CONVERT = [
    *(({name: None}, f"--{name} is missing") for name in ("from", "to", "format")),
    *(({"from": path}, "{value}") for path in (*NO_FOLDERS, "{tokenizer}", "{damaged_model}")),
    *(({"to": path}, "{value}") for path in (LONG, "{empty}", "{empty}/below", "{tokenizer}", "{loop}")),
    ({"format": "onnx"}, "--format=onnx"),
    ({"checkpoint": "first"}, "(first)"),
    ({"task_name": "sst2"}, "--task_name=sst2"),
]
_FILL_MASK = [
    ({"text": None}, "--text is missing"),
    ({"text": "no blank"}, "no blank"),
    ({"text": "[mask]"}, "[mask]"),
    *(({"top_k": value}, "--top_k=" + value) for value in ("0", "-1", "many")),
    ({"text": "a \udce9 [MASK]"}, "--text"),
    ({"model": "{classifier}"}, "{classifier}"),
]
_INSPECT = [
    *(
        ({"text": "a b", name: value}, f"--{name}={value}")
        for name, value in (("layer", "99"), ("head", "99"), ("layer", "-99"), ("top_k", "0"), ("layer", "x"))
    ),
    *(
        ({name: value}, f"--{name}={value}")
        for name, value in (
            ("text_pair", "b"),
            ("layer", "0"),
            ("head", "0"),
            ("top_k", "3"),
            ("attention", "x.png"),
            ("mesh", "data:1"),
        )
    ),
    ({"text": "a b", "attention": "", "layer": "0"}, "--layer=0"),
    *(
        ({"text": "a b", "attention": value}, "{value}")
        for value in ("x.jpg", "nowhere/x.png", LONG + ".png", "{empty_folder}.png/x.png")
    ),
]
_PLAN = [
    ({"topology": None}, "--topology is missing"),
    ({"gin_file": None}, "--gin_file is missing"),
    *(({"topology": value}, value) for value in ("v5e", "v5e:3x", "v9z:4x4", "v5e:0x4", "h100:x")),
    *(({"gin_file": path}, "{value}") for path in NO_PATHS),
    *(
        ({name: value}, f"--{name}={value}")
        for name in ("num_slices", "rows_per_step", "phase")
        for value in ("0", "-1", "x", "1" + "0" * 15)
    ),
    ({"seq_len": "1000000000"}, "1000000000"),
    ({"seq_len": "0"}, "--seq_len=0"),
    ({"seq_len": "128"}, "--seq_len=128"),
    ({"mesh": "data:3"}, "--mesh"),
    ({"plugin": "os"}, "--plugin=os"),
    ({"dcn_mesh": "data:-1"}, "--dcn_mesh=data:-1"),
    ({"gin_param": "pretrain.batch_size=0"}, "pretrain.batch_size"),
    *(({"json": path}, "{value}") for path in ("nowhere/x.json", "{empty_folder}", LONG)),
]

TABLES = {
    "prepare": _PREPARE,
    "train_tokenizer": _TRAIN_TOKENIZER,
    "pretrain": [*_TRAINING, *_PRETRAIN],
    "finetune": [*_TRAINING, *_FINETUNE],
    "predict": [*_MODEL_USERS, *_PREDICT],
    "evaluate": [*_MODEL_USERS, *_EVALUATE],
    "convert": _CONVERT,
    "fill_mask": [*_MODEL_USERS, *_FILL_MASK],
    "inspect": [*_MODEL_USERS, *_INSPECT],
    "plan": _PLAN,
}
INVOCATIONS = [(launcher, changed, named) for launcher, table in TABLES.items() for changed, named in table]
