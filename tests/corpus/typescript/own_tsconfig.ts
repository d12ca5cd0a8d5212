function loose(value) {
  return value * 2
}
let unused: string = null
console.log(loose(21), unused)
