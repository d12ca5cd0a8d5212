// @ts-expect-error: on purpose
const wrong: number = 'text'
// @ts-ignore
console.log(wrong.absent.x ?? 1)
const loose: any = { a: 1 }
console.log(loose.b?.c, wrong)
