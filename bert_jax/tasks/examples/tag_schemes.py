"""How tags say where entities begin and end: IOB1, IOB2, BIOES, BMES and BILOU, found, checked and converted.

A tag is a prefix and a type, such as `B-PER`, or `O` outside of entities. Inside bert_jax all tags are IOB2: `B-` opens
an entity, `I-` continues it (Tjong Kim Sang and Veenstra 1999 compare IOB1 and IOB2; the others mark the last word, and
entities of a single word, too). A prefix alone is a tag with an empty type, as word segmentation uses them.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from bert_jax.errors import UserError

OUTSIDE = "O"
IOB1, IOB2, BIOES, BMES, BILOU = "IOB1", "IOB2", "BIOES", "BMES", "BILOU"
SCHEMES = (IOB1, IOB2, BIOES, BMES, BILOU)

# Prefixes of the first, an inner, the last and an only word of an entity, for schemes that tell all four apart.
_FOUR_PREFIXES = {BIOES: "BIES", BMES: "BMES", BILOU: "BILU"}
_OTHER_NAMES = {"IOB": IOB2, "BIO": IOB2, "BIO2": IOB2, "BIO1": IOB1, "IOBES": BIOES, "BMEWO": BMES}


class TagError(ValueError):
    """A tag that cannot stand where it stands.

    Attributes:
        position: the number of the word from 0.
        reason: what is wrong, as a clause.
    """

    def __init__(self, position: int, reason: str):
        super().__init__(reason)
        self.position = position
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """An entity: words `start` up to, not including, `end`."""

    label: str
    start: int
    end: int


def scheme_named(name: str) -> str:
    """Returns the scheme of a name as people write it ("IOBES", "bio"); UserError if there is none."""
    upper = name.upper()
    scheme = _OTHER_NAMES.get(upper, upper)
    if scheme not in SCHEMES:
        raise UserError(f"cannot read the tag scheme {name!r}: it is one of {', '.join(SCHEMES)}")
    return scheme


def find_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Returns the scheme that tags are written in, by all tags of a file.

    M says BMES; L or U, BILOU; E or S, BIOES (of BMES without M, which is the same). Of B and I alone, IOB1 is the
    scheme where `B-` stands nowhere but right after an entity of the same type, and `I-` opens the others; everything
    else is IOB2, in which an `I-` that opens an entity is a mistake.
    """
    prefixes = set()
    i_opens = b_opens_apart = False
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            if tag[1:2] not in ("", "-"):  # no tag of any scheme, such as NNP
                continue
            prefixes.add(tag[:1])
            if tag[:1] in ("B", "I"):
                is_new = before == OUTSIDE or before[1:] != tag[1:]
                i_opens |= is_new and tag[0] == "I"
                b_opens_apart |= is_new and tag[0] == "B"
            before = tag
    for scheme, own in ((BMES, "M"), (BILOU, "LU"), (BIOES, "ES")):
        if prefixes & set(own):
            return scheme
    return IOB1 if i_opens and not b_opens_apart else IOB2


def to_iob2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """Returns a sentence's tags in IOB2.

    Raises:
        TagError: a tag is none of the scheme's, or cannot follow the one before it.
    """
    return tags_of(entities_of(tags, scheme), len(tags))


def from_iob2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """Returns a sentence's tags, given in IOB2, in another scheme; errors as `to_iob2`."""
    return tags_of(entities_of(tags, IOB2), len(tags), scheme)


def tags_of(entities: Iterable[Entity], length: int, scheme: str = IOB2) -> tuple[str, ...]:
    """Returns the tags of a sentence of `length` words with these entities, which do not overlap."""
    tags = [OUTSIDE] * length
    for entity in sorted(entities, key=lambda entity: entity.start):
        size = entity.end - entity.start
        if scheme in _FOUR_PREFIXES:
            first, inner, last, only = _FOUR_PREFIXES[scheme]
            prefixes = only if size == 1 else first + inner * (size - 2) + last
        elif scheme == IOB2 or _follows_its_kind(tags, entity):
            prefixes = "B" + "I" * (size - 1)
        else:
            prefixes = "I" * size
        ending = f"-{entity.label}" if entity.label else ""
        tags[entity.start : entity.end] = [prefix + ending for prefix in prefixes]
    return tuple(tags)


