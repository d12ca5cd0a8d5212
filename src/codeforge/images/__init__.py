"""The images: have them on this machine, know what is in them, look for known vulnerabilities."""
