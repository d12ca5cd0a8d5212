const { checkout, total } = require('./cart')

describe('cart', () => {
  test.each([[[], 0], [[{ price: 2, count: 3 }], 6]])('total of %j is %d', (items, expected) => {
    expect(total(items)).toBe(expected)
  })
  test('pays the total', async () => {
    const pay = jest.fn().mockResolvedValue('paid')
    await expect(checkout([{ price: 2, count: 1 }], pay)).resolves.toBe('paid')
    expect(pay).toHaveBeenCalledWith(2)
  })
  test('wrong on purpose', () => {
    expect(total([])).toBe(1)
  })
})
