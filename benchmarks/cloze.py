"""Which words a model puts into the blanks of fifty sentences about Python, beside what counting words would put there.

The sentences of cloze_pydocs.tsv were written before there was a model, for the corpus "pydocs" and the tokenizer of
`make pretrain`. Each has one blank, and up to three words that are right in it. A sentence is a hit where one of these
words is among the first that are suggested.

Example: python -m benchmarks.cloze --model=runs/pydocs/model --rows=runs/pydocs/rows
"""

import collections
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import flags

from bert_jax.data.row_tokens import read_tokens
from bert_jax.data.rows import TRAIN, open_rows
from bert_jax.errors import UserError
from bert_jax.tasks.neighbour_baseline import LEFT, RIGHT, NeighbourBaseline, nearest_visible
from bert_jax.text.tokenizer import MASK, Tokenizer
from launch.command import run

SENTENCES = pathlib.Path(__file__).with_name("cloze_pydocs.tsv")
# A sentence of which the corpus holds so many consecutive words may have been learnt by heart.
WINDOW_WORDS = 8
# The bigrams of a larger corpus are counted in rows spread evenly over it, as by evaluations.
_MOST_TOKENS = 8_000_000

# From a sentence with one blank to the words for it, the best first.
Predictor = Callable[[str], list[str]]


@dataclasses.dataclass(frozen=True)
class Cloze:
    """A sentence with a blank.

    Attributes:
        kind: what tells the word: grammar, knowledge (of Python), distant (a word far away that it belongs to), or
            topic (a word that the text has used before).
        answers: the words that are right, in lower case.
        sentence: one or two sentences with one [MASK].
    """

    kind: str
    answers: tuple[str, ...]
    sentence: str

    def filled(self) -> list[str]:
        """Returns the sentence with each answer in the blank."""
        return [self.sentence.replace(MASK, answer) for answer in self.answers]

    def hit(self, words: Sequence[str]) -> bool:
        """Returns whether an answer is among the words."""
        return any(answer in words for answer in self.answers)


