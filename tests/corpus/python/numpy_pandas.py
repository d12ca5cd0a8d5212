import io
import sys

import numpy as np
import pandas as pd

rng = np.random.default_rng(7)
matrix = rng.integers(0, 10, (3, 3))
print(matrix, matrix.T @ matrix, np.linalg.det(matrix.astype(float)).round(6), sep="\n")
np.random.seed(3)
print(np.random.rand(3), np.geterr(), np.get_printoptions()["precision"])
print(np.array([1.0, 0.0]) / np.array([0.0, 0.0]))
frame = pd.read_csv(io.StringIO("city,year,value\nKyiv,2020,1.5\nLviv,2020,2\nKyiv,2021,\n"))
print(frame, frame.dtypes, frame.groupby("city")["value"].agg(["sum", "count"]), sep="\n")
print(frame.describe().to_string(), pd.get_option("display.max_rows"))
frame.info(memory_usage=False)
print(pd.date_range("2024-02-28", periods=3, tz="Europe/Kyiv"))
frame.to_csv(sys.stdout, index=False)
print(np.full((2, 2), 3) @ np.ones(3))
