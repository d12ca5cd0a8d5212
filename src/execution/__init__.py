"""The documented import path. The code is in ``codeforge``."""
