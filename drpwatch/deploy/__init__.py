"""What a host is given to run drpwatch for years: unit, Prometheus job and rules, Grafana dashboard."""
