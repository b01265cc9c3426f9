"""heteromig: one benchmark measured on one GPU slice while others keep every other slice busy."""

__version__ = "0.1.0"
