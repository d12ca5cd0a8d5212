"""The measured programs and their output."""

from __future__ import annotations

from codeforge.bench.measure import Program
from codeforge.model.languages import JAVASCRIPT, PYTHON, TYPESCRIPT

HELLO = Program(PYTHON, "print('hello')", b"hello\n")

GROUPBY = Program(
    PYTHON,
    """\
import numpy as np
import pandas as pd
sales = pd.DataFrame({"city": np.arange(1000) % 7, "amount": np.arange(1000)})
print(sales.groupby("city").amount.sum()[0])
""",
    b"71071\n",
)

OUTPUT_10MB = Program(
    PYTHON,
    "import sys\nsys.stdout.write(('x' * 99 + '\\n') * 100_000)",
    (b"x" * 99 + b"\n") * 100_000,
)

FLOOD = """\
import os
block = b"x" * (1 << 20)
while True:
    os.write(1, block)
"""

CONSOLE_LOG = Program(JAVASCRIPT, "console.log('hello')", b"hello\n")

THIRTY_LINES = Program(
    TYPESCRIPT,
    """\
import { createHash } from 'node:crypto'
import { EventEmitter } from 'node:events'
import * as path from 'node:path'

interface Entry {
  readonly name: string
  readonly size: number
}
type Summary = Record<string, { count: number; bytes: number }>

class Catalogue extends EventEmitter {
  private readonly entries = new Map<string, Entry>()
  add(entry: Entry): this {
    this.entries.set(entry.name, entry)
    this.emit('added', entry)
    return this
  }
  summarize(): Summary {
    const summary: Summary = {}
    for (const { name, size } of this.entries.values()) {
      const kind = (summary[path.extname(name)] ??= { count: 0, bytes: 0 })
      kind.count += 1
      kind.bytes += size
    }
    return summary
  }
}
const catalogue = new Catalogue()
catalogue.on('added', ({ name }: Entry) => console.log(createHash('sha256').update(name).digest('hex')))
console.log(catalogue.add({ name: 'a.ts', size: 3 }).add({ name: 'b.ts', size: 4 }).summarize())
""",
    b"0d18d4eb377a214157ad45e7ee0f189a2d7370788a483e729c7f269d94cafe41\n"
    b"ded2f7f761b76f9c30486fd9f691b40d810bc23774a5438361dbb362ce039f63\n"
    b"{ '.ts': { count: 2, bytes: 7 } }\n",
)
