"""The samples run in the images; see tests/contract/test_images.py."""

collect_ignore_glob = ["*"]
