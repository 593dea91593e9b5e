"""Results in the browser: a server on loopback for pages, scan and mask."""
