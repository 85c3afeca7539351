"""Whether this host can run drpwatch: checks that need no daemon, each with what to do about it."""
