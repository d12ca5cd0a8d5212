"""A child that outlives the program, and holds its stdout open, is not waited for."""
import subprocess

subprocess.Popen(["sh", "-c", "sleep 30; echo too late"])
subprocess.Popen(["sleep", "30"], start_new_session=True)
print("main is done")
raise SystemExit(8)
