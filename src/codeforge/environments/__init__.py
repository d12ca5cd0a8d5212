"""Environments: what images are for Docker, for an engine that has none."""
