import sys

print("before")
sys.exit("stopped: зупинено")
