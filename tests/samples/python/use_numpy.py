"""Solve a system, transform a signal, sort and aggregate."""

import numpy as np

rng = np.random.default_rng(seed=7)
matrix = rng.normal(size=(200, 200))
right = rng.normal(size=200)
np.testing.assert_allclose(matrix @ np.linalg.solve(matrix, right), right, atol=1e-8)

signal = np.sin(2 * np.pi * 5 * np.arange(256) / 256)
print("peak", int(np.argmax(np.abs(np.fft.rfft(signal)))))
_, singular, _ = np.linalg.svd(np.diag([3.0, 1.0, 2.0]))
print("singular", singular.tolist())
print("fit", np.polyfit([0, 1, 2], [1, 3, 5], 1).round(6).tolist())
print("masked", float(np.ma.masked_array([1, 2, 30], mask=[0, 0, 1]).mean()))