def read_clozes(path: pathlib.Path) -> list[Cloze]:
    """Reads a file of lines `kind <tab> answers with spaces between <tab> sentence`, below a header."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [Cloze(kind, tuple(answers.split()), sentence) for kind, answers, sentence in lines]


def find_in_corpus(clozes: Sequence[Cloze], texts: Iterable[str], size: int = WINDOW_WORDS) -> dict[Cloze, str]:
    """Finds the sentences that a corpus gives away.

    Case and punctuation do not count.

    Args:
        clozes: to look for, with each of their answers filled in.
        texts: of the corpus; no sentence goes on from one to the next.
        size: so many consecutive words are too many; of a shorter sentence, all of them.

    Returns:
        For each sentence of which there is too much in the corpus, words that were found.
    """
    owners: dict[tuple[str, ...], list[Cloze]] = collections.defaultdict(list)
    for cloze in clozes:
        for text in cloze.filled():
            for window in _windows(_words(text), size):
                owners[window].append(cloze)
    sizes = {len(window) for window in owners}
    found: dict[Cloze, str] = {}
    for text in texts:
        words = _words(text)
        for length in sizes:
            for window in _windows(words, length):
                for cloze in owners.get(window, ()):
                    found[cloze] = " ".join(window)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _windows(words: list[str], size: int) -> list[tuple[str, ...]]:
    """Returns all runs of `size` words; of fewer words, the one of all of them."""
    return [tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)]


def unigram_predictor(counts: np.ndarray, tokenizer: Tokenizer, top_k: int) -> Predictor:
    """Always suggests the commonest tokens of the training rows, whose counts are `[vocab_size]`."""
    words = [tokenizer.id_to_token(int(token)) for token in np.argsort(-counts, kind="stable")[:top_k]]
    return lambda sentence: words


def bigram_predictor(baseline: NeighbourBaseline, tokenizer: Tokenizer, top_k: int) -> Predictor:
    """Suggests the words that the nearest neighbours make likeliest, by the baseline that evaluations have too."""

    def predict(sentence: str) -> list[str]:
        ids = np.array([[tokenizer.cls_id, *tokenizer.encode_with_masks(sentence), tokenizer.sep_id]])
        batch = {
            "input_ids": ids,
            "segment_ids": np.ones_like(ids),
            "masked_positions": np.argwhere(ids == tokenizer.mask_id)[:, 1:],
            "masked_weights": np.ones((1, 1)),
        }
        left, right = ([int(array[0, 0]) for array in nearest_visible(batch, side)] for side in (LEFT, RIGHT))
        order = np.argsort(-baseline.distribution(left, right), kind="stable")
        return [tokenizer.id_to_token(int(token)) for token in order[:top_k]]

    return predict


def print_answers(clozes: Sequence[Cloze], answers: Sequence[Sequence[str]]) -> None:
    """Prints a line for each sentence: whether it is a hit, what is right, what was suggested, and the sentence."""
    right = [" ".join(cloze.answers) for cloze in clozes]
    suggested = [" ".join(words) for words in answers]
    widths = [max(map(len, ["suggestions", *column])) for column in (right, suggested)]
    print(f"hit  {'answers':<{widths[0]}}  {'suggestions':<{widths[1]}}  sentence")
    for cloze, words, *columns in zip(clozes, answers, right, suggested, strict=True):
        shown = "  ".join(f"{column:<{width}}" for column, width in zip(columns, widths, strict=True))
        print(f"{'yes' if cloze.hit(words) else '-':<3}  {shown}  {cloze.sentence}")


def print_hits(clozes: Sequence[Cloze], answers: dict[str, Sequence[Sequence[str]]]) -> None:
    """Prints the number of hits of each predictor: of each kind of sentence, and of all."""
    print(f"{'hits':<12}{'sentences':>10}" + "".join(f"{name:>10}" for name in answers))
    for kind in (*dict.fromkeys(cloze.kind for cloze in clozes), "all"):
        chosen = [index for index, cloze in enumerate(clozes) if kind in (cloze.kind, "all")]
        hits = [sum(clozes[index].hit(words[index]) for index in chosen) for words in answers.values()]
        print(f"{kind:<12}{len(chosen):>10}" + "".join(f"{number:>10}" for number in hits))


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this benchmark."""
    flags.DEFINE_string(
        "model", None, "A run's or another model's folder, as for launch.fill_mask.", flag_values=values
    )
    flags.DEFINE_string(
        "rows",
        None,
        "The rows that it was trained on: for what counting suggests, and their corpus.",
        flag_values=values,
    )
    flags.DEFINE_integer("top_k", 5, "An answer among so many words is a hit.", lower_bound=1, flag_values=values)


def execute(values: flags.FlagValues) -> None:
    """Fills in the blanks and prints the tables."""
    if not values.model:
        raise UserError("--model is missing: the folder of a run (its --workdir), or another model")
    from launch.model_choice import LATEST, open_chosen

    model = open_chosen(values.model, LATEST)
    tokenizer = model.load_tokenizer()
    store = open_rows(values.rows) if values.rows else None
    if store and store.tokenizer_fingerprint != tokenizer.fingerprint:
        raise UserError(f"--rows={values.rows} are of another tokenizer than the model: give those it was trained on")

    # From here on, imports are slow.
    from bert_jax.tasks.fill_mask import fill_masks
    from bert_jax.text.documents import read_passages

    parameters = model.load_parameters()

    def fill(sentence: str) -> list[str]:
        (words,) = fill_masks(model.config, parameters, tokenizer, sentence, values.top_k)
        return [word.token for word in words]

    predictors: dict[str, Predictor] = {"model": fill}
    clozes = read_clozes(SENTENCES)
    print(model.describe())
    if store:
        counts = store.token_counts
        predictors["unigram"] = unigram_predictor(counts, tokenizer, values.top_k)
        baseline = NeighbourBaseline(*read_tokens(store, TRAIN, _MOST_TOKENS), counts)
        predictors["bigram"] = bigram_predictor(baseline, tokenizer, values.top_k)
        source = store.manifest.source
        passages = read_passages(source["input"], source["format"])
        found = find_in_corpus(clozes, (passage.text for passage in passages))
        print(f"{len(found)} of {len(clozes)} sentences have {WINDOW_WORDS} words in a row in {source['input']}")
        for cloze, words in found.items():
            print(f"  {words!r}: {cloze.sentence}")
    answers = {name: [predict(cloze.sentence) for cloze in clozes] for name, predict in predictors.items()}
    print_answers(clozes, answers["model"])
    print_hits(clozes, answers)


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
