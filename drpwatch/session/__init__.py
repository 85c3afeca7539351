"""Sessions: their states, their journal, their output files."""
