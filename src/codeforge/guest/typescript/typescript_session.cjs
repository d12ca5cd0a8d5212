'use strict'
// TypeScript in a session: checks each cell as a module of its own, and compiles it to JavaScript.
//
// The compiler sees every cell as a file that exports everything it declares. The text of a cell follows
// a line that brings in what it uses of earlier cells, as the last of them declared it. So a name may be
// declared again, and what was declared with the old type keeps it. Variables are declared in that line
// (an import could not be assigned to), the rest is imported. Old cells do not change, and are not
// checked again.
//
// The JavaScript has none of this: V8 keeps the names over all cells. The source map tells where its
// lines were in the cell, and they are moved back there.

const fs = require('fs')
const path = require('path')
const v8 = require('v8')

// The compiler makes a checker for each cell with one function of many thousand lines. V8 would in the
// end optimize that function, and need a gigabyte of memory for it.
v8.setFlagsFromString('--max-optimized-bytecode-size=16384')

const ts = require('typescript')

const SAMPLE = path.join(__dirname, 'typescript_sample.ts')
const SETTINGS = path.join(__dirname, '../../tsconfig.json') // /tsconfig.json
const AMBIENT = '<session>.d.ts'
const DECLARED = 'declare function display(value: unknown): void | Promise<void>\n'
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

const MATCHES = 200
const IMPLICIT = new Set([7005, 7034]) // reported for `let list = []` and its uses, because we export it
const ERRORS_SHOWN = 20
const UNTERMINATED_STRING = 1002
const UNTERMINATED = new Set([1010, 1160]) // a comment, a template
const { SyntaxKind } = ts
const BRACKETS = new Map([
  [SyntaxKind.OpenParenToken, 1],
  [SyntaxKind.OpenBracketToken, 1],
  [SyntaxKind.OpenBraceToken, 1],
  [SyntaxKind.TemplateHead, 1],
  [SyntaxKind.CloseParenToken, -1],
  [SyntaxKind.CloseBracketToken, -1],
  [SyntaxKind.CloseBraceToken, -1],
  [SyntaxKind.TemplateTail, -1],
])

let directory = path.join(__dirname, '../../code') // /code
let options
let service
const files = new Map() // path -> {text, version}: cells, and what all of them see
const cells = new Map() // number -> {file, names}
const scope = new Map() // name -> {number, kind}: the cell that declared it last; kind is let, const or import
const read = new Map() // path -> {snapshot, version}: files on disk
let version = 0

// --- The files that the compiler sees

const host = {
  getCompilationSettings: () => options,
  getCurrentDirectory: () => directory,
  getDefaultLibFileName: (settings) => ts.getDefaultLibFilePath(settings),
  getProjectVersion: () => String(version),
  getScriptFileNames: () => [...files.keys()],
  getScriptVersion: (file) => (files.get(file) ?? onDisk(file))?.version ?? '',
  getScriptSnapshot: (file) => (files.get(file) ?? onDisk(file))?.snapshot,
  fileExists: (file) => files.has(file) || ts.sys.fileExists(file),
  readFile: (file) => files.get(file)?.text ?? ts.sys.readFile(file),
  directoryExists: ts.sys.directoryExists,
  getDirectories: ts.sys.getDirectories,
  readDirectory: ts.sys.readDirectory,
  realpath: ts.sys.realpath,
  useCaseSensitiveFileNames: () => true,
  getCustomTransformers: () => ({ before: [ofCell], after: [withFreshEnums] }),
}

function onDisk(file) {
  const inImage = file.includes('/node_modules/')
  const known = read.get(file)
  if (known && inImage) return known
  const at = inImage ? '1' : String(fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs)
  if (known?.version === at) return known
  const text = ts.sys.readFile(file)
  const entry = text === undefined ? undefined : { snapshot: ts.ScriptSnapshot.fromString(text), version: at }
  read.set(file, entry)
  return entry
}

function put(file, text) {
  files.set(file, { text, snapshot: ts.ScriptSnapshot.fromString(text), version: String(++version) })
}

