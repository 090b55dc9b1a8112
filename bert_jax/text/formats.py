"""The formats of text files, one reader each, and how a file's format is told from its first lines."""

import html
import re
from collections.abc import Callable, Iterator

from bert_jax.errors import UserError
from bert_jax.text.files import read_blocks, read_head, read_lines
from bert_jax.text.json_files import JsonError, parse_json
from bert_jax.text.passage import LONGEST_PASSAGE, Passage, cut_text

_SENTENCE_ENDS = tuple(".!?…:;。！？；：…”’\"')」』）")
_ENDS_SENTENCE = re.compile(r"[.!?…。！？।]['\")\]”’」』）]*$")
_SENTENCE_INSIDE = re.compile(r"[.!?…]['\")\]”’]*\s+['\"(“‘]?[^\W\d_a-z]|[。！？][”’」』）]?[^\s”’」』）\"]")
# Lines that an editor wrapped are shorter than this; longer ones are whole paragraphs.
_LONGEST_WRAPPED_LINE = 250
_BLANK_LINES = re.compile(r"\n[ \t\f\v]*\n\s*")
_CHINESE_LINE_BREAK = re.compile(
    r"(?<=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])\n\s*(?=[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef])"
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ARTICLE_START = re.compile(r'<doc\b[^>]*\bid="')


def split_paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of a text: hard-wrapped lines are joined, blank lines separate.

    Without blank lines each line is a paragraph if it cannot be a wrapped one: some line is longer than editors wrap,
    or every line ends a sentence.
    """
    for block in _BLANK_LINES.split(text):
        if "\n" not in block:
            if block := block.strip():
                yield from cut_text(block)
            continue
        lines = block.strip().split("\n")
        if max(map(len, lines)) > _LONGEST_WRAPPED_LINE or all(
            line.rstrip().endswith(_SENTENCE_ENDS) for line in lines
        ):
            for line in lines:
                yield from cut_text(line.strip())
            continue
        if not block.isascii():
            block = _CHINESE_LINE_BREAK.sub("", block)
        yield from cut_text(" ".join(block.split()))


def read_plain(path: str) -> Iterator[Passage]:
    """Plain text: one file is one document, of paragraphs."""
    pending = ""
    for block in read_blocks(path):
        pending += block
        # Whatever follows the last blank line may go on in the next block.
        end = pending.rfind("\n\n")
        if end < 0 and len(pending) > 4 * LONGEST_PASSAGE:
            end = max(pending.rfind("\n"), pending.rfind(" "), pending.rfind("。"), len(pending) - LONGEST_PASSAGE)
        if end >= 0:
            for paragraph in split_paragraphs(pending[: end + 1]):
                yield Passage(path, paragraph, False)
            pending = pending[end + 1 :]
    for paragraph in split_paragraphs(pending):
        yield Passage(path, paragraph, False)


def read_sentences(path: str) -> Iterator[Passage]:
    """One sentence per line, a blank line between documents: the format of Google's create_pretraining_data."""
    document, number, is_open = "", 0, False
    for _, line in read_lines(path):
        line = line.strip()
        if not line:
            is_open = False
            continue
        if not is_open:
            is_open = True
            number += 1
            document = f"{path}#{number}"
        if len(line) > LONGEST_PASSAGE:
            for part in cut_text(line):
                yield Passage(document, part, True)
        else:
            yield Passage(document, line, True)


def read_json_lines(path: str) -> Iterator[Passage]:
    """JSON lines: each line an object with "text"; every line is a document. Other fields (id, title) are left out."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = parse_json(line, allow_surrogates=True)
        except JsonError as error:
            raise UserError(f"{path}:{number}: no valid JSON ({error}); each line must be one object") from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise UserError(f'{path}:{number}: no JSON object with a string "text"; each line must be one')
        document = f"{path}:{number}"
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        # A pair of surrogates in \\u escapes is one character; a lone one is no text and cannot be encoded.
        if not text.isascii() and _SURROGATE.search(text):
            text = text.encode("utf-8", "replace").decode("utf-8")
        for paragraph in split_paragraphs(text):
            yield Passage(document, paragraph, False)


def read_wikiextractor(path: str) -> Iterator[Passage]:
    """WikiExtractor's output: <doc ...>, the title, paragraphs and headings one a line, </doc>.

    The title line is skipped, so that an article of a title alone is no document. Headings ("History.") stay, each a
    passage of its own.
    """
    document, articles, expect_title = None, 0, False
    for number, line in read_lines(path):
        line = line.strip()
        if not line:
            continue
        if line.startswith("<doc ") and _ARTICLE_START.match(line):
            articles += 1
            document, expect_title = f"{path}#{articles}", True
        elif line == "</doc>":
            document = None
        elif document is None:
            raise UserError(
                f"{path}:{number}: text outside <doc> ... </doc>; give --format if this is no WikiExtractor output"
            )
        elif expect_title:
            expect_title = False
        else:
            if "&" in line:
                line = html.unescape(line).strip()
            if line.isspace() or not line:
                continue
            if len(line) > LONGEST_PASSAGE:
                for part in cut_text(line):
                    yield Passage(document, part, False)
            else:
                yield Passage(document, line, False)


READERS: dict[str, Callable[[str], Iterator[Passage]]] = {
    "plain": read_plain,
    "sentences": read_sentences,
    "jsonl": read_json_lines,
    "wikiextractor": read_wikiextractor,
}


def detect_format(path: str) -> str:
    """Returns the format that the first 64 k characters of a file look like, a key of `READERS`."""
    head, is_all = read_head(path)
    stripped = head.lstrip()
    if _ARTICLE_START.match(stripped):
        return "wikiextractor"
    if stripped.startswith("{"):
        first, separator, _ = stripped.partition("\n")
        if not separator and not is_all:
            return "jsonl" if '"text"' in first or '":' in first else "plain"
        # A first line that is meant as JSON but damaged is for the reader to name, not to be read as prose.
        if re.match(r'\{\s*"', first):
            return "jsonl"
    lines = head.split("\n")
    if not is_all:
        lines.pop()
    return "sentences" if _looks_like_sentences([line.strip() for line in lines if line.strip()]) else "plain"


def _looks_like_sentences(lines: list[str]) -> bool:
    """Whether nearly every line is one sentence: it ends one, and few lines hold the end of another inside."""
    if not lines:
        return False
    ending = sum(_ENDS_SENTENCE.search(line) is not None for line in lines)
    several = sum(_SENTENCE_INSIDE.search(line) is not None for line in lines)
    return ending >= 0.8 * len(lines) and several <= 0.3 * len(lines)
