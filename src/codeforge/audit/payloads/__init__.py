"""Hostile programs that the audit sends into sandboxes. Nothing here is imported on the host."""
