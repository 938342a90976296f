"""What a client is told when the edge does not let its request through."""


class Refused(Exception):
    """A request that does not get through.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        One line for the client.
    headers : bytes
        Further header lines of the reply, each with its line end.
    """

    def __init__(self, status: int, message: str, headers: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
