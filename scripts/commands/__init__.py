"""One thin module a command: arguments in, a call to the code that does the work, an exit code out."""
