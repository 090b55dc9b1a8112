"""One door for every kind of model: a run of bert_jax, a Hugging Face directory, or a checkpoint of Google's code."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.interop import google, huggingface
from bert_jax.interop.names import MODEL_PARTS
from bert_jax.interop.tensor_files import Match, Read, TensorReport, assemble
from bert_jax.text.json_files import expect_type
from bert_jax.text.tokenizer import DESCRIPTION_FILE, Tokenizer
from bert_jax.text.tokenizers import load_tokenizer
from bert_jax.text.wordpiece import GOOGLES_LONGEST_WORD, WordPieceTokenizer
from bert_jax.training.saved_models import BEST_OR_LATEST, LATEST, SavedModel, holds_checkpoint, open_model

_REMEDY = "use another checkpoint"
# Where the identity of a run, of any kind, says its tokenizer's.
_FINGERPRINT = "data.tokenizer"
_TOKENIZER_FILES = (DESCRIPTION_FILE, "vocab.txt", "tokenizer.json")


@dataclasses.dataclass
class Pretrained:
    """A model opened for use; its weights are read by `load_parameters`, and not before.

    Attributes:
        path: what was opened: the checkpoint's folder, the directory, or the prefix of Google's files.
        kind: "bert_jax", "huggingface" or "google".
        config: the architecture.
        model_class: one of Hugging Face's names, such as BertForPreTraining; what its tensors make.
        labels: names of a classifier's labels; None for other classes.
        step: updates made, where that is known.
        tokenizer_directory: where the tokenizer's files are; None if there are none.
        report: what was found; after `load_parameters`, also what differs from what it is tied to.
        chosen_as: says which checkpoint of a run it is, such as "the best by loss"; empty where it was named.
        skipped: the run's checkpoints that could not be read when it was chosen: why, by step.
        record: what a checkpoint of ours says of itself; empty for other models.
        tokenizer_fingerprint: of the tokenizer that it was trained with, where its record says which.
    """

    path: pathlib.Path
    kind: str
    config: BertConfig
    model_class: str
    labels: tuple[str, ...] | None
    step: int | None
    tokenizer_directory: pathlib.Path | None
    report: TensorReport
    _load: Callable[[], tuple[dict[str, Any], TensorReport]] = dataclasses.field(repr=False)
    chosen_as: str = ""
    skipped: Mapping[int, str] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer_fingerprint: str | None = None

    def describe(self, what: str | None = None) -> str:
        """Returns on one line which model it is, and of a run which checkpoint.

        Args:
            what: what it is for, such as the name of a task; its class by default.
        """
        which = [self.kind, what or self.model_class]
        if self.step is not None:
            which.append(f"step {self.step}" + (f", {self.chosen_as}" if self.chosen_as else ""))
        return f"{self.path} ({', '.join(which)})"

    def warnings(self) -> list[str]:
        """Returns a line for each of the run's checkpoints that could not be read when this one was chosen."""
        return [
            f"checkpoint {step} is passed over, as it cannot be read: {reason}; {self.path} is used"
            for step, reason in sorted(self.skipped.items())
        ]

    def load_parameters(self) -> dict[str, Any]:
        """Reads the weights: a nested dict of float32 JAX arrays on the default device.

        A BertModel that was saved without its pooler comes without it.

        Raises:
            UserError: a file is damaged.
        """
        parameters, self.report = self._load()
        return parameters

    def load_tokenizer(self) -> Tokenizer:
        """Opens the tokenizer.

        Raises:
            UserError: there is none, it is not the one that the model was trained with, or it has ids that the model
                does not have.
        """
        if self.tokenizer_directory is None:
            raise UserError(f"{self.path} has no tokenizer beside it: no {' and no '.join(_TOKENIZER_FILES[1:])}")
        tokenizer = self._of_record(load_tokenizer(self.tokenizer_directory))
        if tokenizer.vocab_size > self.config.vocab_size:
            raise UserError(
                f"the tokenizer in {self.tokenizer_directory} has {tokenizer.vocab_size} ids, and the model has"
                f" embeddings for {self.config.vocab_size}: use the tokenizer that belongs to the model"
            )
        return tokenizer

    def _of_record(self, tokenizer: Tokenizer) -> Tokenizer:
        """Returns the tokenizer as the model's record has it."""
        recorded = self.tokenizer_fingerprint
        if recorded is None or tokenizer.fingerprint == recorded:
            return tokenizer
        if isinstance(tokenizer, WordPieceTokenizer):
            # Early runs copied Google's vocabulary alone, and not what beside it tells Google's limit of a word.
            googles = tokenizer.with_longest_word(GOOGLES_LONGEST_WORD)
            if googles.fingerprint == recorded:
                return googles
        raise UserError(
            f"the tokenizer in {self.tokenizer_directory} is not the one that the model was trained with (the run's"
            " record has another fingerprint): copy the checkpoint again"
        )


