"""The objection that ends the loose search: upstream's `tulu3` variant gives up a response on its first exception."""


class Stop(str):
    """An objection after which the loose mode tries no other text (upstream's exception ends its loop)."""

    __slots__ = ()
