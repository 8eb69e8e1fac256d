"""Everything that owns an optimizer, and the losses that it follows."""
