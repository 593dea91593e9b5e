"""Inf-Net and its multi-class stage (Fan et al. 2020)."""