def entities_of(tags: Sequence[str], scheme: str = IOB2) -> list[Entity]:
    """Returns the entities of a sentence in order; errors as `to_iob2`."""
    if scheme in _FOUR_PREFIXES:
        return _entities_with_ends(tags, scheme)
    entities: list[Entity] = []
    label, start = None, 0
    for position, tag in enumerate(tags):
        prefix, this = _parts(tag, position, "BI", scheme)
        if scheme == IOB2 and prefix == "I" and this != label:
            raise TagError(position, _misplaced(tags, position, "which in IOB2 begins no entity"))
        if scheme == IOB1 and prefix == "B" and this != label:
            raise TagError(position, _misplaced(tags, position, "which in IOB1 only parts entities of the same type"))
        if label is not None and (prefix != "I" or this != label):
            entities.append(Entity(label, start, position))
            label = None
        if this is not None and label is None:
            label, start = this, position
    return [*entities, Entity(label, start, len(tags))] if label is not None else entities


def predicted_entities(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of predicted IOB2 tags, whatever they are.

    As conlleval counts them: an `I-` that continues nothing of its type opens an entity.
    """
    entities: list[Entity] = []
    label, start = None, 0
    for position, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, this = tag.partition("-")
        if label is not None and (prefix != "I" or this != label):
            entities.append(Entity(label, start, position))
            label = None
        if prefix != OUTSIDE and label is None:
            label, start = this, position
    return entities


def _entities_with_ends(tags: Sequence[str], scheme: str) -> list[Entity]:
    """Returns the entities of a scheme that marks last words; an entity must be closed as it was opened."""
    first, inner, last, only = _FOUR_PREFIXES[scheme]
    entities = []
    label, start = None, 0
    for position, tag in enumerate(tags):
        prefix, this = _parts(tag, position, _FOUR_PREFIXES[scheme], scheme)
        if prefix in (inner, last) and this != label:
            raise TagError(position, _misplaced(tags, position, f"which in {scheme} only continues an entity"))
        if prefix not in (inner, last) and label is not None:
            raise TagError(position, _misplaced(tags, position, f"though in {scheme} {last!r} must close the entity"))
        if prefix in (first, only):
            label, start = this, position
        if prefix in (last, only):
            entities.append(Entity(label, start, position + 1))
            label = None
    if label is not None:
        reason = f"the sentence ends after {tags[-1]!r}, though in {scheme} {last!r} must close the entity"
        raise TagError(len(tags) - 1, reason)
    return entities


def _parts(tag: str, position: int, prefixes: str, scheme: str) -> tuple[str, str | None]:
    """Returns prefix and type of a tag; type None outside of entities."""
    if tag == OUTSIDE:
        return OUTSIDE, None
    prefix, dash, label = tag.partition("-")
    if len(prefix) != 1 or prefix not in prefixes or (dash and not label):
        allowed = ", ".join(f"{letter}-TYPE" for letter in prefixes)
        raise TagError(position, f"{tag!r} is no tag of {scheme}, which has {allowed} and O")
    return prefix, label


def _misplaced(tags: Sequence[str], position: int, explanation: str) -> str:
    where = f"follows {tags[position - 1]!r}" if position else "begins the sentence"
    return f"the tag {tags[position]!r} {where}, {explanation}"


def _follows_its_kind(tags: Sequence[str], entity: Entity) -> bool:
    """Whether the word before an entity is of an entity of the same type; `tags` holds those before it."""
    if not entity.start or tags[entity.start - 1] == OUTSIDE:
        return False
    return tags[entity.start - 1].partition("-")[2] == entity.label
