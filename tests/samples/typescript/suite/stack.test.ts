import { Stack } from './stack'

interface Item { name: string }

describe('stack', () => {
  test('gives back the last item', () => {
    const stack = new Stack<Item>()
    stack.push({ name: 'a' })
    expect(stack.pop()).toEqual({ name: 'a' })
  })
  test('refuses when empty', () => {
    const pop: jest.Mock = jest.fn(() => new Stack<Item>().pop())
    expect(pop).toThrow(RangeError)
  })
  test('is wrong on purpose', () => {
    expect(new Stack<number>()).toBeNull()
  })
})
