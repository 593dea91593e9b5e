"""One scan from its file to its results, and many of them."""