function drop(file) {
  files.delete(file)
  version++
}

// --- Options: the nearest tsconfig.json, and what cells need

function settings() {
  const file = ts.findConfigFile(directory, ts.sys.fileExists) ?? SETTINGS
  const { config } = ts.readConfigFile(file, ts.sys.readFile)
  const own = { ...config?.compilerOptions, ...config?.['ts-node']?.compilerOptions }
  const parsed = ts.parseJsonConfigFileContent(
    { ...config, files: [], include: undefined, compilerOptions: own },
    ts.sys,
    path.dirname(file),
  )
  return {
    ...parsed.options,
    module: ts.ModuleKind.ESNext,
    moduleResolution: parsed.options.moduleResolution ?? ts.ModuleResolutionKind.Node10,
    moduleDetection: ts.ModuleDetectionKind.Force,
    target: Math.max(parsed.options.target ?? 0, ts.ScriptTarget.ES2022),
    removeComments: true,
    sourceMap: true,
    noUnusedLocals: false,
    noUnusedParameters: false,
    skipLibCheck: true,
    ...Object.fromEntries(
      [
        'noEmit',
        'declaration',
        'composite',
        'incremental',
        'inlineSourceMap',
        'outDir',
        'rootDir',
        'isolatedModules',
        'verbatimModuleSyntax',
        'noEmitOnError',
        'importHelpers',
      ].map((name) => [name, undefined]),
    ),
  }
}

function ready() {
  if (service) return
  options = settings()
  put(path.join(directory, AMBIENT), DECLARED)
  service = ts.createLanguageService(host)
}

// Keeps what is loaded: the packages' files are the same in every directory.
exports.moveTo = function (where) {
  if (where !== directory) {
    drop(path.join(directory, AMBIENT))
    directory = where
    put(path.join(directory, AMBIENT), DECLARED)
  }
  if (service) options = settings()
  ready()
  service.getProgram()
}

// --- Preload steps

exports.prepare = function (step) {
  ready()
  if (step === 'libraries') service.getProgram()
  if (step === 'types') trial('export {}')
  if (step === 'check') trial(fs.readFileSync(SAMPLE, 'utf8'))
}

function trial(text) {
  exports.compile(0, text)
  exports.completions('', 0)
  exports.forget(0)
}

// --- A cell

exports.compile = function (number, code) {
  ready()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.Latest, true)
  if (source.parseDiagnostics.length) return { error: worded(source.parseDiagnostics, 0, source, number) }
  const names = namesOf(source)
  const before = beginning(names, wordsOf(source))
  const file = fileOf(number)
  put(file, before + withoutExports(source) + ending(names))
  const errors = errorsOf(file, before.length, code.length)
  if (errors.length) {
    drop(file)
    return { error: worded(errors, before.length, source, number) }
  }
  const [map, script] = service.getEmitOutput(file).outputFiles
  cells.set(number, { file, hidden: new Map() })
  for (const [name, kind] of names) {
    cells.get(number).hidden.set(name, scope.get(name))
    scope.set(name, { number, kind })
  }
  return { code: onItsLines(script.text, JSON.parse(map.text).mappings) }
}

// Forget a cell that could not run after all.
exports.forget = function (number) {
  const cell = cells.get(number)
  if (!cell) return
  drop(cell.file)
  cells.delete(number)
  for (const [name, old] of cell.hidden) {
    if (old) scope.set(name, old)
    else scope.delete(name)
  }
}

function fileOf(number) {
  return path.join(directory, `<cell-${number}>.ts`)
}

function wordsOf(source) {
  return new Set(source.identifiers.keys())
}

