import sys
print(ascii(open(__file__, newline="").read(1)), "crlf")
text = """one
two"""
print(repr(text))
sys.exit(7)