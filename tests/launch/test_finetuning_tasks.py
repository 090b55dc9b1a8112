"""Each task through the launchers: files in, a few steps, a checkpoint, and predictions from it in the files' order."""

import json

import pytest

from bert_jax.errors import UserError
from launch.convert import main as convert
from launch.finetune import main as finetune
from launch.finetuned_model import open_finetuned
from launch.predict import main as predict

CONLL = "-DOCSTART- -X- O\n\nbob NN B-PER\nis VB O\nin IN O\nkala NN B-LOC\nmu NN I-LOC\n\nno UH O\nal NN B-PER\n\n"
SENTENCES = '{"id": "s1", "tokens": ["bob", "fled"]}\n{"id": "s2", "tokens": ["no", "kala", "mu"]}\n'
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "bob fed al in kala and mu and li and lo and ma. li is in bada.",
                    "qas": [
                        {"id": "q1", "question": "who?", "answers": [{"text": "bob", "answer_start": 0}]},
                        {"id": "q2", "question": "li?", "answers": [{"text": "bada", "answer_start": 57}]},
                        {"id": "q3", "question": "why?", "answers": [], "is_impossible": True},
                    ],
                }
            ]
        }
    ]
}
QUESTIONS = (
    '{"id": "n2", "question": "who?", "context": "al fed bob"}\n{"id": "n1", "question": "a?", "context": "b"}\n'
)
SWAG = "sent1,sent2,ending0,ending1,ending2,label\nbob is,he,fed,led,is,1\nal is,he,led,fed,is,0\nli,,ka,la,mu,2\n"
RELATIONS = "".join(
    f'{number}\t"the <e1>{first}</e1> of <e2>{second}</e2> is."\n{label}\nComment:\n\n'
    for number, first, second, label in [
        (1, "ka", "la", "Cause-Effect(e1,e2)"),
        (2, "mu", "li", "Other"),
        (3, "li", "ka", "Cause-Effect(e2,e1)"),
    ]
)
TASKS = {
    "tagging": (CONLL, SENTENCES, ("s1", "s2"), "f1"),
    "question_answering": (json.dumps(SQUAD), QUESTIONS, ("n2", "n1"), "best_f1"),
    "multiple_choice": (SWAG, SWAG.replace(",label", ",other"), ("0", "1", "2"), "accuracy"),
    "relation": (RELATIONS, '9\t"<e2>ka</e2> fed <e1>mu</e1>"\n', ("9",), "macro_f1"),
}
FLAGS = {"question_answering": ["--doc_stride=5", "--max_question_len=6", "--n_best=2"]}
NAMES = {"multiple_choice": "{}.csv", "relation": "{}.txt", "classification": "{}.csv"}


@pytest.fixture
def tune(tmp_path, repository_root):
    """Fine-tunes the small golden BERT on the task's file, three steps."""

    def call(task, *flags):
        data = tmp_path / NAMES.get(task, "{}.data").format("train")
        if not data.exists():
            data.write_text(TASKS[task][0])
        arguments = [f"--task={task}", f"--train={data}", f"--dev={data}", f"--workdir={tmp_path / 'run'}"]
        arguments += ["--epochs=1.5", "--batch_size=2", "--max_seq_len=24", *FLAGS.get(task, ())]
        arguments.append(f"--init_from={repository_root / 'tests' / 'golden' / 'BertModel'}")
        bindings = ["--gin_param=finetune.padded_lengths=1", "--gin_param=finetune.log_every=1"]
        return finetune(["finetune", *arguments, *bindings, *flags])

    return call


