"""A model that is opened late: not before it is asked for, once for many questions, and again after it was closed."""

from __future__ import annotations

from evalsuite.models.fake import FakeModel
from evalsuite.models.late import LateModel


def test_a_late_model_opens_at_its_first_use_and_again_after_it_was_closed() -> None:
    opened: list[FakeModel] = []

    def open_model() -> FakeModel:
        opened.append(FakeModel())
        return opened[-1]

    with LateModel(open_model) as late:
        assert opened == []
        assert late.model() is late.model() is opened[0]
    late.close()  # a second time
    assert late.model() is opened[1]
    late.close()
    assert len(opened) == 2