def open_pretrained(path: str | pathlib.Path, checkpoint: str = LATEST) -> Pretrained:
    """Opens a model of any kind; reads JSON and headers only, and imports no JAX.

    Args:
        path: a run's folder or one of its checkpoints'; a directory with config.json and safetensors; a directory with
            bert_config.json and a TensorFlow checkpoint, or that checkpoint's prefix DIR/bert_model.ckpt.
        checkpoint: of a run, which; see `open_model`.

    Raises:
        UserError: there is no model, or it is not a BERT, or not a whole one.
    """
    path = pathlib.Path(path).absolute()
    if path.is_dir() and holds_checkpoint(path):
        return _open_bert_jax(open_model(path, checkpoint))
    prefix = google.find_prefix(path)
    is_huggingface = prefix is None and path.is_dir() and huggingface.is_directory_of(path)
    if prefix is None and not is_huggingface:
        raise UserError(_nothing_there(path))
    if checkpoint not in (LATEST, BEST_OR_LATEST):
        raise UserError(f"{path} is a single model: a checkpoint ({checkpoint}) can be chosen of a run's folder only")
    if is_huggingface:
        return _from_match("huggingface", path, path, *huggingface.open_directory(path))
    return _from_match("google", prefix, prefix.parent, *google.open_checkpoint(prefix))


def _nothing_there(path: pathlib.Path) -> str:
    if path.is_file():
        return f"no model at {path}: give its directory, or the prefix of a TensorFlow checkpoint (DIR/bert_model.ckpt)"
    if not path.exists():
        return f"no model at {path}: no such directory"
    return (
        f"no model at {path}: it holds no finished checkpoint of a run, no {huggingface.CONFIG_FILE} (Hugging Face) and"
        f" no {google.CONFIG_FILE} (Google); give the --workdir of a training run, or a model's directory"
    )


def _from_match(kind: str, path: pathlib.Path, directory: pathlib.Path, match: Match, reader: Any) -> Pretrained:
    read: Read = reader.read
    return Pretrained(
        path=path,
        kind=kind,
        config=match.config,
        model_class=match.model_class,
        labels=match.labels,
        step=None,
        tokenizer_directory=_tokenizer_directory(directory),
        report=match.report,
        _load=lambda: assemble(match, read),
    )


def _open_bert_jax(model: SavedModel) -> Pretrained:
    run = model.run
    try:
        config = BertConfig.from_json(run["architecture"])
        # Checkpoints of before there were other classes do not say theirs.
        model_class, labels = run.get("model_class", "BertForPreTraining"), run.get("labels")
        expect_type(model_class, str, f"{model.path}: model_class", _REMEDY)
        expect_type(labels, list[str] | None, f"{model.path}: labels", _REMEDY)
        expect_type(run["architecture"], dict, f"{model.path}: architecture", _REMEDY)
        expect_type(run["checksums"], dict, f"{model.path}: checksums", _REMEDY)
        identity = expect_type(run.get("identity"), dict | None, f"{model.path}: identity", _REMEDY) or {}
        place = f"{model.path}: identity[{_FINGERPRINT!r}]"
        fingerprint = expect_type(identity.get(_FINGERPRINT), str | None, place, _REMEDY)
        paths = [name.removeprefix("params/") for name in run["checksums"] if name.startswith("params/")]
    except (LookupError, TypeError) as error:
        raise UserError(f"{model.path} is not a readable checkpoint of a model: it lacks {error}") from error
    if model_class not in MODEL_PARTS:
        raise UserError(f"{model.path} holds a {' '.join(model_class.split()):.60}: known are {', '.join(MODEL_PARTS)}")
    report = TensorReport(loaded=tuple(paths))
    return Pretrained(
        path=model.path,
        kind="bert_jax",
        config=config,
        model_class=model_class,
        labels=tuple(labels) if labels else None,
        step=model.step,
        tokenizer_directory=_tokenizer_directory(model.files / "tokenizer"),
        report=report,
        _load=lambda: (model.load_parameters(), report),
        chosen_as=model.chosen_as,
        skipped=model.skipped,
        record=run,
        tokenizer_fingerprint=fingerprint,
    )


def _tokenizer_directory(directory: pathlib.Path) -> pathlib.Path | None:
    return directory if any((directory / name).is_file() for name in _TOKENIZER_FILES) else None