// name -> kind, for everything that a file declares at its top level.
function namesOf(source) {
  const names = new Map()
  const bind = (name, kind) => {
    if (ts.isIdentifier(name)) names.set(name.text, kind)
    else for (const element of name.elements) if (element.name) bind(element.name, kind)
  }
  for (const statement of source.statements) {
    if (ts.isVariableStatement(statement)) {
      const { declarations, flags } = statement.declarationList
      for (const { name } of declarations) bind(name, flags & ts.NodeFlags.Const ? 'const' : 'let')
    } else if (ts.isImportDeclaration(statement)) {
      const clause = statement.importClause
      if (clause?.name) bind(clause.name, 'import')
      if (clause?.namedBindings && ts.isNamespaceImport(clause.namedBindings))
        bind(clause.namedBindings.name, 'import')
      else for (const { name } of clause?.namedBindings?.elements ?? []) bind(name, 'import')
    } else if (
      statement.name &&
      ts.isIdentifier(statement.name) &&
      !ts.isGlobalScopeAugmentation(statement)
    ) {
      bind(statement.name, 'import')
    }
  }
  for (const name of varsWithin(source)) if (!names.has(name)) names.set(name, 'let')
  return names
}

// A `var` in a block or a loop belongs to the cell, too.
function varsWithin(source) {
  const found = []
  const visit = (node) => {
    if (ts.isFunctionLike(node) || ts.isClassLike(node) || ts.isModuleDeclaration(node)) return
    if (ts.isVariableDeclarationList(node) && !(node.flags & ts.NodeFlags.BlockScoped)) {
      for (const { name } of node.declarations) if (ts.isIdentifier(name)) found.push(name.text)
    }
    ts.forEachChild(node, visit)
  }
  ts.forEachChild(source, visit)
  return found
}

// The text before a cell: it shares the cell's first line.
function beginning(own, used) {
  let text = ''
  for (const [name, { number, kind }] of scope) {
    if (own.has(name) || (used && !used.has(name))) continue
    const from = `'./<cell-${number}>'`
    text +=
      kind === 'import'
        ? `import { ${name} } from ${from};`
        : `declare ${kind} ${name}: typeof import(${from}).${name};`
  }
  return text
}

function ending(names) {
  return `\n;export { ${[...names.keys()].join(', ')} }`
}

// Cells export everything, so `export` is replaced with spaces.
function withoutExports(source) {
  let { text } = source
  const blank = (start, end) => {
    text = text.slice(0, start) + text.slice(start, end).replace(/[^\r\n]/g, ' ') + text.slice(end)
  }
  for (const statement of source.statements) {
    if (ts.isExportDeclaration(statement)) blank(statement.getStart(), statement.end)
    else if (ts.isExportAssignment(statement)) blank(statement.getStart(), statement.expression.getStart())
    else
      for (const { kind, end, pos } of statement.modifiers ?? []) {
        if (kind === ts.SyntaxKind.ExportKeyword || kind === ts.SyntaxKind.DefaultKeyword) {
          blank(ts.skipTrivia(text, pos), end)
        }
      }
  }
  return text
}

// --- Errors, in ts-node's format

function errorsOf(file, start, length) {
  return service
    .getSemanticDiagnostics(file)
    .filter(
      (error) =>
        error.category === ts.DiagnosticCategory.Error &&
        !IMPLICIT.has(error.code) &&
        (error.start === undefined || (error.start >= start && error.start <= start + length)),
    )
}

function worded(errors, start, source, number) {
  const lines = []
  const messages = []
  for (const { start: at, length: size, code, messageText } of errors.slice(0, ERRORS_SHOWN)) {
    const text = ts.flattenDiagnosticMessageText(messageText, '\n').replaceAll('<cell-', '<cell ')
    const { line, character } = source.getLineAndCharacterOfPosition(Math.max((at ?? start) - start, 0))
    const row = source.text.split(/\r\n|[\n\r\u2028\u2029]/)[line]
    messages.push(`<cell ${number}>(${line + 1},${character + 1}): error TS${code}: ${text}`)
    const mark = '~'.repeat(Math.max(1, Math.min(size ?? 1, row.length - character)))
    lines.push(...`<cell ${number}>:${line + 1}:${character + 1} - error TS${code}: ${text}`.split('\n'))
    lines.push('', row, row.slice(0, character).replace(/[^\t]/g, ' ') + mark, '')
  }
  const more = errors.length - messages.length
  if (more > 0) {
    messages.push(`... ${more} more errors`)
    lines.push(`... ${more} more errors`)
  }
  const title = '⨯ Unable to compile TypeScript:'
  return { name: 'TSError', value: [title, ...messages].join('\n'), traceback: [`TSError: ${title}`, ...lines] }
}

