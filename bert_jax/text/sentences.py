"""Sentence splitting, by the library sentencex (rules for each language, without a model)."""

from bert_jax.errors import UserError

# ISO 639-1. The library takes any code and treats one that it does not know like English, so that a slip such as
# "englsh" or "gr" would pass unseen: hence the list.
_CODES = """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en
    eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv
    ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne
    ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st
    su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_LANGUAGES = frozenset(_CODES.split())


def check_language(language: str) -> None:
    """Raises a UserError unless `language` is a two-letter code of ISO 639-1 in lower case, such as en or zh."""
    if language not in _LANGUAGES:
        raise UserError(f"unknown language {language!r}: give the two-letter code of ISO 639-1, such as en, de or zh")


def split_sentences(text: str, language: str) -> list[str]:
    """Returns the sentences of a text in order, each with single spaces between its words; none is empty.

    Args:
        text: a paragraph; line breaks in it are spaces.
        language: two-letter code of ISO 639-1.
    """
    import sentencex

    check_language(language)
    sentences = (sentence.strip() for sentence in sentencex.segment(language, " ".join(text.split())))
    return [sentence for sentence in sentences if sentence]
