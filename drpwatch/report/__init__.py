"""What came of a session, as one file to keep: figures, plots, pictures, and what to do next."""
