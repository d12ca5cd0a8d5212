print("did not read")
raise SystemExit(5)
