"""The page: what is served to a browser, and what it is told while it is open."""
