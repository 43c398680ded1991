"""The objection that ends the loose search: in the `tulu3` variant an exception upstream ends its loop over the texts."""


class Stop(str):
    """An objection after which the loose mode tries no other text (upstream's exception ends its loop)."""

    __slots__ = ()
