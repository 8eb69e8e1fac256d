"""Metrics, round trips and pictures that show them."""