@pytest.mark.parametrize("task", TASKS)
def test_from_files_to_predictions(task, tmp_path, tune, read_log, capsys):
    _, text, ids, metric = TASKS[task]
    assert tune(task) == 0
    (scores,) = read_log(tmp_path / "run", "validation")[-1:]
    assert 0 <= scores[metric] <= 1
    out = capsys.readouterr().out
    assert "examples" in out and f"\n{metric} " in out
    new, output = tmp_path / NAMES.get(task, "{}.data").format("new"), tmp_path / "predictions.jsonl"
    new.write_text(text)
    arguments = [f"--model={tmp_path / 'run'}", f"--input={new}", f"--output={output}", "--batch_size=2"]
    assert predict(["predict", *arguments]) == 0
    predictions = [json.loads(line) for line in output.read_text().splitlines()]
    assert tuple(row["id"] for row in predictions) == ids
    if task == "tagging":
        assert [row["words"] for row in predictions] == [["bob", "fled"], ["no", "kala", "mu"]]
        assert {tag for row in predictions for tag in row["tags"]} <= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}
    elif task == "question_answering":
        assert predictions[0]["answer"] in ("", *(span["text"] for span in predictions[0]["n_best"]))
        assert all(row["answer"] in context for row, context in zip(predictions, ("al fed bob", "b"), strict=True))
        # What the dev set decided goes with the model.
        best = max(read_log(tmp_path / "run", "validation"), key=lambda line: line[metric])
        assert open_finetuned(str(tmp_path / "run"), None).task.null_threshold == best["null_threshold"]
        _check_official_answers(tmp_path, arguments, predictions, capsys)
    elif task == "multiple_choice":
        assert all(len(row["probabilities"]) == 3 for row in predictions)
    else:
        assert predictions[0]["label"] in predictions[0]["probabilities"]


_LABELS = {"single": ("ka", "mu", "ka"), "multi": ("ka|mu", "mu", ""), "float": ("0.5", "2", "-1")}


@pytest.mark.parametrize("kind", [*TASKS, *_LABELS])
def test_a_converted_model_answers_as_the_run(kind, tmp_path, tune, capsys):
    """With what the task is, its labels, the length, the markers and what the dev set decided."""
    flags = {"relation": ["--gin_param=finetune.pooling='cls'"]}.get(kind, [])
    task, new = kind, TASKS[kind][1] if kind in TASKS else "text\nbob fed al in kala and mu\nno\n"
    if kind in _LABELS:
        rows = zip(("bob fed al", "li is in kala", "ma"), _LABELS[kind], strict=True)
        (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
        task, flags = "classification", [f"--labels={kind}", "--max_seq_len=8", "--long_texts=windows"]
    assert tune(task, "--epochs=1", *flags) == 0
    found, source = [], None
    input_file = tmp_path / NAMES.get(task, "{}.data").format("new")
    input_file.write_text(new)
    # Each from the one before.
    for name, format in (("run", None), ("theirs", "huggingface"), ("ours", "bert_jax"), ("again", "huggingface")):
        model = tmp_path / name
        if format:
            folders = [f"--from={source}", f"--to={model}", *(["--checkpoint=best"] if name == "theirs" else [])]
            assert convert(["convert", *folders, f"--format={format}"]) == 0
        source = model
        if name == "ours":
            continue  # it is what "again" is made of
        output = tmp_path / f"{model.name}.jsonl"
        assert predict(["predict", f"--model={model}", f"--input={input_file}", f"--output={output}"]) == 0
        found.append([json.loads(line) for line in output.read_text().splitlines()])
    assert found[0] == found[1] == found[2] and found[0]
    configuration = json.loads((tmp_path / "again" / "config.json").read_text())
    # A head of one output has one label: without names, transformers takes it for one of two.
    assert (len(configuration.get("id2label", ())) == 1) == (kind in ("float", "multiple_choice"))
    if task == "classification":
        types = {"single": "single_label_classification", "multi": "multi_label_classification", "float": "regression"}
        assert configuration["problem_type"] == types[kind]
        assert len(configuration["id2label"]) == (1 if kind == "float" else 2)
        # What was not made here says only what transformers says, and keeps saying it.
        del configuration["bert_jax"]
        (tmp_path / "again" / "config.json").write_text(json.dumps(configuration))
        for format in ("bert_jax", "huggingface"):
            folders = [f"--from={tmp_path / 'again'}", f"--to={tmp_path / format}"]
            assert convert(["convert", *folders, f"--format={format}"]) == 0
        for model in ("again", "bert_jax", "huggingface"):
            tuned = open_finetuned(str(tmp_path / model), None)
            assert tuned.task.kind == kind and tuned.max_seq_len > 8
            assert tuned.task.labels == (None if kind == "float" else ("ka", "mu"))


def test_what_a_configuration_says_is_checked(tmp_path, repository_root):
    """Others save what they read again: with another head, without one, or with more outputs."""
    import shutil

    tuned = {"task": "question_answering", "labels": None}
    record = {"model_class": "BertForQuestionAnswering", "finetuning": tuned}
    for name, added, message in (
        ("BertModel", {"bert_jax": record}, "is a BertModel that is not fine-tuned for a task"),
        ("BertForSequenceClassification", {"problem_type": "regression"}, "predicts 4 numbers of a text"),
    ):
        shutil.copytree(repository_root / "tests" / "golden" / name, tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **added}))
        with pytest.raises(UserError, match=message):
            open_finetuned(str(tmp_path / name), None)


