"""Tests, sorted by what they need; README.md tells."""
