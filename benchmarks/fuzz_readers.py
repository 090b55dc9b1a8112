"""Every reader of files that others wrote, with small files of every format that it reads, to be damaged by fuzz.py."""

import dataclasses
import io
import json
import pathlib
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data import rows
from bert_jax.interop import google, huggingface
from bert_jax.interop.bert import BERT
from bert_jax.interop.json_config import bert_config, shared_fields
from bert_jax.interop.model_family import Family
from bert_jax.interop.modernbert import MODERNBERT
from bert_jax.interop.names import axis_sizes
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.examples.choices import continuations, read_choices
from bert_jax.tasks.examples.labels import collect_labels
from bert_jax.tasks.examples.places import POLICIES, BadRows
from bert_jax.tasks.examples.relation_files import open_relations
from bert_jax.tasks.examples.squad import QuestionFile
from bert_jax.tasks.examples.tables import open_table
from bert_jax.tasks.examples.tagged_files import open_tagged
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.tasks.tagging import Tagging
from bert_jax.text.added_words import add_words, read_added_words
from bert_jax.text.documents import FORMATS, check_inputs, describe_inputs, read_passages
from bert_jax.text.json_files import read_json_object
from bert_jax.text.tokenizer import SPECIAL_TOKENS
from bert_jax.text.tokenizers import load_tokenizer, train_tokenizer
from bert_jax.text.wordpiece import WordPieceTokenizer, read_vocabulary
from bert_jax.training.curves import read_curves
from bert_jax.training.run_identity import check_identity, read_identity
from launch.configuration import load_finetune, load_pretrain
from launch.finetuned_model import open_finetuned
from launch.multitask_files import read_tasks

