const assert = require('node:assert')

describe('queue', () => {
  let queue
  beforeEach(() => { queue = [1, 2] })
  it('is first in, first out', () => assert.equal(queue.shift(), 1))
  it('waits', async () => { await new Promise((resolve) => setTimeout(resolve, 5)) })
  it('is wrong on purpose', () => assert.equal(queue.length, 3))
})
