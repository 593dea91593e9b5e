"""The ResUNet of Hu et al. 2022: edge and semantic supervision, attention fusion."""
