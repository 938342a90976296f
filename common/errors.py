"""Errors that a person caused and can mend: one line that says where and what to do."""


class UserError(Exception):
    """A mistake in the input, told in one line.

    The command line prints the message and exits with code 2; the server answers with it.
    The message names the file, column, row, field or port, and what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
