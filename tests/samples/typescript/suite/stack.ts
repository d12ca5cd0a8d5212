export class Stack<T> {
  private readonly items: T[] = []
  push(item: T): void { this.items.push(item) }
  pop(): T {
    const item = this.items.pop()
    if (item === undefined) throw new RangeError('empty')
    return item
  }
}
