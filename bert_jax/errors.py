"""The one exception that means "the user can put this right"."""


class UserError(Exception):
    """A mistake in a flag, a file or a configuration.

    The message is one line that says what is wrong, where (file, and line where there is one) and what to do. Launchers
    print it without a traceback and exit with code 2.
    """
