"""The exceptions whose message is all that a user needs; launchers print them without a traceback."""

import re

# All that `str.splitlines` takes for the end of a line.
_LINE_END = re.compile("\\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\\s*")


class _OneLineError(Exception):
    """An exception whose message is one line, whatever names and messages of libraries stand in it."""

    def __init__(self, message: object):
        super().__init__(_LINE_END.sub(" ", str(message)))


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
