"""The documented import path; everything is in ``codeforge``."""
