"""The exceptions whose message is all that a user needs; launchers print them without a traceback."""


class UserError(Exception):
    """A mistake in a flag, a file or a configuration; exit code 2.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to do.
    """


class TrainingError(Exception):
    """Training cannot go on, through no mistake that could have been found before it began; exit code 1."""
