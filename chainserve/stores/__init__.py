"""Where event logs and run records are kept."""
