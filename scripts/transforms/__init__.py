"""Transforms that MONAI does not have, and the one definition of preprocessing built from both."""