// --- The JavaScript

function isCell(file) {
  return path.basename(file).startsWith('<cell-')
}

// Runs before the compiler drops unused imports: later cells may use them.
function ofCell(context) {
  return (source) => {
    if (!isCell(source.fileName)) return source
    const { factory } = context
    const statements = source.statements.filter((statement) => !isOurs(statement))
    return factory.updateSourceFile(
      source,
      statements.flatMap((statement) =>
        ts.isImportDeclaration(statement) ? loading(factory, statement) : [statement],
      ),
    )
  }
}

function isOurs(statement) {
  if (ts.isExportDeclaration(statement)) return true
  const specifier = ts.isImportDeclaration(statement) && statement.moduleSpecifier.text
  if (specifier) return specifier.startsWith('./<cell-')
  const type = ts.isVariableStatement(statement) && statement.declarationList.declarations[0].type
  return Boolean(
    type &&
    ts.isTypeQueryNode(type) === false &&
    ts.isImportTypeNode(type) &&
    type.argument.literal?.text?.startsWith('./<cell-'),
  )
}

// import a, { b as c } from 'x'  ->  const { default: a, b: c } = await globalThis.import('x')
function loading(factory, statement) {
  const clause = statement.importClause
  if (clause?.isTypeOnly) return []
  const load = factory.createPropertyAccessExpression(factory.createIdentifier('globalThis'), 'import')
  const loaded = factory.createAwaitExpression(
    factory.createCallExpression(load, undefined, [statement.moduleSpecifier]),
  )
  const placed = (node) => ts.setTextRange(node, statement)
  if (!clause) return [placed(factory.createExpressionStatement(factory.createVoidExpression(loaded)))]
  const declarations = []
  const elements = []
  if (clause.name) elements.push(factory.createBindingElement(undefined, 'default', clause.name))
  const bindings = clause.namedBindings
  let value = loaded
  if (bindings && ts.isNamespaceImport(bindings)) {
    declarations.push(factory.createVariableDeclaration(bindings.name, undefined, undefined, loaded))
    value = bindings.name
  }
  for (const element of bindings?.elements ?? []) {
    if (!element.isTypeOnly)
      elements.push(
        factory.createBindingElement(undefined, element.propertyName ?? element.name, element.name),
      )
  }
  if (elements.length || declarations.length === 0) {
    declarations.push(
      factory.createVariableDeclaration(
        factory.createObjectBindingPattern(elements),
        undefined,
        undefined,
        value,
      ),
    )
  }
  return [
    placed(
      factory.createVariableStatement(
        undefined,
        factory.createVariableDeclarationList(declarations, ts.NodeFlags.Const),
      ),
    ),
  ]
}

// An enum that is declared again starts empty: `var E`, which would keep the old value, becomes `let E`.
function withFreshEnums(context) {
  return (source) => {
    if (!isCell(source.fileName)) return source
    const { factory } = context
    const fresh = (statement) => {
      const original = ts.getOriginalNode(statement)
      if (
        !ts.isVariableStatement(statement) ||
        !(ts.isEnumDeclaration(original) || ts.isModuleDeclaration(original))
      )
        return statement
      const { declarations } = statement.declarationList
      return factory.updateVariableStatement(
        statement,
        undefined,
        factory.createVariableDeclarationList(declarations, ts.NodeFlags.Let),
      )
    }
    return factory.updateSourceFile(source, source.statements.map(fresh))
  }
}

