interface Options { depth: number; label?: string }

function walk(root: string, options: Options): string[] {
  return [root, String(options.depth)]
}

walk('/', { depth: '3' })
walk('/')
walk('/', { depth: 1, lable: 'x' })
'text'.lenght
