"""The demo ladder: a tiny model taught, tuned and rewarded on generated tasks, with a gate after every stage."""
