"""Settings that compose more than one function of the library, by kind."""
