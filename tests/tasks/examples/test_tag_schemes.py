"""Tag schemes: found, checked, converted there and back."""

import random

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples import tag_schemes
from bert_jax.tasks.examples.tag_schemes import (
    SCHEMES,
    Entity,
    TagError,
    entities_of,
    find_scheme,
    from_iob2,
    predicted_entities,
    to_iob2,
)

# One sentence in every scheme: two neighbours of one type, one word of another, three words.
ENTITIES = [Entity("PER", 0, 2), Entity("PER", 2, 3), Entity("LOC", 3, 4), Entity("ORG", 5, 8)]
WRITTEN = {
    "IOB1": "I-PER I-PER B-PER I-LOC O I-ORG I-ORG I-ORG O",
    "IOB2": "B-PER I-PER B-PER B-LOC O B-ORG I-ORG I-ORG O",
    "BIOES": "B-PER E-PER S-PER S-LOC O B-ORG I-ORG E-ORG O",
    "BMES": "B-PER E-PER S-PER S-LOC O B-ORG M-ORG E-ORG O",
    "BILOU": "B-PER L-PER U-PER U-LOC O B-ORG I-ORG L-ORG O",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sentence_written_in_every_scheme(scheme):
    tags = WRITTEN[scheme].split()
    assert entities_of(tags, scheme) == ENTITIES
    assert find_scheme([tags]) == scheme
    assert to_iob2(tags, scheme) == tuple(WRITTEN["IOB2"].split())
    assert from_iob2(WRITTEN["IOB2"].split(), scheme) == tuple(tags)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_there_and_back_changes_nothing(scheme):
    generator = random.Random(0)
    for _ in range(300):
        entities, place = [], 0
        while place < 12:
            size = generator.randint(1, 4)
            if generator.random() < 0.6 and place + size <= 12:
                entities.append(Entity(generator.choice(["PER", "LOC", "MISC-2", ""]), place, place + size))
            place += size
        tags = tag_schemes.tags_of(entities, 12)
        assert entities_of(tags) == entities == predicted_entities(tags)
        assert to_iob2(from_iob2(tags, scheme), scheme) == tags


@pytest.mark.parametrize(
    "scheme, tags, position",
    [
        ("IOB2", "O I-PER", 1),
        ("IOB2", "I-PER", 0),
        ("IOB2", "B-PER I-LOC", 1),
        ("IOB1", "O B-PER", 1),
        ("IOB1", "I-LOC B-PER", 1),
        ("BIOES", "O I-PER E-PER", 1),
        ("BIOES", "B-PER O", 1),
        ("BIOES", "B-PER B-PER E-PER", 1),
        ("BIOES", "B-PER I-PER", 1),
        ("BIOES", "S-PER E-PER", 1),
        ("BIOES", "B-PER E-LOC", 1),
        ("BMES", "B-PER I-PER E-PER", 1),
        ("BMES", "M-PER E-PER", 0),
        ("BILOU", "B-PER U-PER", 1),
        ("IOB2", "O PER", 1),
        ("IOB2", "B-", 0),
        ("IOB2", "O NNP", 1),
        ("IOB2", "O S-PER", 1),
    ],
)
def test_what_is_impossible_is_named_where_it_stands(scheme, tags, position):
    with pytest.raises(TagError) as raised:
        to_iob2(tags.split(), scheme)
    assert raised.value.position == position
    assert repr(tags.split()[position]) in raised.value.reason


def test_an_inner_tag_after_o_is_right_in_iob1_alone():
    assert to_iob2(["O", "I-PER", "I-PER", "B-PER"], "IOB1") == ("O", "B-PER", "I-PER", "B-PER")


def test_iob2_with_a_mistake_is_still_iob2():
    """One `I-` after `O` does not make IOB1 of a file in which `B-` opens entities."""
    assert find_scheme([["O", "B-PER", "I-PER"], ["O", "I-PER"]]) == "IOB2"
    assert find_scheme([["O", "I-PER"], ["I-PER", "B-PER"]]) == "IOB1"
    assert find_scheme([["O", "O"]]) == "IOB2"
    assert find_scheme([["I-PER", "I-LOC"]]) == "IOB1"


def test_word_segmentation_has_prefixes_alone():
    assert find_scheme([["B", "E", "S", "B", "M", "E"]]) == "BMES"
    assert to_iob2(["B", "M", "E", "S"], "BMES") == ("B", "I", "I", "B")


def test_predictions_are_read_as_conlleval_reads_them():
    assert predicted_entities(["O", "I-PER", "I-LOC", "I-LOC", "B-LOC"]) == [
        Entity("PER", 1, 2),
        Entity("LOC", 2, 4),
        Entity("LOC", 4, 5),
    ]


def test_names_of_schemes():
    assert [tag_schemes.scheme_named(name) for name in ("bio", "IOBES", "iob1", "BMES")] == [
        "IOB2",
        "BIOES",
        "IOB1",
        "BMES",
    ]
    with pytest.raises(UserError, match="IOB3"):
        tag_schemes.scheme_named("IOB3")
