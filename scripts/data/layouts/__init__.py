"""The public data sets as they lie on disk after unzipping: recognised, paired, checked."""
