"""Images: pull and build them, and see which are on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.images.store import ImageStore as ImageStore
else:
    __getattr__ = lazy_exports(
        __name__,
        store="ImageStore",
    )
