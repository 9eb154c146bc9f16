"""What the command line answers with one message and exit status 2."""


class RequestError(ValueError):
    """The request can't be carried out; the message says what is wrong and what to do."""
