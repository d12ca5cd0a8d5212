'use strict'
// What is changed in a cell's text before V8 has it, all of it so that lines stay where they are:
//
// - import and export, which only modules have: import declarations become `await`, import() and
//   import.meta get their place (see putImport in node_session.cjs), `export` is left out;
// - declarations that stay. V8's REPL takes `const` after `const`, but not `let` after `const`, nor either
//   after `function` or `var`: so `const` becomes `let`, and what is declared in another way than an
//   earlier cell did is declared in that way;
// - {a: 1}, which is an object when it is all of a cell.
//
// For that, words have to be told from text in strings, comments and patterns; a parser is not needed.

const vm = require('vm')

const SPACE = /[\s\uFEFF]+/y
const COMMENT = /\/\/.*|\/\*[^]*?(?:\*\/|$)/y
const STRING = /"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'/y
const WORD = /#?[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/uy
const NUMBER = /\.?\d[\w.]*/y
const PATTERN = /\/(?:[^\\/[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/\w*/y
const TEMPLATE = /(?:[^\\`$]|\\[^]|\$(?!\{))*(`|\$\{|\\?$)/y

const VALUE_BEFORE = new Set(['word', 'number', 'string', 'template', 'pattern'])
const NO_VALUE = new Set(
  'return typeof case in of delete void throw new instanceof do else await yield'.split(' '),
)
const STATEMENTS = new Set(
  'const let var function class if for while do return import export throw try switch async'.split(' '),
)

// [tokens {kind, text, at, end, depth, newline}, what is still open at the end: null, or a name]
function tokensOf(code) {
  const tokens = []
  const nesting = [] // of brackets, and '`' for the values in templates
  let open = null
  let newline = true
  let at = 0
  const take = (pattern) => {
    pattern.lastIndex = at
    return pattern.exec(code)?.[0]
  }
  const add = (kind, text, depth = nesting.length) => {
    tokens.push({ kind, text, at, end: at + text.length, depth, newline })
    newline = false
    at += text.length
  }
  const template = (start) => {
    TEMPLATE.lastIndex = at + start
    const [text, end] = TEMPLATE.exec(code)
    add('template', code.slice(at, at + start) + text)
    if (end === '${') nesting.push('`')
    else if (end !== '`') open = 'template'
  }
  while (at < code.length) {
    const character = code[at]
    const last = tokens.at(-1)
    let text
    if ((text = take(SPACE))) {
      newline ||= text.includes('\n')
      at += text.length
    } else if ((text = take(COMMENT))) {
      if (text.startsWith('/*') && (text.length < 4 || !text.endsWith('*/'))) open = 'comment'
      newline ||= text.includes('\n')
      at += text.length
    } else if ((text = take(STRING))) add('string', text)
    else if ((text = take(WORD))) add('word', text)
    else if ((text = take(NUMBER))) add('number', text)
    else if (character === '`') template(1)
    else if (character === '}' && nesting.at(-1) === '`') {
      nesting.pop()
      template(1)
    } else if (character === '/' && takesPattern(last) && (text = take(PATTERN))) add('pattern', text)
    else if ('([{'.includes(character)) {
      add('mark', character)
      nesting.push(character)
    } else if (')]}'.includes(character)) {
      nesting.pop()
      add('mark', character)
    } else add('mark', character)
  }
  return { tokens, open: open ?? (nesting.length ? 'bracket' : null), depth: nesting.length }
}

function takesPattern(last) {
  if (!last) return true
  if (last.kind === 'word') return NO_VALUE.has(last.text)
  return !VALUE_BEFORE.has(last.kind) && last.text !== ')' && last.text !== ']'
}

function beginsStatement(tokens, index) {
  const before = tokens[index - 1]
  if (!before || before.text === ';' || before.text === '}') return true
  const ends = VALUE_BEFORE.has(before.kind) || before.text === ')' || before.text === ']'
  return tokens[index].newline && ends
}

// [{at, end, text}] put into the code, each with the lines that it replaces.
function replaced(code, changes) {
  let result = ''
  let from = 0
  for (const { at, end, text } of changes.sort((a, b) => a.at - b.at)) {
    const lines = code.slice(at, end).split('\n').length - text.split('\n').length
    result += code.slice(from, at) + text + '\n'.repeat(Math.max(lines, 0))
    from = end
  }
  return result + code.slice(from)
}

// --- Modules

function withoutModules(code) {
  if (!/\b(?:import|export)\b/.test(code)) return code
  const { tokens } = tokensOf(code)
  const changes = []
  for (let i = 0; i < tokens.length; i++) {
    const { kind, text, at, depth } = tokens[i]
    if (kind !== 'word' || tokens[i - 1]?.text === '.') continue
    const next = tokens[i + 1]
    if (text === 'import' && (next?.text === '(' || next?.text === '.')) {
      if (isMethod(tokens, i)) continue
      changes.push({ at, end: at, text: 'globalThis.' })
    } else if (depth === 0 && beginsStatement(tokens, i)) {
      if (text === 'import') i = importDeclaration(code, tokens, i, changes)
      if (text === 'export') i = exportDeclaration(code, tokens, i, changes)
    }
  }
  return replaced(code, changes)
}

// `import(path) {...}`, in a class or an object.
function isMethod(tokens, index) {
  const { text, depth } = tokens[index + 1]
  if (text !== '(') return false
  const close = tokens.findIndex((token, i) => i > index + 1 && token.text === ')' && token.depth === depth)
  const next = tokens[close + 1]
  return close >= 0 && next?.text === '{' && !next.newline
}

function importDeclaration(code, tokens, start, changes) {
  let i = start + 1
  let whole, all
  const names = []
  const word = () => tokens[i++]?.text
  if (tokens[i]?.kind === 'word') whole = word()
  if (tokens[i]?.text === ',') i++
  if (tokens[i]?.text === '*') {
    i += 2 // as
    all = word()
  } else if (tokens[i]?.text === '{') {
    for (i++; i < tokens.length && tokens[i].text !== '}';) {
      const name = word()
      if (tokens[i]?.text === 'as') {
        i++
        names.push(`${name}: ${word()}`)
      } else names.push(name)
      if (tokens[i]?.text === ',') i++
    }
    i++
  }
  if (tokens[i]?.text === 'from') i++
  const specifier = tokens[i]
  if (specifier?.kind !== 'string') return start // V8 will say what is wrong
  let end = specifier.end
  let options = ''
  if (
    ['assert', 'with'].includes(tokens[i + 1]?.text) &&
    tokens[i + 2]?.text === '{' &&
    !tokens[i + 1].newline
  ) {
    const from = i + 2
    for (i = from; i < tokens.length && tokens[i].text !== '}';) i++
    end = tokens[i]?.end ?? end
    options = `, {assert: ${code.slice(tokens[from].at, end)}}`
  }
  if (whole) names.unshift(`default: ${whole}`)
  const loaded = `await globalThis.import(${specifier.text}${options})`
  let text = `void ${loaded};`
  if (all) text = `const ${all} = ${loaded}${whole ? `, {default: ${whole}} = ${all}` : ''};`
  else if (names.length) text = `const {${names.join(', ')}} = ${loaded};`
  changes.push({ at: tokens[start].at, end, text })
  return i
}

function exportDeclaration(code, tokens, start, changes) {
  let i = start + 1
  const { at } = tokens[start]
  if (tokens[i]?.text === 'default') {
    const next = tokens.slice(i + 1).find(({ text }) => !['async', 'function', 'class', '*'].includes(text))
    const unnamed = tokens[i + 1] !== next && (next?.kind !== 'word' || next.text === 'extends')
    changes.push({ at, end: tokens[i].end, text: unnamed ? 'void' : '' })
    return i
  }
  if (tokens[i]?.text !== '{' && tokens[i]?.text !== '*') {
    changes.push({ at, end: tokens[start].end, text: '' })
    return start
  }
  if (tokens[i].text === '{') while (i < tokens.length && tokens[i].text !== '}') i++
  else while (i + 1 < tokens.length && tokens[i + 1].text !== 'from') i++
  if (tokens[i + 1]?.text === 'from') i += 2
  changes.push({ at, end: (tokens[i] ?? tokens.at(-1)).end, text: ';' })
  return i
}

// --- Names that are declared again

function withoutConstants(code) {
  if (!/\bconst\b/.test(code)) return code
  const { tokens } = tokensOf(code)
  const found = tokens.filter(
    ({ text, kind, depth }, i) =>
      text === 'const' && kind === 'word' && depth === 0 && beginsStatement(tokens, i),
  )
  return replaced(
    code,
    found.map(({ at, end }) => ({ at, end, text: 'let  ' })),
  )
}

function redeclaring(code, name) {
  const { tokens } = tokensOf(code)
  const changes = []
  for (let i = 0; i < tokens.length; i++) {
    const { kind, text, at, end, depth } = tokens[i]
    if (kind !== 'word' || depth !== 0 || !beginsStatement(tokens, i)) continue
    if (text === 'let' || text === 'var') {
      if (declares(tokens, i, name)) changes.push({ at, end, text: text === 'var' ? 'let' : 'var' })
    } else {
      const named = tokens
        .slice(i, i + 4)
        .findIndex(({ text }) => !['async', 'function', 'class', '*'].includes(text))
      if (named < 1 || tokens[i + named].text !== name) continue
      changes.push({ at, end: at, text: `${tokens[i].text === 'class' ? 'var' : 'let'} ${name} = ` })
      const body = tokens.slice(i).find(({ text, depth }) => text === '{' && depth === 0)
      const close = body && tokens.find(({ text, depth, at }) => text === '}' && depth === 0 && at > body.at)
      if (close) changes.push({ at: close.end, end: close.end, text: ';' })
    }
  }
  return changes.length ? replaced(code, changes) : null
}

function declares(tokens, start, name) {
  for (let i = start + 1; i < tokens.length; i++) {
    const { text, kind, depth } = tokens[i]
    if (depth === 0 && (text === ';' || (kind === 'word' && STATEMENTS.has(text)))) return false
    if (text !== name) continue
    const before = tokens[i - 1].text
    if (depth === 0 ? i === start + 1 || before === ',' : inPattern(tokens, start, i)) return true
  }
  return false
}

// Whether it is in a bracket that a declaration begins with, and not in a value.
function inPattern(tokens, start, index) {
  for (let i = index; i > start; i--) {
    if (tokens[i].depth === 0)
      return '{['.includes(tokens[i].text) && (i === start + 1 || tokens[i - 1].text === ',')
  }
  return false
}

// --- Whole statements

function fault(code) {
  try {
    new vm.Script(`(async () => {${code}\n})`)
    return null
  } catch (error) {
    return error
  }
}

function withObject(code) {
  if (!/^\s*\{/.test(code) || /;\s*$/.test(code)) return code
  return fault(`(${code}\n)`) ? code : `(${code}\n)`
}

function completeness(code) {
  const text = withObject(withoutModules(code))
  if (!fault(text)) return { status: 'complete', indent: '' }
  const { open, depth } = tokensOf(code)
  const ends = /^Unexpected end of input/.test(unclosedFault(text))
  if (open === null && !ends) return { status: 'invalid', indent: '' }
  return { status: 'incomplete', indent: open === 'bracket' ? '  '.repeat(depth) : '' }
}

function unclosedFault(code) {
  try {
    new vm.Script(`(async () => {${code}\n`)
    return ''
  } catch (error) {
    return error.message
  }
}

module.exports = { withoutModules, withoutConstants, withObject, redeclaring, fault, completeness, tokensOf }
