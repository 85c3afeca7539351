"""Measures of picking quality."""
