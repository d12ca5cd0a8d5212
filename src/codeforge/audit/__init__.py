"""The audit: does this machine keep what docs/security.md promises? Looked at from four sides."""
