import { check } from './checks.mjs'

export function main() {
  check({ name: 'x' })
  check(null)
}

main()
