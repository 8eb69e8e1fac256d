"""Pixels to patches and back; exact, and with no learning except ``embed``."""
