"""Commands, one thin module each: arguments in, a call to the code, an exit code out."""
