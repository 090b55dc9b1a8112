"""Beginning a run with the weights of any model, and with words that have been added to its vocabulary since."""

from collections.abc import Sequence
from typing import Any

from bert_jax.interop.pretrained import open_pretrained
from bert_jax.models.embeddings import padded_vocab_size
from bert_jax.models.shared_encoder import share_pretraining_heads
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.initialization import load_matching
from bert_jax.training.vocabulary_growth import describe_growth, grow_vocabulary, words_added_since

# What may be of another shape in a model that a task is learned from: the answers of the task before, and the pooler,
# whose size depends on the pooling.
HEADS = ("classifier", "span", "layer_heads", "bert/pooler")


def load_starting_weights(
    source: str, initial: Any, tokenizer: Tokenizer, heads: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Replaces initial parameters by those of a model, as far as it has them.

    Args:
        source: the model, of any kind.
        initial: the parameters of a new run.
        tokenizer: of the run's rows.
        heads: see `load_matching`.

    Returns:
        The parameters, on the host or the first device, and a report for people.
    """
    model = open_pretrained(source)
    words = words_added_since(model.load_tokenizer(), tokenizer, source) if model.tokenizer_directory else ()
    parameters = model.load_parameters()
    lines = [*model.warnings(), f"weights of {model.describe()}:"]
    if words:
        parameters = grow_vocabulary(parameters, words, padded_vocab_size(tokenizer.vocab_size))
        lines += describe_growth(words, tokenizer)
    loaded, report = load_matching(initial, share_pretraining_heads(parameters, initial), source, heads)
    lines += report.lines()
    lines += [f"  left in the file: {name}" for name in (*model.report.unexpected, *model.report.other_shapes)]
    return loaded, lines