def _check_official_answers(tmp_path, arguments, predictions, capsys):
    """The answers alone, with the threshold of the dev set, and with ones that leave nothing or everything."""
    arguments = [argument for argument in arguments if not argument.startswith("--output")]
    for threshold, expected in (
        (None, [row["answer"] for row in predictions]),
        (-1e9, ["", ""]),
        (1e9, [next((span["text"] for span in row["n_best"] if span["text"]), "") for row in predictions]),
    ):
        output = tmp_path / f"official{threshold}.json"
        flags = [] if threshold is None else [f"--null_threshold={threshold}"]
        assert predict(["predict", *arguments, f"--output={output}", "--output_format=squad", *flags]) == 0
        assert json.loads(output.read_text()) == {
            row["id"]: text for row, text in zip(predictions, expected, strict=True)
        }


def test_a_model_predicts_with_the_context_that_it_was_tuned_with(tmp_path, tune, read_log, capsys, monkeypatch):
    """Its dev set's loss is that of the rows that evaluation makes again, and predictions do not depend on chunks."""
    import launch.predict
    from launch.evaluate import main as evaluate

    assert tune("tagging", "--context_len=4") == 0
    assert open_finetuned(str(tmp_path / "run"), "latest").task.context_len == 4
    loss = read_log(tmp_path / "run", "validation")[-1]["loss"]
    capsys.readouterr()
    arguments = [f"--model={tmp_path / 'run'}", f"--input={tmp_path / 'train.data'}", "--checkpoint=latest"]
    assert evaluate(["evaluate", *arguments]) == 0
    assert f"\nloss{loss:>34.4f}" in capsys.readouterr().out
    found = []
    for chunk in (4096, 1):
        monkeypatch.setattr(launch.predict, "_CHUNK", chunk)
        output = tmp_path / f"{chunk}.jsonl"
        assert predict(["predict", *arguments, f"--output={output}"]) == 0
        found.append([json.loads(line) for line in output.read_text().splitlines()])
    probabilities = [[one for row in rows for one in row["probabilities"]] for rows in found]
    assert len(found[0]) == 2 and [row["tags"] for row in found[0]] == [row["tags"] for row in found[1]]
    assert probabilities[0] == pytest.approx(probabilities[1], rel=1e-5)


def test_flags_for_questions_are_for_questions(tmp_path, tune, capsys):
    assert tune("relation") == 0
    capsys.readouterr()
    new = tmp_path / "new.txt"
    new.write_text(TASKS["relation"][1])
    for flag, message in (
        ("--output_format=squad", "--output_format=squad is for question answering, and the model's task is relation"),
        ("--null_threshold=1", "--null_threshold is for questions that may have no answer"),
    ):
        output = tmp_path / "predictions.json"
        arguments = [f"--model={tmp_path / 'run'}", f"--input={new}", f"--output={output}", flag]
        assert predict(["predict", *arguments]) == 2 and not output.exists()
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("task", "max_seq_len", "batch_size", "epochs"),
    [
        ("classification", 128, 32, 3),
        ("tagging", 128, 32, 3),
        ("question_answering", 384, 32, 2),
        ("multiple_choice", 128, 16, 3),
        ("relation", 128, 16, 5),
    ],
)
def test_each_task_has_a_recipe(task, max_seq_len, batch_size, epochs):
    from launch.configuration import load_finetune

    recipe, architecture, _ = load_finetune([f"gin_configs/finetune/{task}.gin"], [], {})
    assert (recipe.max_seq_len, recipe.batch_size, recipe.epochs) == (max_seq_len, batch_size, epochs)
    assert architecture is None and recipe.schedule.kind == "linear" and recipe.optimizer.kind == "adamw"


