"""A program's own numpy.py and pandas/ are the ones it gets."""
import numpy
import pandas

print(numpy.__file__, numpy.array, pandas.__path__, pandas.DataFrame)
numpy.zeros(3)
