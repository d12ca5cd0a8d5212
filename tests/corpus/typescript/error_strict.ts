const found = [{ id: 1 }].find((item) => item.id === 2)
console.log(found.id)

class Account {
  owner: string
  private balance = 0
}

function close(account: Account | null): number {
  if (account!.balance > 0) return account.balance
}

function area(shape: { kind: 'circle'; r: number } | { kind: 'square'; side: number }): number {
  switch (shape.kind) {
    case 'circle':
      return shape.side
  }
}

try {
  close(null)
} catch (error) {
  console.log(error.message)
}
const list: readonly number[] = [1]
list.push(2)
area({ kind: 'triangle' })
