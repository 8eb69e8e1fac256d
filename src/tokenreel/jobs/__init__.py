"""File in, file out: one function a verb, shared by the command line and the studio."""
