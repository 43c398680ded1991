"""Trainers and data steps. They know evalsuite; evalsuite finds them by entry point and never imports them."""
