const items: number[] = [1, 2, 3
function broken(: string) {
  return items.map(item => item *)
}
