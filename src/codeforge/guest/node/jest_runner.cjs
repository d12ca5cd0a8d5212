'use strict'
// Runs jest on /code. Node 18 and jest decide by package.json whether a .js file is an ES module. If the
// tests or the code are written as ES modules, this writes a package.json that says so.
const fs = require('fs')
const path = require('path')

const CODE = '/code'
const settingsFile = path.join(CODE, 'package.json')

function usesModuleSyntax(file) {
  return /^\s*(?:import\s*[\w*{'"]|export\s+(?:default|const|let|var|function|class|async|\*|{))/m.test(
    fs.readFileSync(file, 'utf8'),
  )
}

if (!fs.existsSync(settingsFile)) {
  const scripts = fs.readdirSync(CODE).filter((name) => name.endsWith('.js'))
  if (scripts.some((name) => usesModuleSyntax(path.join(CODE, name)))) {
    fs.writeFileSync(settingsFile, '{"type": "module"}\n')
  }
}

const settings = fs.existsSync(settingsFile) ? JSON.parse(fs.readFileSync(settingsFile, 'utf8')) : {}
const configured = 'jest' in settings || fs.readdirSync(CODE).some((name) => name.startsWith('jest.config.'))
if (!configured) process.argv.push('--config=/package.json')
require('/node_modules/jest/bin/jest.js')
