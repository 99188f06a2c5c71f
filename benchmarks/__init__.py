"""What this server costs beside LangServe: `make bench`, described in `docs/performance.md`."""
