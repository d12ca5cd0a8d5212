console.log('sum', require('lodash').sum([1, 2, 3]))
