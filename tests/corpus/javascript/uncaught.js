// The source line, the caret and the stack of an uncaught exception.
class Order {
  #lines = []
  get total() { return this.#lines.reduce((sum, line) => sum + line.price.amount, 0) }
  add(line) { this.#lines.push(line); return this }
}

function main(orders) {
  return orders.map(order => order.total)
}

process.on('exit', code => console.log('exit', code))
console.log(main([new Order().add({ price: { amount: 2 } })]))
main([new Order().add({})])
