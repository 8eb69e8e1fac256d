"""Layers that every network of the house shares: attention, positions, blocks. They know nothing of media."""
