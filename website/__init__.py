"""The site: `python -m website` builds it from `docs/`, without a network."""