Files = Mapping[str, bytes]
_TOKENS = (*SPECIAL_TOKENS, "the", "quick", "brown", "fox", "café", "##s", "中", "文", "a", "##b", ".")
_TEXT = "The quick brown fox jumps over the lazy dog, 27 times in 1984. It was a café, and 中文 too."
_SIZES = BertConfig(
    vocab_size=len(_TOKENS), hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=4,
    max_position_embeddings=8,
)  # fmt: skip
_MODERN = dataclasses.replace(
    _SIZES, position_embedding_type="rotary", layer_norm_placement="pre_and_embeddings", use_bias=False,
    feed_forward_type="gated", type_vocab_size=0,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        seeds: folders of sound files, by name; a case damages a file of one of them.
        read: reads such a folder, with choices drawn at random where there are options.
    """

    seeds: Sequence[Files]
    read: Callable[[pathlib.Path, random.Random], Any]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _json_lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def _saved(tokenizer: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(pathlib.Path(folder) / "saved")
        return {path.name: path.read_bytes() for path in (pathlib.Path(folder) / "saved").iterdir()}


# ---- Tokenizers


def _wordpiece() -> WordPieceTokenizer:
    return add_words(WordPieceTokenizer([*_TOKENS, "[unused0]"], cased=False), ["lazy", "dog"])[0]


def _sentencepiece() -> Any:
    words = ["one", "two", "three", "four", "five", "six"]
    return train_tokenizer([f"{word} {_TEXT}" for word in words] * 5, "sentencepiece", 45)


def _published() -> dict[str, bytes]:
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    return {name: content for name, content in _saved(_wordpiece()).items() if name in names}


def _vocabulary() -> dict[str, bytes]:
    added = {str(len(_TOKENS)): {"content": "<x>", "special": True}}
    return {
        "vocab.txt": "".join(f"{token}\n" for token in _TOKENS).encode(),
        "tokenizer_config.json": _json(
            {"tokenizer_class": "BertTokenizer", "never_split": ["[MASK]"], "added_tokens_decoder": added}
        ),
        "added_tokens.json": _json({"[MASK]": _TOKENS.index("[MASK]")}),
    }


def _read_tokenizer(folder: pathlib.Path, draw: random.Random) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.encode_with_offsets([_TEXT, ""])
    tokenizer.decode(tokenizer.encode_with_masks(f"{_TEXT} [MASK] ."))
    read_added_words(tokenizer)
    if draw.random() < 0.1:
        saved = folder.parent / "saved"
        tokenizer.save(saved)
        assert load_tokenizer(saved).fingerprint == tokenizer.fingerprint


# ---- Models and rows


def _tensors(family: Family, config: BertConfig, model_class: str) -> dict[str, np.ndarray]:
    sizes = axis_sizes(config, 3)
    return {
        name: np.zeros(tensor.shape(sizes), np.float32)
        for tensor in family.table.tensors_of(model_class)
        for name in tensor.names(config.num_hidden_layers)
    }


def _model(family: Family, config: BertConfig, model_class: str, shards: int) -> dict[str, bytes]:
    from safetensors.numpy import save

    task = Classification("single", ("bad", "fine", "good"), None, (), False)
    fields = {
        "architectures": [family.table.class_names[model_class]],
        "model_type": family.model_type,
        **family.write_config(config, None),
        "id2label": {"0": "bad", "1": "fine", "2": "good"},
        "bert_jax": {"model_class": model_class, "finetuning": task.to_json()},
    }
    tensors = _tensors(family, config, model_class)
    files = {"config.json": _json(fields), "vocab.txt": "\n".join(_TOKENS).encode()}
    if shards == 1:
        return {**files, huggingface.WEIGHTS_FILE: save(tensors)}
    shard_of = {name: f"model-0000{index % shards}.safetensors" for index, name in enumerate(tensors)}
    for shard in set(shard_of.values()):
        files[shard] = save({name: array for name, array in tensors.items() if shard_of[name] == shard})
    return {**files, huggingface.INDEX_FILE: _json({"metadata": {}, "weight_map": shard_of})}


def _read_model(folder: pathlib.Path, draw: random.Random) -> None:
    match, reader = huggingface.open_directory(folder)
    match.report.lines()
    for name in match.report.loaded:
        reader.read(name)
    found = huggingface.read_task(folder, match.model_class)
    if "finetuning" in found:
        task_from_json(found["finetuning"], {"null_threshold": 0.5}).to_json()


def _read_google_config(folder: pathlib.Path, draw: random.Random) -> None:
    bert_config(folder / google.CONFIG_FILE, read_json_object(folder / google.CONFIG_FILE), {"gelu": "gelu"})


def _task_records() -> list[Files]:
    tasks = (
        Classification("multi", ("a", "b"), None, (), False),
        Tagging(("O", "B-X", "I-X"), None, 3),
        QuestionAnswering("squad2", True),
        MultipleChoice(4, None),
    )
    return [{"record.json": _json(task.to_json())} for task in tasks]


def _read_task_record(folder: pathlib.Path, draw: random.Random) -> None:
    task = task_from_json(read_json_object(folder / "record.json"))
    json.dumps(task.to_json())


def _rows() -> dict[str, bytes]:
    shard = rows.Shard("bert_rows-train.array_record-00000-of-00001", 3, 5, "ab" * 32)
    source = {"input": "x.txt", "format": "auto", "language": "en"}
    counts = io.BytesIO()
    np.save(counts, np.arange(17))
    manifest = rows.Manifest(rows.Recipe(16), source, "cd" * 32, 17, {"train": [shard]})
    return {
        rows.MANIFEST_FILE: _json(manifest.to_json()),
        rows.TOKEN_COUNTS_FILE: counts.getvalue(),
        shard.file: b"12345",
        f"{rows.TOKENIZER_DIRECTORY}/vocab.txt": b"",
    }


def _read_rows(folder: pathlib.Path, draw: random.Random) -> None:
    store = rows.open_rows(folder)
    for split in rows.SPLITS:
        store.num_rows(split)


def _run(of_several: bool) -> dict[str, bytes]:
    task = Classification("single", ("bad", "fine", "good"), None, (), False)
    record = {
        "architecture": _SIZES.to_json(),
        "model_class": task.model_class,
        "labels": ["bad", "fine", "good"],
        "checksums": {"params/bert/embeddings/word_embeddings/embedding": 5},
        "finetuning": {**task.to_json(), "max_seq_len": 8, "long_texts": "head"},
        "best_by": {"metric": "accuracy", "larger_is_better": True},
    }
    if of_several:
        record = {**record, "labels": None, "tasks": {"moods": record, "others": record}}
    identity = {"finetune.steps": 8, "tokenizer": "ab" * 32, "init_from": None, "Schedule.kind": "linear"}
    files = {"run.json": _json(identity)}
    vocabulary = "\n".join(_TOKENS).encode()
    for step, accuracy in ((4, 0.75), (8, 0.5)):
        at = f"checkpoints/{step}"
        run = {**record, "step": step, "validation": {"loss": 0.5, "accuracy": accuracy}}
        files |= {
            f"{at}/run/metadata": _json(run),
            f"{at}/state/array": b"",
            f"{at}/files/tokenizer/vocab.txt": vocabulary,
        }
    return files


def _read_run(folder: pathlib.Path, draw: random.Random) -> None:
    saved = read_identity(folder)
    wanted = {"finetune.steps": 12, "tokenizer": "ab" * 32, "init_from": None, "Schedule.kind": "linear"}
    if saved is not None:
        check_identity(
            folder,
            saved,
            wanted,
            last_steps="finetune.steps",
            schedule_depends_on_steps=False,
            allow_schedule_change=draw.random() < 0.5,
        )
    task_name = (
        draw.choice(("moods", None)) if b"moods" in (folder / "checkpoints/4/run/metadata").read_bytes() else None
    )
    open_finetuned(str(folder), draw.choice((None, "latest", "best", "4", "8")), task_name)


_METRICS = _json_lines(
    {"split": "train", "step": 1, "loss": 2.5, "learning_rate": 0.1},
    {"split": "train", "step": 2, "loss": 2.25, "learning_rate": 0.1},
    {"split": "validation", "step": 2, "loss": 2.0, "accuracy": None},
)


def _read_metrics(folder: pathlib.Path, draw: random.Random) -> None:
    read_curves(folder / "metrics.jsonl")


# ---- Texts and examples


_CORPORA: Sequence[Files] = (
    {"a.txt": f"{_TEXT}\n{_TEXT}\n\n{_TEXT} and so on\nand on\n".encode()},
    {"a.txt": f"{_TEXT.split('.')[0]}.\nIt was late.\n\nAnother one.\n".encode()},
    {"a.jsonl": _json_lines({"text": _TEXT, "id": 1}, {"text": "Two\n\nparagraphs."}, {"text": ""})},
    {"a.txt": f'<doc id="1" title="T">\nT\n\n{_TEXT}\nHistory.\n</doc>\n<doc id="2">\nU\n</doc>\n'.encode()},
)


def _read_corpus(folder: pathlib.Path, draw: random.Random) -> None:
    format = draw.choice(FORMATS)
    check_inputs(str(folder), format)
    describe_inputs(str(folder), format)
    for passage in read_passages(str(folder), format):
        assert passage.text.strip()
        passage.text.encode()


def _only_file(folder: pathlib.Path) -> str:
    return str(next(folder.iterdir()))


_TABLES: Sequence[Files] = (
    {"a.csv": b'text,label,id\n"good, ""very"" good",1,7\n"two\nlines",0,8\nbad,0,9\n'},
    {"a.csv": b"sentence1;sentence2;score\na;b;1.5\nc;d;2\n"},
    {"a.tsv": b"sentence\tlabel\nfine day\t1\nbad day\t0\n"},
    {"a.tsv": b"gj04\t1\t\tOne sentence.\ngj04\t0\t*\tOther sentence.\n"},
    {"a.jsonl": _json_lines({"text": "good", "label": "a", "id": 1}, {"text": "bad", "label": ["a", "b"], "id": "x"})},
    {"a.csv": b'text,labels\nx,"[""a"", ""b""]"\ny,a|b\n'},
)


def _read_table(folder: pathlib.Path, draw: random.Random) -> None:
    kind = draw.choice(("single", "multi", "float", "none"))
    table = open_table(_only_file(folder), kind=kind, header=draw.choice(("auto", "auto", "yes")))
    table.describe()
    bad_rows = BadRows(draw.choice(POLICIES))
    examples = list(table.read(bad_rows))
    bad_rows.report()
    if kind in ("single", "multi"):
        collect_labels(examples)


_TAGGED: Sequence[Files] = (
    {"a.conll": b"-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\nGerman JJ B-MISC\n\nPeter NNP B-PER\nB NNP I-PER\n"},
    {"a.txt": b"# comment\nEU\tS-ORG\nrejects\tO\n\nPeter\tB-PER\nB\tE-PER\n"},
    {"a.jsonl": _json_lines({"tokens": ["EU", "now"], "tags": ["B-ORG", "O"]}, {"words": ["a"], "ner_tags": ["O"]})},
    {
        "a.jsonl": _json_lines(
            {"text": "EU now", "label": {"org": {"EU": [[0, 1]]}}},
            {"text": "In EU", "entities": [{"start": 3, "end": 5, "label": "org"}, [0, 2, "x"]], "id": "k"},
        )
    },
)


def _read_tagged(folder: pathlib.Path, draw: random.Random) -> None:
    bad_rows = BadRows(draw.choice(POLICIES))
    file = open_tagged(_only_file(folder), bad_rows, with_tags=draw.random() < 0.8)
    list(file)
    bad_rows.report()


_QUESTION = {"id": "q", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 0}]}
_CONTEXT = "Paris is in France."
_IMPOSSIBLE = {"id": "r", "question": "Who?", "answers": [], "is_impossible": True}
_QUESTIONS: Sequence[Files] = (
    {
        "a.json": _json(
            {"version": "2", "data": [{"paragraphs": [{"context": _CONTEXT, "qas": [_QUESTION, _IMPOSSIBLE]}]}]}
        )
    },
    {"a.json": _json_lines({"version": "1", "data": [{"paragraphs": [{"context": _CONTEXT, "qas": [_QUESTION]}]}]})},
    {
        "a.jsonl": _json_lines(
            {**_QUESTION, "context": _CONTEXT},
            {"id": 5, "question": "x", "context": "y z", "answers": {"text": ["z"], "answer_start": [2]}},
        )
    },
)


def _read_questions(folder: pathlib.Path, draw: random.Random) -> None:
    bad_rows = BadRows(draw.choice(POLICIES))
    file = QuestionFile(_only_file(folder), bad_rows, with_answers=draw.random() < 0.8)
    list(file)
    file.report()


_CHOICES: Sequence[Files] = (
    {
        "a.jsonl": _json_lines(
            {"article": "A b.", "questions": ["Who _ ?"], "options": [["x", "y"]], "answers": ["A"], "id": "h1"}
        )
    },
    {"a.csv": b",sent1,sent2,ending0,ending1,label\n3,He sat.,He,ran,slept,1\n4,She sat.,She,ran,slept,0\n"},
    {"a.jsonl": _json_lines({"ctx": "He", "endings": ["ran", "sat"], "label": 1, "ind": 4})},
    {"a.jsonl": _json_lines({"context": "c", "question": "q", "choices": ["a", "b"], "answer": "b", "id": 1})},
)


def _read_choices(folder: pathlib.Path, draw: random.Random) -> None:
    bad_rows = BadRows(draw.choice(POLICIES))
    for example in read_choices(_only_file(folder), bad_rows=bad_rows, with_answers=draw.random() < 0.8):
        continuations(example)


_SENTENCES = b"""1\t"The <e1>fox</e1> ate <e2>it</e2>."
Cause-Effect(e1,e2)
Comment: none

2\t"<e2>A</e2> <e1>b</e1>"
Other

"""
_RELATIONS: Sequence[Files] = (
    {"a.txt": _SENTENCES},
    {"a.csv": b"text,relation\n<e1>a</e1> of <e2>b</e2>,R(e1.e2)\n"},
)


def _read_relations(folder: pathlib.Path, draw: random.Random) -> None:
    list(open_relations(_only_file(folder), BadRows(draw.choice(POLICIES)), with_labels=draw.random() < 0.8)[1])


_TASKS = {
    "sst2": {"task": "classification", "train": "sst2.tsv", "dev": "dev.tsv", "labels": ["a", "b"], "weight": 0.5},
    "ner": {"task": "tagging", "train": "ner.txt", "dev": "ner.txt", "word_column": 1, "max_answer_len": 5},
}


_INNER = b"""# A comment
BertConfig.hidden_size = 8
BertConfig.num_attention_heads = 2
SIZE = 16
"""
_RUN = b"""include 'gin_configs/models/tiny.gin'
pretrain.phases = [@first/Phase(), @second/Phase()]
first/Phase.seq_len = 16
first/Phase.batch_size = %SIZE
first/Phase.steps = 3
second/Phase.seq_len = 32
second/Phase.batch_size = 4
second/Phase.steps = 2
pretrain.learning_rate = 1e-3
Schedule.kind = 'linear'
Masking:
  whole_word = True
"""


def _read_configuration(folder: pathlib.Path, draw: random.Random) -> None:
    files = [str(folder / name) for name in ("inner.gin", "run.gin")]
    if draw.random() < 0.5:
        load_pretrain(files, [])
    else:
        load_finetune(files[:1], [], {})


def readers() -> dict[str, Reader]:
    """Returns all readers by name."""
    return {
        "tokenizer": Reader([_saved(_wordpiece()), _saved(_sentencepiece())], _read_tokenizer),
        "published tokenizer": Reader([_published(), _vocabulary()], _read_tokenizer),
        "vocabulary": Reader(
            [{"vocab.txt": _vocabulary()["vocab.txt"]}], lambda folder, _: read_vocabulary(folder / "vocab.txt")
        ),
        "model": Reader(
            [
                _model(BERT, _SIZES, "BertForSequenceClassification", 1),
                _model(BERT, _SIZES, "BertForPreTraining", 2),
                _model(MODERNBERT, _MODERN, "BertForMaskedLM", 1),
            ],
            _read_model,
        ),
        "google configuration": Reader([{google.CONFIG_FILE: _json(shared_fields(_SIZES))}], _read_google_config),
        "task record": Reader(_task_records(), _read_task_record),
        "rows": Reader([_rows()], _read_rows),
        "run": Reader([_run(False), _run(True)], _read_run),
        "metrics": Reader([{"metrics.jsonl": _METRICS}], _read_metrics),
        "corpus": Reader(_CORPORA, _read_corpus),
        "table": Reader(_TABLES, _read_table),
        "tagged": Reader(_TAGGED, _read_tagged),
        "questions": Reader(_QUESTIONS, _read_questions),
        "choices": Reader(_CHOICES, _read_choices),
        "relations": Reader(_RELATIONS, _read_relations),
        "configuration": Reader([{"inner.gin": _INNER, "run.gin": _RUN}], _read_configuration),
        "tasks": Reader([{"tasks.json": _json(_TASKS)}], lambda folder, _: read_tasks(folder / "tasks.json")),
    }
