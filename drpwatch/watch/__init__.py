"""Finding micrographs: what is there, and which of it is whole."""
