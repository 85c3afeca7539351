"""The daemon: threads, control API, metrics, systemd."""
