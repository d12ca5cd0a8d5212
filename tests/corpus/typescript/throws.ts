// The lines in the stack are those of the TypeScript, not of the JavaScript made of it.
interface Order {
  id: number
  lines: { price: number }[]
}


type Totals = Record<number, number>

function total(order: Order): number {
  return order.lines.reduce((sum: number, line): number => sum + line.price, 0)
}

class Report {
  constructor(private readonly orders: Order[]) {}

  totals(): Totals {
    return Object.fromEntries(this.orders.map((order) => [order.id, total(order)]))
  }
}

console.log(new Report([{ id: 1, lines: [{ price: 2 }] }]).totals())
const broken = JSON.parse('{"id": 2}') as Order
console.log(new Report([broken]).totals())
