"""Have matplotlib find its list of fonts among its own data.

It makes the list when it is first imported, which takes a second, and keeps it in the user's cache: where
the home directory is new every time, that is every time. So it is made here, of matplotlib's own fonts,
and looked for where it lies. The build fails if matplotlib looks for it in another way than this knows.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

LOOKS_FOR = 'mpl.get_cachedir(), f"fontlist-v{FontManager.__version__}.json"'


def main() -> None:
    """Change the one line, and make the list."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise SystemExit("matplotlib_fonts: there is no matplotlib")
    source = Path(spec.origin).with_name("font_manager.py")
    text = source.read_text()
    if text.count(LOOKS_FOR) != 1:
        raise SystemExit(f"matplotlib_fonts: {source} does not look for its list as expected")
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp()
    import matplotlib.font_manager as fonts

    find = fonts.findSystemFonts
    fonts.findSystemFonts = lambda paths=None, fontext="ttf": find(paths, fontext) if paths else []
    manager = fonts.FontManager()
    manager.findfont("DejaVu Sans", fallback_to_default=False)
    name = f"fontlist-v{manager.__version__}.json"
    fonts.json_dump(manager, Path(spec.origin).with_name("mpl-data") / name)
    source.write_text(text.replace(LOOKS_FOR, LOOKS_FOR.replace("get_cachedir", "get_data_path")))


main()
