#!/bin/sh
# Make the Python installation smaller and start faster.
set -eu

path_of() { python -c 'import sys, sysconfig; print(sysconfig.get_path(sys.argv[1]))' "$1"; }
site=$(path_of purelib)
stdlib=$(path_of stdlib)

# The packages' own tests, and what is of use to a compiler only. numpy.testing and
# pandas.testing are elsewhere and stay; so does numpy.f2py, which `from numpy import *` imports.
for package in numpy pandas matplotlib mpl_toolkits networkx scipy seaborn sklearn statsmodels sympy; do
  [ ! -d "$site/$package" ] || find "$site/$package" -depth -type d -name tests -exec rm -rf {} +
done
rm -rf "$site/numpy/distutils" "$(path_of scripts)/f2py"
find "$site" \( -name '*.pyi' -o -name '*.a' -o -name '*.pyx' -o -name '*.pxd' \) -delete
rm -rf "$stdlib/ensurepip" "$stdlib/idlelib" "$stdlib/lib2to3" "$stdlib/test" \
  "$stdlib/tkinter" "$stdlib/turtledemo" "$stdlib"/lib-dynload/_tkinter*

# Bytecode for all the rest, since a read-only root file system cannot cache any:
# it saves 0.75 s of CPU per import of pandas. Its sources never change, so they are
# not looked at again (unchecked-hash). Big tables that hardly anything imports go without.
find "$stdlib" "$site" -name __pycache__ -prune -exec rm -rf {} +
python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  -x '/(pygments/(lexers|styles|formatters)|pydoc_data)/' "$stdlib" "$site" \
  || echo 'trim-python: the files named above have no bytecode' >&2
