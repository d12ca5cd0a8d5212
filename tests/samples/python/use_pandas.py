"""Read, group, join, resample and write tables."""

import io

import pandas as pd

orders = pd.read_csv(
    io.StringIO("time,customer,amount\n2024-03-30 12:00,ann,5\n2024-03-31 12:00,bob,7\n2024-03-31 13:00,ann,2\n"),
    parse_dates=["time"],
)
towns = pd.DataFrame({"customer": ["ann", "bob"], "town": ["Bern", "Oslo"]})
joined = orders.merge(towns, on="customer")
print(joined.groupby("town")["amount"].agg(["sum", "mean"]).to_csv(), end="")
# One of the days has 23 hours.
local = orders.set_index(orders["time"].dt.tz_localize("Europe/Berlin"))
print(local["amount"].resample("D").sum().to_list())
print(joined.pivot_table(index="customer", values="amount", aggfunc="max").to_json())
print(joined.query("amount > 4")["customer"].str.upper().tolist())
pd.testing.assert_frame_equal(pd.read_json(io.StringIO(towns.to_json())), towns)
