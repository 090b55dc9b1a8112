"""The exceptions whose message is all that a user needs; launchers print them without a traceback."""

import re

# All that `str.splitlines` takes for the end of a line.
_LINE_END = re.compile("\\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\\s*")


# Characters of a message; a longer one loses its middle, since the place stands in front and what to do at the end.
LONGEST_MESSAGE = 2000


class _OneLineError(Exception):
    """An exception whose message is one line that can be read, whatever names and messages of libraries stand in it."""

    def __init__(self, message: object):
        line = _LINE_END.sub(" ", str(message))
        if len(line) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2 - len(" ... ")
            line = f"{line[:half]} ... {line[-half:]}"
        super().__init__(line)


class UserError(_OneLineError):
    """A mistake in a flag, a file or a configuration; exit code 2.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to do.
    """


class TrainingError(_OneLineError):
    """Training cannot go on, through no mistake that could have been found before it began; exit code 1."""


class DataError(TrainingError):
    """The data that comes next cannot be read or is damaged, while the state that was trained so far is sound.

    A training loop that meets one saves its state before it passes the error on, so that no step is lost.
    """
