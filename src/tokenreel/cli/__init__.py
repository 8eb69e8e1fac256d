"""The command line: one file a command group, one short function a command; no logic."""
