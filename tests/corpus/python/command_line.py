import argparse

parser = argparse.ArgumentParser(description="A tool with a required option.")
parser.add_argument("path")
parser.add_argument("--count", type=int, required=True, help="how many")
parser.print_help()
print(parser.parse_args(["p", "--count", "2"]))
parser.parse_args()
