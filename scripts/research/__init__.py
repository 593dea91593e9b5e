"""Experiments, semi-supervised training, the multi-class stage and figures of the papers."""