// Moves each line whose beginning maps to a line of the cell there. Others, inside of templates, follow
// the line before.
function onItsLines(script, mappings) {
  const places = placesOf(mappings)
  let text = ''
  let at = 0 // line of the result
  const lines = script.split('\n').filter((line) => !line.startsWith('//# sourceMappingURL='))
  lines.forEach((line, index) => {
    const indent = /^\s*/.exec(line)[0].length
    const place = places[index]?.find(([column]) => column >= indent)
    const wanted = place && place[0] === indent ? place[1] : undefined
    if (index > 0) {
      const down = wanted === undefined ? 1 : Math.max(wanted - at, 0)
      text += down ? '\n'.repeat(down) : ' '
      at += down
    } else if (wanted > 0) {
      text += '\n'.repeat(wanted)
      at += wanted
    }
    text += line
  })
  return text
}

// The places in a source map, by line: [[column, line in the source], ...]
function placesOf(mappings) {
  let line = 0
  return mappings.split(';').map((row) => {
    let column = 0
    return row.split(',').flatMap((segment) => {
      const numbers = numbersOf(segment)
      if (numbers.length < 4) return []
      column += numbers[0]
      line += numbers[2]
      return [[column, line]]
    })
  })
}

function numbersOf(segment) {
  const numbers = []
  let value = 0
  let shift = 0
  for (const character of segment) {
    const digit = BASE64.indexOf(character)
    value += (digit & 31) << shift
    shift += 5
    if (digit & 32) continue
    numbers.push(value & 1 ? -(value >> 1) : value >> 1)
    value = shift = 0
  }
  return numbers
}

// --- The program's own .ts files, for require()

exports.helper = function (file) {
  ready()
  const errors =
    files.size && service.getProgram()?.getSourceFile(file) ? service.getSemanticDiagnostics(file) : []
  const error = errors.find(({ category }) => category === ts.DiagnosticCategory.Error)
  if (error) {
    const { line, character } = error.file.getLineAndCharacterOfPosition(error.start)
    const place = `${path.relative(directory, file)}(${line + 1},${character + 1})`
    const text = ts.flattenDiagnosticMessageText(error.messageText, '\n')
    return { error: `⨯ Unable to compile TypeScript:\n${place}: error TS${error.code}: ${text}` }
  }
  const compilerOptions = {
    ...options,
    module: ts.ModuleKind.CommonJS,
    sourceMap: false,
    inlineSourceMap: true,
  }
  return { code: ts.transpileModule(ts.sys.readFile(file) ?? '', { fileName: file, compilerOptions }).outputText }
}

// --- Completions

exports.completions = function (code, at) {
  ready()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.Latest, true)
  const before = beginning(namesOf(source), undefined)
  const file = path.join(directory, '<cell-next>.ts')
  put(file, `${before}${code}\n;export {}`)
  try {
    const found = service.getCompletionsAtPosition(file, before.length + at, undefined)
    const word = /[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.exec(code.slice(0, at))?.[0] ?? ''
    return (found?.entries ?? [])
      .map(({ name }) => name)
      .filter((name) => name.startsWith(word) && !name.startsWith('"'))
      .slice(0, MATCHES)
  } finally {
    drop(file)
  }
}

exports.completeness = function (code) {
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.Latest, true)
  const { parseDiagnostics } = source
  if (parseDiagnostics.length === 0) return { status: 'complete', indent: '' }
  const end = code.trimEnd().length
  if (parseDiagnostics.some(({ code }) => UNTERMINATED.has(code))) return { status: 'incomplete', indent: '' }
  const isOpen = parseDiagnostics.some(({ start, code }) => start >= end && code !== UNTERMINATED_STRING)
  if (!isOpen) return { status: 'invalid', indent: '' }
  return { status: 'incomplete', indent: '  '.repeat(openBrackets(source)) }
}

function openBrackets(source) {
  let count = 0
  const visit = (node) => {
    if (ts.isJSDoc(node) || node.pos === node.end) return // an empty node stands for a missing one
    count += BRACKETS.get(node.kind) ?? 0
    node.getChildren(source).forEach(visit)
  }
  visit(source)
  return count
}
