"""What can go wrong with an adapter's file."""


class AdapterError(ValueError):
    """An adapter cannot be written, is damaged, or was made for another network; the message says what to do."""
