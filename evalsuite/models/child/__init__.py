"""A Model in a process of its own: `model.ChildModel` here, main there, wire between them."""
