"""A program that tests itself.

>>> double(2)
4
>>> double("a")
'ab'
"""
import doctest
import sys
import unittest


def double(value):
    return value * 2


class Doubles(unittest.TestCase):
    def test_number(self):
        self.assertEqual(double(2), 4)

    def test_list(self):
        self.assertEqual(double([1]), [1, 2])

    @unittest.skip("later")
    def test_later(self):
        pass


class Plain(unittest.TextTestResult):
    pass


print(doctest.testmod())
result = unittest.TestResult()
unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(result)
print(result.testsRun, result.failures, result.skipped)
unittest.main(argv=["main.py", "Absent.test"], exit=False, testRunner=type("Quiet", (), {"run": lambda self, suite: result}))
