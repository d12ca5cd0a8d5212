console.log('never printed')

function broken(items) {
  return items.map(item => item * 2
}
