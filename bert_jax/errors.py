"""The exceptions whose message is all that a user needs; launchers print them without a traceback."""


class UserError(Exception):
    """A mistake in a flag, a file or a configuration; exit code 2.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to do.
    """


class TrainingError(Exception):
    """Training cannot go on, through no mistake that could have been found before it began; exit code 1."""


class DataError(TrainingError):
    """The data that comes next cannot be read or is damaged, while the state that was trained so far is sound.

    A training loop that meets one saves its state before it passes the error on, so that no step is lost.
    """