def test_relations_are_read_at_their_entities_and_other_tasks_are_not(tmp_path, tune, capsys):
    from bert_jax.interop.pretrained import open_pretrained

    assert tune("relation") == 0
    relation = open_pretrained(tmp_path / "run")
    assert relation.config.pooling == "entities"
    (tmp_path / "train.csv").write_text("text,label\nka mu,a\nmu fed,b\n")
    data = [f"--{name}={tmp_path / 'train.csv'}" for name in ("train", "dev")]
    bindings = ["--gin_param=finetune.padded_lengths=1", "--epochs=1", "--batch_size=2", "--max_seq_len=24"]
    arguments = [*data, f"--init_from={tmp_path / 'run'}", f"--workdir={tmp_path / 'texts'}", *bindings]
    assert finetune(["finetune", *arguments]) == 0
    assert open_pretrained(tmp_path / "texts").config.pooling == "cls"
    folders = [f"--from={tmp_path / 'run'}", f"--to={tmp_path / 'huggingface'}"]
    assert convert(["convert", *folders, "--format=huggingface"]) == 2
    assert "has no pooling='entities'" in capsys.readouterr().err


def test_markers_are_saved_and_begin_with_the_mean_of_their_pieces(tmp_path, tune, repository_root, capsys):
    import numpy as np

    from bert_jax.interop.pretrained import open_pretrained

    assert tune("relation", "--learning_rate=1e-20") == 0
    assert "4 added word(s), each beginning with the mean of its pieces" in capsys.readouterr().out
    before = open_pretrained(repository_root / "tests" / "golden" / "BertModel")
    after = open_pretrained(tmp_path / "run")
    tokenizer = after.load_tokenizer()
    assert (before.config.vocab_size, after.config.vocab_size, tokenizer.vocab_size) == (99, 103, 103)
    words = [
        np.asarray(model.load_parameters()["bert"]["embeddings"]["word_embeddings"]["embedding"])
        for model in (before, after)
    ]
    np.testing.assert_allclose(words[1][:99], words[0][:99], atol=1e-6)
    pieces = before.load_tokenizer().encode_batch(["[E1]"])[0]
    np.testing.assert_allclose(words[1][tokenizer.token_to_id("[E1]")], words[0][pieces].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("task", "content", "flags", "message"),
    [
        ("tagging", None, ["--doc_stride=3"], "--doc_stride is for --task=question_answering, and this is tagging"),
        ("tagging", None, ["--format=csv"], "--format=csv: the format of a file for tagging is one of conll, jsonl"),
        ("tagging", None, ["--tag_column=5"], "has no column 5 for the tag: its lines have 3"),
        ("tagging", CONLL.replace("-DOC", "DOC"), ["--context_len=8"], "the training examples have no documents"),
        ("relation", None, ["--context_len=8"], "--context_len is for --task=tagging, and this is relation"),
        ("tagging", "bob NN B-PER\nin\n", [], "train.data:2: the line has 1 column, not 3"),
        ("tagging", "bob B-PER\nin I-LOC\nka B-LOC\n", [], "train.data:2: the tag 'I-LOC' follows 'B-PER'"),
        ("question_answering", None, ["--format=jsonl"], "is found by looking: leave the flag out"),
        ("question_answering", None, ["--metric=em"], "there is no metric 'em' here"),
        ("question_answering", json.dumps(SQUAD).replace('"bada"', '"rome"'), [], "question q2: the answer 'rome'"),
        ("question_answering", None, ["--max_question_len=30"], "leaves no room for the context"),
        ("multiple_choice", SWAG.replace(",1\n", ",7\n"), [], "train.csv:2: the answer '7' is none of 3 choices"),
        ("multiple_choice", None, ["--long_texts=windows"], "multiple choice compares whole texts"),
        ("relation", RELATIONS.replace("<e2>li", "li"), [], "train.txt:5: <e2> is there 0 times"),
        ("relation", None, ["--labels=multi"], "two entities have one relation"),
    ],
)
def test_bad_input_is_one_line(task, content, flags, message, tmp_path, tune, capsys):
    if content is not None:
        (tmp_path / NAMES.get(task, "{}.data").format("train")).write_text(content)
    assert tune(task, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run" / "checkpoints").exists()
