'use strict'
// Rewrites the text of a cell for V8's REPL. Lines stay where they are. Three things change:
//
// - import and export, which only modules have. Import declarations become `await`, import() and
//   import.meta become calls of ours (see putImport in node_session.cjs), and `export` is dropped.
// - Declarations. V8's REPL accepts `const` after `const`, but not `let` after `const`, nor either after
//   `function` or `var`. So `const` becomes `let`, and what an earlier cell declared in another way is
//   declared again in that way.
// - {a: 1} is an object when it is the whole cell.
//
// acorn finds the places. What it cannot parse goes to V8 as it is, so that users see V8's error. What it
// read before the error is still rewritten: V8 then complains about the same place, not about an import.

const vm = require('vm')

const MODULE_WORDS = /\b(?:import|export|const)\b/
const IN_TEXT = /^Unterminated (?:template|comment)/ // where indentation would become part of the text
const BRACKETS = { '(': 1, '[': 1, '{': 1, '${': 1, ')': -1, ']': -1, '}': -1 }

let CellParser

// The preload step: V8 compiles the parser's functions when they are first called.
function warm() {
  forRepl("import a from 'a'\nconst { b } = await import(`c${1}`)\nfunction f(x) { return x.y[0] }")
}

// acorn, which also keeps what it read before an error, and lets scripts have import and export.
function makeParser({ Parser, tokTypes }) {
  return class extends Parser {
    statements = [] // at the top level
    imports = [] // where import() and import.meta begin

    parseStatement(context, isTopLevel, exported) {
      const statement = super.parseStatement(context, isTopLevel, exported)
      if (isTopLevel) this.statements.push(statement)
      return statement
    }

    parseExprImport(forNew) {
      this.imports.push(this.start)
      return super.parseExprImport(forNew)
    }

    // Node 18 has `assert` where the standard has `with`.
    parseWithClause() {
      if (this.isContextual('assert') && !this.canInsertSemicolon()) this.type = tokTypes._with
      return super.parseWithClause()
    }

    checkExport() {} // exports are dropped, so they cannot clash
  }
}

// {statements, imports, error}: error is null, or why only a part of the code could be parsed.
function parse(code, onToken) {
  CellParser ??= makeParser(require('acorn'))
  const parser = new CellParser(
    {
      ecmaVersion: 'latest',
      sourceType: 'script',
      allowAwaitOutsideFunction: true,
      allowImportExportEverywhere: true,
      checkPrivateFields: false,
      preserveParens: true,
      onToken,
    },
    code,
  )
  const { statements, imports } = parser
  try {
    parser.parse()
    return { statements, imports, error: null }
  } catch (error) {
    return { statements, imports, error } // a SyntaxError with `pos`, or a RangeError: nested too deep
  }
}

// changes: [{at, end, text}]. Each keeps the number of lines that it replaces.
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

function forRepl(code) {
  if (!MODULE_WORDS.test(code)) return code
  const { statements, imports } = parse(code)
  const changes = imports.map((at) => ({ at, end: at, text: 'globalThis.' }))
  for (const statement of statements) {
    if (statement.type === 'ImportDeclaration') changes.push(importChange(code, statement))
    else if (statement.type === 'ExportDefaultDeclaration') changes.push(...defaultChanges(code, statement))
    else if (statement.type.startsWith('Export')) changes.push(exportChange(statement))
    const declared = statement.declaration ?? statement
    if (declared.type === 'VariableDeclaration' && declared.kind === 'const')
      changes.push({ at: declared.start, end: declared.start + 'const'.length, text: 'let  ' })
  }
  return replaced(code, changes)
}

// import a, { b as c } from 'x'  ->  let {default: a, b: c} = await globalThis.import('x');
function importChange(code, { start, end, specifiers, source, attributes }) {
  const textOf = (node) => code.slice(node.start, node.end)
  const options = attributes.length ? `, {assert: {${attributes.map(textOf).join(', ')}}}` : ''
  const loaded = `await globalThis.import(${source.raw}${options})`
  let all
  const names = []
  for (const { type, imported, local } of specifiers) {
    if (type === 'ImportNamespaceSpecifier') all = textOf(local)
    else names.push(`${type === 'ImportDefaultSpecifier' ? 'default' : textOf(imported)}: ${textOf(local)}`)
  }
  const pattern = `{${names.join(', ')}}`
  let text = `void ${loaded};`
  if (all) text = `let ${all} = ${loaded}${names.length ? `, ${pattern} = ${all}` : ''};`
  else if (names.length) text = `let ${pattern} = ${loaded};`
  return { at: start, end, text }
}

function exportChange({ start, end, declaration }) {
  if (!declaration) return { at: start, end, text: ';' }
  const length = 'export'.length
  return { at: start, end: start + length, text: ' '.repeat(length) }
}

function defaultChanges(code, { start, declaration }) {
  const { type, id, start: at, end } = declaration
  const isDeclared = type === 'FunctionDeclaration' || type === 'ClassDeclaration'
  const [before, after] = !isDeclared ? [';(', ')'] : id ? ['', ''] : ['void', ';']
  const isOneLine = !code.slice(start, at).includes('\n')
  return [
    { at: start, end: at, text: isOneLine ? before.padEnd(at - start) : before },
    { at: end, end, text: after },
  ]
}

// --- Names that are declared again

// The code with `name` declared in another way, or null if the code does not declare it.
function redeclared(code, name) {
  const changes = []
  for (const statement of parse(code).statements) {
    const { type, kind, start, end, id } = statement
    if (type === 'VariableDeclaration' && (kind === 'let' || kind === 'var')) {
      if (statement.declarations.some(({ id }) => binds(id, name)))
        changes.push({ at: start, end: start + kind.length, text: kind === 'var' ? 'let' : 'var' })
    } else if ((type === 'FunctionDeclaration' || type === 'ClassDeclaration') && id.name === name) {
      const word = type === 'ClassDeclaration' ? 'var' : 'let'
      changes.push({ at: start, end: start, text: `${word} ${name} = ` }, { at: end, end, text: ';' })
    }
  }
  return changes.length ? replaced(code, changes) : null
}

function binds(pattern, name) {
  switch (pattern?.type) {
    case 'Identifier':
      return pattern.name === name
    case 'ObjectPattern':
      return pattern.properties.some((property) => binds(property.value ?? property, name))
    case 'ArrayPattern':
      return pattern.elements.some((element) => binds(element, name))
    case 'AssignmentPattern':
      return binds(pattern.left, name)
    case 'RestElement':
      return binds(pattern.argument, name)
    default:
      return false
  }
}

// --- Whole statements

function isValid(code) {
  try {
    new vm.Script(`(async () => {${code}\n})`)
    return true
  } catch {
    return false
  }
}

function withObject(code) {
  if (!/^\s*\{/.test(code) || /;\s*$/.test(code)) return code
  return isValid(`(${code}\n)`) ? `(${code}\n)` : code
}

// {status, indent}: whether the user has finished typing, and if not, how far the next line is indented.
function completeness(code) {
  if (isValid(withObject(forRepl(code)))) return { status: 'complete', indent: '' }
  let depth = 0
  const { error } = parse(code, ({ type }) => (depth += BRACKETS[type.label] ?? 0))
  const isInText = IN_TEXT.test(error?.message)
  if (!isInText && error?.pos !== code.length) return { status: 'invalid', indent: '' }
  return { status: 'incomplete', indent: isInText ? '' : '  '.repeat(depth) }
}

module.exports = { forRepl, withObject, redeclared, isValid, completeness, warm }
