"""What jrnn is measured against, and how: see README.md. Run from the root of the repository."""
